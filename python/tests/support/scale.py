"""How much a test does, and what it found: cluster-tests/src/scale.rs in Python.

At full scale (``HOLDFAST_SCALE=full``) the counts and bounds are the ones that the project
promises, for a machine that does nothing else. CI machines are shared and slow, and time is short:
there the counts are small and the time bounds five times as long. What must *never* happen is the
same at both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

Amount = TypeVar("Amount")

CI_SLACK = 5
"""How many times as long everything may take at CI scale."""


def is_full() -> bool:
    """Whether the full counts are asked for."""
    return os.environ.get("HOLDFAST_SCALE") == "full"


def scale(full: Amount, ci: Amount) -> Amount:
    """``full`` at full scale, else ``ci``."""
    return full if is_full() else ci


def bound(seconds: float) -> float:
    """A time bound: as given at full scale, five times as long at CI scale."""
    return scale(seconds, seconds * CI_SLACK)


def report(what: str, figure: object) -> None:
    """Notes a figure: prints it, and appends it to the file in ``HOLDFAST_FIGURES``, if set."""
    print(f"figure: {what}: {figure}")
    path = os.environ.get("HOLDFAST_FIGURES")
    if path:
        # One write, so that tests that run at the same time do not mix their lines.
        with open(path, "ab", buffering=0) as figures:
            figures.write(f"{what}\t{figure}\n".encode())


def summary(seconds: Iterable[float]) -> str:
    """Durations in a line: median, worst, best and how many; at least one is needed."""
    ordered = [one * 1000 for one in sorted(seconds)]
    median = ordered[len(ordered) // 2]
    return (
        f"median {median:.1f} ms, worst {ordered[-1]:.1f} ms, "
        f"best {ordered[0]:.1f} ms, n = {len(ordered)}"
    )
