"""Two masters with a GitPoller: one polls, and the other one as soon as the first cannot."""

from __future__ import annotations

import signal

from buildbot.data import masters as buildbot_masters
from buildbot.util.service import ClusteredBuildbotService

from tests.support.scale import bound, report, scale, summary

from .masters import LEASE, now, wait_until

HEARTBEAT = 60.0
"""Of Buildbot, in seconds: a literal in ``BuildMaster.create_child_services``."""


# B4: one of them polls, and goes on to.
def test_exactly_one_master_polls(pair):
    turns = len(pair.turns())
    at = now()
    wait_until(lambda: len(pair.owner()[0].polls_since(at)) >= scale(5, 2), 30, "no more polls")
    assert len(pair.turns()) == turns


# M7, B7: after kill -9 the other master has polled within the lease and half a second.
def test_killed_owner_is_followed_within_its_lease(pair):
    took = []
    for _ in range(scale(10, 1)):
        owner, heir = pair.start().owner()
        turns = len(pair.turns())
        at = owner.kill()
        took.append(pair.wait_poll(at, master=heir) - at)
        assert len(pair.turns()) == turns + 1
    report(f"Buildbot, owner killed, lease {LEASE:.0f} s, until its heir has polled", summary(took))
    expiry = buildbot_masters.EXPIRE_MINUTES * 60
    claim = ClusteredBuildbotService.POLL_INTERVAL_SEC
    report(
        "stock Buildbot on one database, the same, from its constants",
        f"{expiry - HEARTBEAT:.0f} to {expiry + HEARTBEAT + claim:.0f} s",
    )
    assert max(took) <= bound(LEASE + 0.5)


# B6: a master that is stopped in good order hands over at once, and only when it polls no more.
def test_stopped_owner_hands_over(pair):
    took = []
    for _ in range(scale(10, 1)):
        owner, heir = pair.start().owner()
        at = owner.signal(signal.SIGTERM)
        polled = pair.wait_poll(at, master=heir)
        took.append(polled - at)
        owner.process.wait(60)
        assert max(owner.stamps("end")) <= polled, "the owner polled until after the hand-over"
    report("Buildbot, owner stopped (SIGTERM), until its heir has polled", summary(took))
    assert max(took) <= bound(0.3)


# B6: a master that stood still for longer than its lease never polls on what it believed before.
def test_frozen_owner_makes_no_stray_poll(pair):
    strays = 0
    rounds = scale(15, 1)
    for _ in range(rounds):
        owner, heir = pair.owner()
        owner.forget_log()
        at = owner.signal(signal.SIGSTOP)
        pair.wait_poll(at, master=heir)
        woke = owner.signal(signal.SIGCONT)
        # It has seen what happened when it has asked for its turn again.
        owner.wait_log("is not owned by this master any more")
        pair.wait_poll(now(), master=heir)
        strays += len(owner.polls_since(woke))
    report("Buildbot, owner frozen (SIGSTOP) past its lease, stray polls", f"{strays} in {rounds}")
    assert strays == 0


# B6: the look at the clock alone keeps it from polling, also if nobody tells it of the loss.
def test_frozen_owner_that_is_not_told_makes_no_stray_poll(pair):
    owner, heir = pair.owner()
    owner.forget_log()
    owner.ask("master.service_manager.namedServices['Holdfast'].lost = lambda source: None")
    # Between two polls: from one that is broken off it steps down, told or not.
    polls = len(owner.stamps("end"))
    wait_until(lambda: len(owner.stamps("end")) > polls, 30, "it does not poll")
    at = owner.signal(signal.SIGSTOP)
    pair.wait_poll(at, master=heir)
    woke = owner.signal(signal.SIGCONT)
    owner.wait_log("is not owned by this master any more")
    # It has still to believe that it is active, and its poller to run.
    still = "[source] = master.change_svc; return source.active and source.doPoll.running"
    assert owner.ask(still) is True
    pair.wait_poll(now() + 2, master=heir)
    assert owner.polls_since(woke) == []
    owner.kill()
