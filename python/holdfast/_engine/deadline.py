"""When a call must be over."""

from __future__ import annotations

import time

from holdfast._engine import boottime

CALL_SECONDS_MAX = 86_400.0
"""Longest time that one call may take, whatever its caller asks for, in seconds."""
TICK = 1.0
"""Longest sleep before the clock that runs through suspend is looked at again, in seconds."""


class Deadline:
    """The end of a call, on the clock of timers and on CLOCK_BOOTTIME.

    So a call that slept through a suspend sends nothing afterwards.
    """

    __slots__ = ("_boot", "_timer")

    def __init__(self, seconds: float) -> None:
        seconds = min(seconds, CALL_SECONDS_MAX)
        self._timer = time.monotonic() + seconds
        self._boot = boottime.now() + seconds

    def at_most(self, seconds: float) -> Deadline:
        """The earlier of this deadline and ``seconds`` from now."""
        return Deadline(min(self.remaining(), seconds))

    def remaining(self) -> float:
        """What is left in seconds, zero once the deadline has passed on either clock."""
        return max(0.0, min(self._timer - time.monotonic(), self._boot - boottime.now()))

    def has_passed(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0.0
