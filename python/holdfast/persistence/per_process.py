"""What must not be shared over a fork (P4)."""

from __future__ import annotations

import os
from typing import Callable, Generic, TypeVar

Value = TypeVar("Value")


class PerProcess(Generic[Value]):
    """A value for each process: a child that inherits it by a fork makes one of its own.

    There is no lock, which a child could inherit locked: of two threads that make the value at the
    same time one is given the other's.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._values: dict[tuple[int, int], Value] = {}

    def get(self) -> Value:
        """This process's value."""
        process = os.getpid(), _Forks.count
        value = self._values.get(process)
        if value is None:
            value = self._values.setdefault(process, self._make())
        return value


class _Forks:
    """How many forks lie between this process and the first one.

    A grandchild may be given the number of a process that is gone.
    """

    count = 0

    @classmethod
    def add(cls) -> None:
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.add)
