"""An object and all that it refers to, on its way out of a store; nothing here recurses."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Callable

from holdfast.persistence.record import Stored


class Growing:
    """A tree that is fetched level by level, each object once.

    Args:
        root: Its root's id.
        is_here: Which objects need not be fetched, nor what they refer to.
    """

    def __init__(self, root: int, is_here: Callable[[int], bool]) -> None:
        self._is_here = is_here
        self.objects: dict[int, Stored] = {}
        self._level: dict[int, int | None] = {root: None}

    @property
    def wanted(self) -> list[int]:
        """The ids of the level to be fetched, in order; empty once the tree is complete."""
        return sorted(self._level)

    def parent(self, id_: int) -> int | None:
        """One that refers to this one of the level; none for the root."""
        return self._level.get(id_)

    def grow(self, fetched: Iterable[Stored]) -> None:
        """Takes in the level: all that were wanted."""
        self._level = {}
        referred: dict[int, int | None] = {}
        for stored in fetched:
            self.objects[stored.id] = stored
            for child in stored.children:
                referred.setdefault(child, stored.id)
        for child, parent in referred.items():
            if child not in self.objects and not self._is_here(child):
                self._level[child] = parent


def children_first(objects: Mapping[int, Stored], root: int) -> list[int]:
    """The ids of all objects, each after those that it refers to, if there are no circles."""
    order: list[int] = []
    begun: set[int] = set()
    waiting = [(root, True)]
    while waiting:
        id_, is_first = waiting.pop()
        if not is_first:
            order.append(id_)
            continue
        if id_ in begun or id_ not in objects:
            continue
        begun.add(id_)
        waiting.append((id_, False))
        waiting += [(child, True) for child in reversed(objects[id_].children)]
    return order


@contextmanager
def no_collection() -> Iterator[None]:
    """Without the cyclic collector, which else walks all that is being made over and over."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
