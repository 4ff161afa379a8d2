"""Nodes that die, a cluster that is down: polling goes on or resumes, never twice at a moment."""

from __future__ import annotations

import pytest

from tests.support.scale import bound, report, scale

from .cut import CUT
from .masters import LEASE, now

INTERVAL = 1.0
"""From one poll of the GitPoller to the next, in seconds."""


def longest_gap(pair, since, until):
    polls = sorted(stamp for one in pair.masters for stamp in one.stamps())
    polls = [stamp for stamp in polls if since - 2 * INTERVAL <= stamp <= until]
    return max(later - earlier for earlier, later in zip(polls, polls[1:]))


# M7, G3: the leader is killed, and then each node, so also the one that the owner talks to.
@pytest.mark.parametrize("node", scale(["leader", "n1", "n2", "n3"], ["leader"]))
def test_polling_survives_a_node(breakable, pair, node):
    turns = len(pair.turns())
    at = now()
    breakable.local("kill", node)
    try:
        pair.wait_poll(at + LEASE)
    finally:
        breakable.up()
    gap = longest_gap(pair, at, now())
    report(f"Buildbot, {node} killed, longest time without a poll", f"{gap:.2f} s")
    assert gap <= bound(LEASE + INTERVAL)
    assert len(pair.turns()) <= turns + 1


# M5, B6: who is cut off from the cluster stops before the other one begins, and does not go on.
def test_owner_is_cut_off(pair):
    for _ in range(scale(5, 1)):
        owner, heir = pair.owner()
        turns = len(pair.turns())
        at = now()
        (owner.path / CUT).touch()
        try:
            taken = pair.wait_poll(at, master=heir)
            last = max(owner.stamps())
            pair.wait_poll(taken + scale(LEASE, INTERVAL), master=heir)
        finally:
            (owner.path / CUT).unlink()
        assert owner.polls_since(taken) == []
        report(
            f"Buildbot, owner cut off, lease {LEASE:.0f} s",
            f"polls until {last - at:.2f} s, its heir from {taken - at:.2f} s on",
        )
        assert taken - at <= bound(LEASE + 0.5)
        # Both live, and it is not the first one's turn.
        pair.wait_poll(now() + scale(LEASE, INTERVAL), master=heir)
        assert len(pair.turns()) == turns + 1


# B5: masters start without a cluster, and one is active as soon as there is one.
def test_start_without_a_cluster(breakable, pair):
    pair.stop()
    breakable.down()
    try:
        began = now()
        pair.start()
        started = now() - began
        at = now()
        assert [one.polls_since(began) for one in pair.masters] == [[], []]
    finally:
        breakable.up()
    back = now()
    active = pair.wait_poll(at) - back
    report("Buildbot, two masters start without a cluster", f"{started:.1f} s")
    report("Buildbot, cluster back, until one polls", f"{max(active, 0.0) * 1000:.0f} ms")
    assert started <= bound(8.0)
    assert active <= bound(1.0)
    turns = len(pair.turns())
    pair.wait_poll(now() + 2 * INTERVAL)
    assert len(pair.turns()) == turns
