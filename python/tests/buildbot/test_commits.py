"""Commits while masters die, stop and freeze: none is missed, none is added twice (B8)."""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections import Counter

import pytest

from tests.support.scale import report, scale

from .masters import Pair, Repository, git_source, holdfast, now, wait_until

LEASE = scale(3.0, 1.0)
COMMITS = scale(300, 30)
FAULT_EVERY = scale(10.0, 2.0)
"""Seconds from one fault to the next."""
COMMITS_MAX = 5
"""How many come at once at most, so that a poll has several changes to add."""


class Committer(threading.Thread):
    """Commits until there are enough, a few at a time."""

    def __init__(self, repository, seconds):
        super().__init__(daemon=True)
        self._repository = repository
        self._pause = seconds / COMMITS * COMMITS_MAX / 2
        self._random = random.Random(1)
        self.is_over = threading.Event()

    def run(self):
        left = COMMITS
        while left and not self.is_over.wait(self._pause):
            count = min(left, self._random.randint(1, COMMITS_MAX))
            self._repository.commit(count)
            left -= count
        self.is_over.set()


# B8
def test_no_commit_is_missed_or_added_twice(cluster, site, tmp_path):
    repository = Repository(tmp_path / "repository")
    config = holdfast(cluster, "commits", lease=LEASE) + git_source(repository, pollInterval=0.5)
    both = Pair(site.master("commits-a", config), site.master("commits-b", config)).start()
    both.wait_poll(0)
    first = len(repository.revisions)
    committer = Committer(repository, seconds=FAULT_EVERY * scale(9, 3))
    committer.start()
    faults = 0
    try:
        for fault in itertools.cycle([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]):
            over = committer.is_over.wait(FAULT_EVERY)
            if over:
                break
            owner, heir = both.owner()
            at = owner.signal(fault)
            faults += 1
            both.wait_poll(at, master=heir)
            if fault is signal.SIGSTOP:
                owner.signal(signal.SIGCONT)
            else:
                owner.process.wait(60)
                both.start()
        added = repository.revisions[first:]
        wait_until(
            lambda: set(added) <= set(both.masters[0].changes() + both.masters[1].changes()),
            30,
            lambda: f"missing: {missing(both, added)}",
        )
        both.wait_poll(now())
    finally:
        committer.is_over.set()
        both.stop()
    counted = Counter(both.masters[0].changes() + both.masters[1].changes())
    twice = [revision for revision in added if counted[revision] > 1]
    report(
        "Buildbot, commits under kill -9, SIGSTOP and SIGTERM in turn",
        f"{len(added)} commits, {faults} faults: {len(missing(both, added))} missing, "
        f"{len(twice)} added twice",
    )
    assert missing(both, added) == []
    # Of each that was killed or frozen one change may have been in flight: added, not marked.
    assert len(twice) <= faults
    assert max(counted.values()) <= 2


# B8: what the first owner has added, and not yet stored a state behind, is added by nobody else.
# B6: and what it was about to add when it stood still, it does not add afterwards.
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_owner_is_lost_amid_a_poll(cluster, site, tmp_path, fault):
    repository = Repository(tmp_path / "repository")
    name = f"amid-{fault.name}"
    config = holdfast(cluster, name, lease=1) + git_source(repository, pollInterval=0.5)
    both = Pair(site.master(f"{name}-a", config), site.master(f"{name}-b", config)).start()
    try:
        both.wait_poll(0)
        owner, heir = both.owner()
        wait_until(lambda: owner.stamps("end"), 30, "the first poll does not end")
        added = repository.commit(40)
        wait_until(lambda: len(owner.changes()) >= 5, 30, "nothing is added")
        owner.signal(fault)
        assert len(owner.changes()) < len(added), "the poll was over too early"
        wait_until(lambda: added[-1] in heir.changes(), 30, "the heir does not add the rest")
        if fault is signal.SIGSTOP:
            owner.signal(signal.SIGCONT)
            ended = len(owner.stamps("begin"))
            wait_until(lambda: len(owner.stamps("end")) == ended, 30, "the poll does not end")
        counted = Counter(owner.changes() + heir.changes())
        assert sorted(counted) == sorted(added)
        assert sum(counted.values()) - len(added) <= 1
        # What the first owner has last said of how far it was does not count.
        more = repository.commit(2)
        wait_until(lambda: heir.changes()[-2:] == more, 30, "the heir does not go on")
    finally:
        both.stop()


def missing(both, added):
    found = set(both.masters[0].changes() + both.masters[1].changes())
    return [revision for revision in added if revision not in found]
