"""A reactor that is busy keeps its change sources, one that stands still for good does not (B7)."""

from __future__ import annotations

import threading

from tests.support.scale import bound

from .conftest import WATCHDOG
from .masters import LEASE, now


def block(master, seconds):
    """Has the reactor do nothing else for so long; returns what waits for its end."""
    asked = threading.Thread(target=master.ask, args=(f"import time; time.sleep({seconds})",))
    asked.start()
    return asked


# B7: the thread keeps the lease of a reactor that is busy for twice its time.
def test_busy_reactor_keeps_its_sources(pair):
    owner, other = pair.owner()
    at = now()
    block(owner, 2 * LEASE).join()
    pair.wait_poll(now(), master=owner)
    assert other.polls_since(at) == []


# B7: one that does nothing any more is followed, and begins nothing when it wakes up.
def test_dead_reactor_loses_its_sources(pair):
    owner, heir = pair.owner()
    owner.forget_log()
    at = now()
    blocked = block(owner, WATCHDOG + LEASE)
    taken = pair.wait_poll(at, master=heir)
    assert taken - at <= bound(WATCHDOG + 1)
    blocked.join()
    owner.wait_log("is not owned by this master any more")
    pair.wait_poll(now(), master=heir)
    assert owner.polls_since(taken) == []
