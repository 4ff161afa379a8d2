"""Time that also runs while the machine is suspended.

Leases and sessions end by the cluster's clock, which does not stop when a laptop lid closes (G7).
``time.monotonic`` reads CLOCK_MONOTONIC, which on Linux stands still in suspend
(``clock_gettime(2)``); everything that counts a lease or a session reads CLOCK_BOOTTIME instead.
"""

from __future__ import annotations

import time

# Elsewhere CLOCK_MONOTONIC is the nearest thing; on macOS it runs through sleep.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """The time since the machine started, suspend included, in seconds."""
    return time.clock_gettime(_CLOCK)
