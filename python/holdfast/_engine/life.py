"""The life of a lease, as its holder counts it (M5, M6).

Two counts run on CLOCK_BOOTTIME, and the lease is lost when the first of them ends: from before the
first transmission of the last renewal, for the lease's ttl; and, while a node can shrink the lease
because it is attached there, from before the last message that this node has answered, for the
grace. A renewal for the grace alone moves the end of the first count up, from the moment before it
is sent. Each count is shorter than what the cluster counts by a margin of 1 % and 10 ms.

Invariant: the clock is compared before anything else is done, and a loss is never taken back.
"""

from __future__ import annotations

import enum
import os
import threading
from typing import Callable

from holdfast._engine import boottime, task

_TICK = 0.1
"""Longest sleep between two looks at the clock, in seconds."""
_MARGIN = 0.01
"""What a client's clock and the cluster's may differ by at any ttl; 1 % comes on top."""


class Loss(enum.Enum):
    """How a lease came to its end."""

    EXPIRED = "expired"
    """It was not renewed in time, as far as its holder can tell."""
    ENDED = "ended"
    """The cluster said that it has ended: the master was made inactive, or its installation opened
    another lease."""
    CLOSED = "closed"
    """Its holder closed it; or this is a child process, and it is its parent's."""


RENEWAL_MIN = 0.001
"""How long before its end a lease is no longer worth a renewal, in seconds, so that none is sent
after it."""
_PAUSE_MAX = 0.5
"""Longest pause after a renewal that failed early, in seconds."""


def pause(ttl: float) -> float:
    """How long to wait after a call about a lease failed, in seconds.

    Often enough for several tries in what a third of the ttl leaves.
    """
    return min(ttl / 20, _PAUSE_MAX)


def counted(ttl: float) -> float:
    """How much of a lease its holder counts on, in seconds."""
    return max(0.0, ttl - ttl / 100 - _MARGIN)


class Life:
    """How long one lease lasts by its holder's own count, and whether it is over.

    Args:
        until: when it ends, on CLOCK_BOOTTIME.
        clock: the present moment on CLOCK_BOOTTIME.
    """

    def __init__(self, until: float, clock: Callable[[], float] = boottime.now) -> None:
        self._clock = clock
        # Held for a comparison, never while anything waits.
        self._lock = threading.Lock()
        self._until = until
        self._graced: float | None = None
        self._loss: Loss | None = None
        self._pid = os.getpid()
        self.lost: task.Signal[Loss] = task.Signal()
        """Told once the loss is known, which :meth:`watch` sees to."""

    def loss(self) -> Loss | None:
        """Whether the lease is lost at this moment, and how. Looks at the clock."""
        if os.getpid() != self._pid:
            return Loss.CLOSED
        with self._lock:
            loss = self._settle()
        return self._tell(loss)

    @property
    def until(self) -> float:
        """When it is lost if nothing is heard any more, or when it was lost."""
        with self._lock:
            return self._end()

    def remaining(self) -> float:
        """How long it lasts from here if nothing is heard any more, in seconds."""
        return max(0.0, self.until - self._clock())

    def extend(self, until: float) -> bool:
        """Moves the end, unless the lease is lost by now; returns whether it did."""
        with self._lock:
            loss = self._settle()
            if loss is None:
                self._until = max(self._until, until)
        return self._tell(loss) is None

    def shorten(self, until: float) -> bool:
        """Moves the end up, unless it is sooner anyway or the lease is lost; whether it lives."""
        with self._lock:
            loss = self._settle()
            if loss is None:
                self._until = min(self._until, until)
        return self._tell(loss) is None

    def attach(self, until: float) -> None:
        """From here on a node can shrink the lease, and has not before this count began."""
        with self._lock:
            if self._graced is None:
                self._graced = until

    def prove(self, until: float) -> None:
        """Moves the end of the connection's count, unless the lease is lost by now."""
        with self._lock:
            loss = self._settle()
            if loss is None and self._graced is not None:
                self._graced = max(self._graced, until)
        self._tell(loss)

    def detach(self) -> None:
        """No node can shrink the lease as it is now, unless it is lost by now."""
        with self._lock:
            loss = self._settle()
            if loss is None:
                self._graced = None
        self._tell(loss)

    def end(self, how: Loss) -> None:
        """It is over, if it is not already."""
        with self._lock:
            loss = self._settle()
            if loss is None:
                loss = self._loss = how
                self._until, self._graced = min(self._until, self._clock()), None
        self._tell(loss)

    async def watch(self) -> None:
        """Looks at the clock until the lease is lost, so that whoever waits is told in time."""
        while self.loss() is None:
            await self.lost.wait(min(self.remaining(), _TICK))

    async def sleep_until(self, moment: float) -> Loss | None:
        """Waits until a moment on CLOCK_BOOTTIME, or until the lease is lost."""
        while True:
            loss = self.loss()
            left = moment - self._clock()
            if loss is not None or left <= 0:
                return loss
            await self.lost.wait(min(left, _TICK))

    def _end(self) -> float:
        """The earlier of the two counts' ends."""
        return self._until if self._graced is None else min(self._graced, self._until)

    def _settle(self) -> Loss | None:
        """The one place where the clock is compared with the end."""
        if self._loss is None and self._clock() >= self._end():
            self._loss = Loss.EXPIRED
        return self._loss

    def _tell(self, loss: Loss | None) -> Loss | None:
        # Without the lock: whoever is told may look again.
        if loss is not None:
            self.lost.tell(loss)
        return loss
