"""An object and all that it refers to, on its way into a store.

The objects are walked breadth first from the root, each of them once, however often it is referred
to and whether or not they refer to each other in circles; nothing here recurses. All of them are
encoded and checked before the first is given an id, and all have ids before any is handed out: so
nothing has been sent when one of them cannot be stored.

A child that has not been changed since this store saved or loaded it is referred to, and not saved
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.persistence.errors import UnstorableObject
from holdfast.persistence.record import Encoded, Record


class Kind(Protocol):
    """What a store knows of the objects that it keeps."""

    def encode(self, obj: Any) -> tuple[Encoded, list[Any]]:
        """An object in bytes, and its children."""

    def number_of(self, obj: Any) -> int | None:
        """The number of an object's id, if it has one."""

    def is_as_stored(self, obj: Any) -> bool:
        """Whether it has not been changed since this store saved or loaded it."""

    def give_id(self, obj: Any, number: int, class_name: str) -> None:
        """Sets an object's id."""

    def sign(self, number: int, record: Record) -> Record:
        """The record as it is kept under this id."""


@dataclass
class Member:
    """One of a family."""

    obj: Any
    encoded: Encoded
    children: list[Any]


class Family:
    """An object and what it refers to, encoded.

    Raises:
        UnstorableObject: One of them cannot be pickled.
        ObjectTooLarge: One of them is too large.
    """

    def __init__(self, root: Any, kind: Kind) -> None:
        self._kind = kind
        self.members: list[Member] = []
        """The root first."""
        queue = [root]
        seen = {id(root)}
        for obj in queue:
            encoded, children = kind.encode(obj)
            self.members.append(Member(obj, encoded, children))
            for child in children:
                if id(child) not in seen and not kind.is_as_stored(child):
                    seen.add(id(child))
                    queue.append(child)

    def unnamed(self, root: int | None) -> int:
        """How many of them have no id, where the root is to have this one if it is given."""
        members = self.members if root is None else self.members[1:]
        return sum(self._kind.number_of(member.obj) is None for member in members)

    def records(self, root: int | None, fresh: list[int]) -> list[tuple[int, Record]]:
        """The records of all, the root last.

        Those without an id take one of the fresh ones, of which there are as many as
        :meth:`unnamed` says; a root that is given an id here is only stored under it.

        Raises:
            UnstorableObject: Two of them have the same id, or one takes no attribute.
        """
        left = iter(fresh)
        numbers: dict[int, int] = {}
        taken: set[int] = set()
        for place, member in enumerate(self.members):
            number = self._kind.number_of(member.obj)
            if place == 0 and root is not None:
                number = root
            elif number is None:
                number = next(left)
                self._kind.give_id(member.obj, number, member.encoded.class_name)
            if number in taken:
                why = f"another object of the same tree has its id, {number}"
                raise UnstorableObject(member.encoded.class_name, why)
            taken.add(number)
            numbers[id(member.obj)] = number
        records = [self._record(member, numbers) for member in self.members]
        records.reverse()
        return records

    def _record(self, member: Member, numbers: dict[int, int]) -> tuple[int, Record]:
        children = []
        for child in member.children:
            number = numbers.get(id(child)) or self._kind.number_of(child)
            assert number is not None, "what is as it was stored has an id"
            children.append(number)
        number = numbers[id(member.obj)]
        return number, self._kind.sign(number, member.encoded.with_children(children))
