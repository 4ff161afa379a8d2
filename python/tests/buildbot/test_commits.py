"""Commits while masters die, stop and freeze: none is missed, none is added twice (B8)."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter

import pytest

from tests.support.scale import report, scale

from .masters import LEASE, Pair, Repository, git_source, holdfast, now, wait_until

COMMITS = scale(300, 30)
FAULTS = scale(9, 3)
FAULT_EVERY = scale(10.0, 1.0)
"""Seconds from one fault to the next, beside what it takes until all is well again."""
COMMITS_MAX = 5
"""How many come at once at most, so that a poll has several changes to add."""
AMID = scale(40, 15)
"""Commits that a poll is interrupted in."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("commits") / "repository")


@pytest.fixture(scope="module")
def both(cluster, site, repository):
    config = holdfast(cluster, "commits") + git_source(repository, pollInterval=0.5)
    pair = Pair(site.master("commits-a", config), site.master("commits-b", config)).start()
    at = pair.wait_poll(0)
    wait_until(lambda: pair.owner()[0].stamps("end"), 30, f"the poll of {at} does not end")
    yield pair
    pair.stop()


def commit_on(repository, seconds):
    """Commits for so long, a few at a time."""
    left, chance = COMMITS, random.Random(1)
    pause = threading.Event()
    while left:
        count = min(left, chance.randint(1, COMMITS_MAX))
        repository.commit(count)
        left -= count
        pause.wait(seconds * count / COMMITS)


# B8
def test_no_commit_is_missed_or_added_twice(both, repository):
    first = len(repository.revisions)
    committing = threading.Thread(
        target=commit_on, args=(repository, FAULTS * (FAULT_EVERY + LEASE))
    )
    committing.start()
    for nth in range(FAULTS):
        until = now() + FAULT_EVERY
        both.wait_poll(until)
        fault = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM)[nth % 3]
        owner, heir = both.owner()
        at = owner.signal(fault)
        both.wait_poll(at, master=heir)
        if fault is signal.SIGSTOP:
            owner.signal(signal.SIGCONT)
        else:
            owner.process.wait(60)
            both.start()
    committing.join()
    added = repository.revisions[first:]
    wait_until(lambda: not missing(both, added), 120, lambda: f"missing: {missing(both, added)}")
    # One more poll, for what might come twice.
    both.wait_poll(both.wait_poll(now()))
    counted = counts(both, added)
    twice = [revision for revision in added if counted[revision] > 1]
    report(
        "Buildbot, commits under kill -9, SIGSTOP and SIGTERM in turn",
        f"{len(added)} commits, {FAULTS} faults: 0 missing, {len(twice)} added twice",
    )
    # Of each that was killed or frozen one change may have been in flight: added, not marked.
    assert len(twice) <= FAULTS
    assert max(counted.values()) <= 2


# B8: what the first owner has added, and not yet stored a state behind, is added by nobody else.
# B6: and what it was about to add when it stood still, it does not add afterwards.
@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
def test_owner_is_lost_amid_a_poll(both, repository, fault):
    both.start()
    owner, heir = both.owner()
    before = len(owner.changes())
    added = repository.commit(AMID)
    wait_until(lambda: len(owner.changes()) >= before + 3, 30, "nothing is added")
    owner.signal(fault)
    # Its database may be locked for as long as it stands still.
    assert owner.is_polling(), "the poll was over too early"
    wait_until(lambda: added[-1] in heir.changes(), 60, "the heir does not add the rest")
    if fault is signal.SIGSTOP:
        owner.signal(signal.SIGCONT)
        wait_until(lambda: not owner.is_polling(), 30, "the poll does not end")
    else:
        owner.process.wait(60)
    counted = counts(both, added)
    assert missing(both, added) == []
    assert sum(counted.values()) - len(added) <= 1
    # What the first owner has last said of how far it was does not count.
    more = repository.commit(2)
    wait_until(lambda: heir.changes()[-2:] == more, 30, "the heir does not go on")


# B8: a poll that is stopped half way does not forget the branches that it has not come to.
def test_poll_that_is_stopped_keeps_its_state(both, repository):
    owner, heir = both.start().owner()
    body = """
    from twisted.internet import task
    [source] = master.change_svc
    run, poller = source._dovccmd, source.doPoll
    async def stop_behind_fetch(command, *args, **kwargs):
        printed = await run(command, *args, **kwargs)
        if command == 'fetch':
            poller.running = False
        return printed
    source._dovccmd = stop_behind_fetch
    before = await source.getState('lastRev')
    source.force()
    while poller.running or poller._currently_executing:
        await task.deferLater(master.reactor, 0.01)
    return [before, await source.getState('lastRev')]
    """
    before, after = owner.ask(body)
    assert list(before) == ["main"]
    assert after == before
    owner.kill()
    added = repository.commit(2)
    wait_until(lambda: heir.changes()[-2:] == added, 30, "the heir has missed commits")


# B6: a poll whose claim is gone adds and stores nothing, whether or not it was told.
def test_poll_without_its_claim_changes_nothing(both):
    owner, _ = both.start().owner()
    body = """
    from holdfast.buildbot.claim import ClaimLost, Poll, current
    plugin = master.service_manager.namedServices['Holdfast']
    [source] = master.change_svc
    claim = plugin._ownership.claim_of('git')
    state = await source.getState('lastRev')
    current.set(Poll(claim, plugin._guards['git']._marks))
    claim.revoke()
    refused = []
    for attempt in (
        lambda: master.data.updates.addChange(author='a', revision='stray'),
        lambda: master.db.changes.addChange(author='a', revision='stray'),
        lambda: source.setState('lastRev', {}),
    ):
        try:
            await attempt()
        except ClaimLost:
            refused.append(True)
    return [refused, await source.getState('lastRev') == state]
    """
    assert owner.ask(body) == [[True, True, True], True]
    assert "stray" not in owner.changes()
    owner.kill()


def counts(both, revisions):
    """How often each of the revisions is a change of one of the masters."""
    return Counter(
        revision
        for master in both.masters
        for revision in master.changes()
        if revision in set(revisions)
    )


def missing(both, revisions):
    """Those of the revisions that are no change of any master."""
    found = counts(both, revisions)
    return [revision for revision in revisions if not found[revision]]
