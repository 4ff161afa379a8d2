"""Children that a test forks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

CHILD_SECONDS = 30
"""How long a child may take before it is killed: one that hangs must not hang its test."""


def in_child(check: Callable[[], object]) -> int:
    """The wait status of a forked child that runs a check: 0 if that raised nothing."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(CHILD_SECONDS)
        try:
            check()
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]
