"""Transactions of one store that touch the same variables go one after the other.

The model: each variable that somebody touches has a line. A transaction stands in the lines of all
that it touches, from one moment on, so that no two wait for each other; and it goes when nobody in
front of it is in its way: readers of one variable go together, a writer goes alone. What a run
touches is known when it has ended; but if somebody who writes the first variable that it reads
stands there, it stands in line behind, as one who writes it, before it reads.

This is for speed alone. Whether a transaction is applied is for the cluster to decide; so one that
has waited for long goes on without its place.
"""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Mapping

WAIT_SECONDS_MAX = 1.0
"""Longest wait: some round trips of those in front.

A transaction that runs another one inside it would wait for itself.
"""


class Touch(enum.IntEnum):
    """How a transaction touches a variable."""

    READS = 0
    WRITES = 1


class Turn:
    """A place in the lines of what a transaction touches."""

    def __init__(self, footprint: Mapping[bytes, Touch]) -> None:
        self._footprint = dict(footprint)
        self.has_waited = False
        """Whether somebody was in the way before."""
        self.may_go = threading.Event()

    def covers(self, footprint: Mapping[bytes, Touch]) -> bool:
        """Whether whoever holds it may touch all this."""
        return all(self._footprint.get(key, -1) >= touch for key, touch in footprint.items())

    def touches(self) -> Mapping[bytes, Touch]:
        """What its holder may touch."""
        return self._footprint


class Queue:
    """The lines of a store. Safe for threads; a fork's child begins with empty ones."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        # Held to look at lines and to change them, never while waiting.
        self._lock = threading.Lock()
        # Those that stand there, by variable and in their order.
        self._lines: dict[bytes, list[Turn]] = {}

    def take(self, footprint: Mapping[bytes, Touch]) -> Turn | None:
        """Waits for a turn; None if that takes too long. To be given back."""
        self._forget_parent()
        turn = Turn(footprint)
        with self._lock:
            for key in footprint:
                self._lines.setdefault(key, []).append(turn)
            turn.has_waited = not self._is_first(turn)
        if not turn.has_waited or turn.may_go.wait(WAIT_SECONDS_MAX):
            return turn
        self.give_back(turn)
        return None

    def join(self, key: bytes) -> Turn | None:
        """If somebody writes this variable, or is about to, waits for a turn to write it, too."""
        self._forget_parent()
        with self._lock:
            line = self._lines.get(key, [])
            if not any(turn.touches()[key] is Touch.WRITES for turn in line):
                return None
        return self.take({key: Touch.WRITES})

    def give_back(self, turn: Turn) -> None:
        """Ends a turn, and lets those go that it was in the way of."""
        with self._lock:
            behind: dict[int, Turn] = {}
            for key in turn.touches():
                line = self._lines.get(key, [])
                if turn not in line:
                    continue  # of the process before a fork
                line.remove(turn)
                behind.update((id(other), other) for other in line)
                if not line:
                    del self._lines[key]
            for other in behind.values():
                if self._is_first(other):
                    other.may_go.set()

    def _forget_parent(self) -> None:
        """Threads that stood in lines, or held the lock, are not in a fork's child."""
        if os.getpid() != self._pid:
            self._begin()

    def _is_first(self, turn: Turn) -> bool:
        return all(self._may_pass(key, touch, turn) for key, touch in turn.touches().items())

    def _may_pass(self, key: bytes, touch: Touch, turn: Turn) -> bool:
        line = self._lines[key]
        in_front = line[: line.index(turn)]
        if touch is Touch.WRITES:
            return not in_front
        return all(other.touches()[key] is Touch.READS for other in in_front)
