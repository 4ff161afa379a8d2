"""Where the records of a store are kept."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable, Protocol

from holdfast.persistence.record import Record, Stored


@dataclass(frozen=True)
class Filter:
    """Which objects are of interest; by default all."""

    class_name: str | None = None
    """Those of this class; none: of any."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Those that have all of these among their metadata; at most 64."""

    def passes(self, class_name: str, metadata: Mapping[str, str]) -> bool:
        """Whether an object of this class and metadata passes."""
        is_of_class = self.class_name is None or self.class_name == class_name
        return is_of_class and self.metadata.items() <= metadata.items()


@dataclass(frozen=True)
class Head:
    """What is known of a record without its body."""

    id: int
    class_name: str
    metadata: dict[str, str]
    """With those that are ours."""
    body_bytes: int


class Absent(Exception):  # it does not leave the package
    """There is no record of this id."""

    def __init__(self, id_: int, parent: int | None) -> None:
        super().__init__(id_, parent)
        self.id = id_
        self.parent = parent
        """One that refers to it; none if it was asked for itself."""


class Backend(Protocol):
    """A place where records are kept."""

    @property
    def name(self) -> str:
        """How the store is called in messages: its URI."""

    def lease(self, count: int) -> builtins.list[int]:
        """So many ids that nobody has had."""

    def reserve(self, count: int) -> None:
        """Takes so many ids for the saves to come, where that makes those faster."""

    def put(self, records: builtins.list[tuple[int, Record]]) -> None:
        """Keeps all records, or none; the root is the last.

        Raises:
            UnissuedId: One of the ids was never given out.
        """

    def fetch(self, root: int, is_here: Callable[[int], bool]) -> dict[int, Stored]:
        """A tree as it was at one moment, without those that are here.

        Raises:
            Absent: One of its records is not there.
        """

    def remove(self, id_: int) -> None:
        """Removes a record, if there is one."""

    def list(self, wanted: Filter) -> builtins.list[Head]:
        """The records that pass, in order, as they were at one moment."""

    def heads(self, wanted: Filter) -> Iterator[Head]:
        """As :meth:`list`, one by one."""
