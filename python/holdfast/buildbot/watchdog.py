"""Ends the lease of a master that lives and does nothing.

The lease is renewed by a thread, so that a reactor which is busy for a while does not lose it. But
a reactor that has come to a standstill for good, in a blocking call or a deadlock, would keep its
change sources for ever, and nobody would poll them. So the reactor shows itself, and a thread of
the watchdog's own looks whether it does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable

from twisted.internet import task

if TYPE_CHECKING:
    from twisted.internet import defer

LOOKS = 10
"""How often the watchdog looks before it counts the reactor as dead."""


class Watchdog:
    """Watches one reactor.

    Args:
        reactor: is to show itself.
        limit: after so many seconds without a sign of it ``bite`` is called; 0: never.
        bite: called on the watchdog's thread, again and again until the reactor shows itself.
    """

    def __init__(self, reactor: Any, limit: float, bite: Callable[[], None]) -> None:
        self._period = limit / LOOKS
        self._bite = bite
        self._looks = 0
        self._is_over = threading.Event()
        self._showing = task.LoopingCall(self._show)
        self._showing.clock = reactor

    def start(self) -> None:
        """Begins to watch, unless the limit is 0."""
        if self._period > 0:
            self._showing.start(self._period)
            threading.Thread(target=self._watch, name="holdfast-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stops watching."""
        self._is_over.set()
        if self._showing.running:
            self._showing.stop()

    def _show(self) -> defer.Deferred[None] | None:
        self._looks = 0
        return None

    def _watch(self) -> None:
        # Looks are counted, not seconds: a process that is frozen does not look either.
        while not self._is_over.wait(self._period):
            self._looks += 1
            if self._looks > LOOKS:
                self._bite()
