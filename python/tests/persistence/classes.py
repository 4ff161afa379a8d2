"""Classes of objects that the tests store: they are found by their module when they come back."""

from __future__ import annotations

import gc
from typing import Any

from holdfast.persistence import Persistable


class Job(Persistable):
    def __init__(self, command: str = "", *children: Any) -> None:
        super().__init__()
        self.command = command
        self.children = list(children)


class Slotted(Persistable):
    __slots__ = ("a", "b")

    def __init__(self, a: int) -> None:
        super().__init__()
        self.a = a


class Bare:
    """Only what it lists: no weak references, no ``changed``, no ``_id``."""

    __slots__ = ("persistent_id", "x")

    def __init__(self, x: object) -> None:
        self.x = x


class Nameless:
    """Takes no attributes."""

    __slots__ = ()


class Named(dict):  # type: ignore[type-arg]
    """A dict with attributes."""


class Numbers(list):  # type: ignore[type-arg]
    """A list with attributes."""


class Pair(Persistable):
    """Made from what it refers to."""

    def __init__(self, left: Any, right: Any) -> None:
        super().__init__()
        self.left = left
        self.right = right

    def __reduce__(self) -> Any:
        return Pair, (self.left, self.right)


class Stateful(Persistable):
    """Its own way of state; tells what its child was when it got it."""

    def __init__(self, child: Job) -> None:
        super().__init__()
        self.child = child

    def __getstate__(self) -> Any:
        return {"child": self.child}

    def __setstate__(self, state: Any) -> None:
        self.__dict__ = state
        self.seen = self.child.command, self.child.persistent_id


class Watchful(Persistable):
    """Knows whether the cyclic collector ran while it was made."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__ = state
        self.was_collecting = gc.isenabled()


class Unpicklable(Persistable):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda: 0
