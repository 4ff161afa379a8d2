"""A reactor that is busy keeps its change sources, one that stands still for good does not (B7)."""

from __future__ import annotations

import threading

from tests.support.scale import bound

from .masters import Pair, Repository, git_source, holdfast, now

LEASE = 1.0
WATCHDOG = 3.0


def block(master, seconds):
    """Has the reactor do nothing else for so long; returns what waits for its end."""
    asked = threading.Thread(target=master.ask, args=(f"import time; time.sleep({seconds})",))
    asked.start()
    return asked


# B7
def test_busy_reactor_and_dead_reactor(cluster, site, tmp_path):
    repository = Repository(tmp_path / "repository")
    config = holdfast(cluster, "busy", lease=LEASE, watchdog=WATCHDOG) + git_source(repository)
    both = Pair(site.master("busy-a", config), site.master("busy-b", config)).start()
    try:
        both.wait_poll(0)
        owner, other = both.owner()
        # Twice its lease: the thread keeps it.
        block(owner, 2 * LEASE).join()
        both.wait_poll(now(), master=owner)
        assert other.stamps() == []

        at = now()
        blocked = block(owner, 3 * WATCHDOG)
        taken = both.wait_poll(at, master=other)
        assert taken - at <= bound(WATCHDOG + 1)
        blocked.join()
        owner.wait_log("is not owned by this master any more")
        assert owner.polls_since(taken) == []
    finally:
        both.stop()
