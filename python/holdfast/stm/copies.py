"""Copies of variables that a caller works on and commits, as Axon.STM has them.

Invariant: what a copy was read as, or last committed as, is what its next commit compares with,
whatever the caller does to it meanwhile.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
from typing import TYPE_CHECKING, Any

from holdfast.errors import Applied, HoldfastError

from .commit import Plan
from .errors import BusyRetry
from .key import Key, encode
from .value import CodecError, Content, Variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .store import Store


class Writes(enum.Enum):
    """What a commit writes of the copies that are committed together; it compares all of them."""

    ALL = "all"
    """Each of them, so that each version rises; as Axon's store does it."""
    CHANGED = "changed"
    """Those that hold something else than before.

    Two callers that only read a common variable never get into each other's way.
    """


class _Mark(enum.Enum):
    """What a copy holds when it holds no value of its own."""

    UNREAD = "unread"
    """What the variable held: not decoded yet, and maybe never."""
    CLEARED = "cleared"
    """Nothing: a commit deletes the variable."""


class Value:
    """A caller's copy of a variable. Stores make them; not safe for several threads at a time."""

    def __init__(self, store: Store, seen: Variable) -> None:
        self.store = store
        self.key: Key = seen.key
        self.version = seen.version
        """How often the variable has been written; 0: it is not there.

        What a commit compares with; set to something else, it compares with that version, however
        the variable came to it.
        """
        self._seen = seen
        self._value: Any = _Mark.UNREAD
        self._open: Joint | None = None

    def __repr__(self) -> str:
        try:
            held = self.value
        except CodecError:
            held = self._seen.content
        return f"Value{(self.version, held)!r}"

    @property
    def value(self) -> Any:
        """What the copy holds; None if the variable is not there, or is to be deleted.

        Always the same object, which may be worked on.

        Raises:
            CodecError: it is a pickle and the store loads none, or it cannot be read.
        """
        if self._value is _Mark.CLEARED:
            return None
        if self._value is _Mark.UNREAD:
            if self._seen.content is None:
                return None
            self._value = self._seen.value
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value

    def set(self, value: Any) -> None:
        """Has the copy hold a value. Nothing is sent, nor encoded, before it is committed."""
        self._value = value

    def clear(self) -> None:
        """Has the copy hold nothing: a commit deletes the variable."""
        self._value = _Mark.CLEARED

    @property
    def mod_revision(self) -> int:
        """The revision that wrote the variable last; 0: it is not there."""
        return self._seen.mod_revision

    @property
    def content(self) -> Content | None:
        """What the copy holds, encoded; None if there is nothing.

        Raises CodecError if it cannot be encoded.
        """
        if self._value is _Mark.CLEARED:
            return None
        if self._value is _Mark.UNREAD:
            return self._seen.content
        return Content.of(self._value, allow_pickle=self.store.allow_pickle)

    @property
    def is_changed(self) -> bool:
        """Whether the copy holds something else than when it was read or last committed."""
        seen, now = self._seen.content, self.content
        if now == seen or seen is None or now is None or self._value is _Mark.UNREAD:
            return now != seen
        # Another program may have spelt the same value otherwise.
        return now != Content.of(self._seen.value, allow_pickle=self.store.allow_pickle)

    def commit(self) -> None:
        """Writes what the copy holds, if the variable is still what the copy says.

        The copy follows. After ``CommitUncertain`` committing again first settles that commit; what
        the copy was made to hold since is then committed on top. Blocks.

        Raises:
            ConcurrentUpdate: the variable has moved; the copy is out of date for good.
            BusyRetry: definitely not applied, as there was no leader within the store's budget.
            CommitUncertain: it was sent, and not answered before the client's deadline.
            CodecError: the value cannot be encoded; nothing was sent.
            Refused: too large, or of a version that the variable never had; nothing was written.
        """
        self.store.set(self.key, self)

    def clone(self) -> Value:
        """Another copy that holds the same, and is not part of an uncertain commit."""
        clone = Value(self.store, self._seen)
        clone.key, clone.version = self.key, self.version
        clone._value = self._value
        if not isinstance(self._value, _Mark):
            clone._value = copy.deepcopy(self._value)
        return clone


class Collection(dict[Key, Value]):
    """Copies of several variables by key, read at one revision and committed together."""

    store: Store

    def set_store(self, store: Store) -> None:
        """Which store it is committed to."""
        self.store = store

    def commit(self) -> None:
        """Compares all members and writes them, all or none; the copies follow.

        What is written of those that hold what they did is for :class:`Writes` of the store to say.
        Blocks, and raises as :meth:`Value.commit`.
        """
        self.store.set_values(self)


class _Member:
    """A copy as a commit took it: under which key, and what is written."""

    def __init__(self, key: Key, value: Value, writes: Writes) -> None:
        self.encoded = encode(key)
        self.value = value
        self._key = key
        self._version = value.version
        self._is_own = self.encoded == encode(value.key)
        self._content = value.content
        if self._content is None and value._value is not _Mark.CLEARED:
            # As in Axon, a variable that was never set holds None once it is committed.
            self._content = Content.of(None)
        self._is_written = writes is Writes.ALL or not self._is_own or value.is_changed

    def add_to(self, plan: Plan) -> None:
        """Has a plan compare it and write it."""
        seen = self.value._seen
        if self._is_own and self._version == seen.version:
            plan.expect(seen)
        else:
            plan.expect_version(self._key, self._version)
        if not self._is_written:
            return
        if self._content is not None:
            plan.put(self._key, self._content)
        elif self._version > 0:
            plan.delete(self._key)

    def follow(self, revision: int) -> None:
        """Has the copy be what was committed of it at this revision."""
        if not self._is_written:
            return
        value, is_there = self.value, self._content is not None
        value.version = self._version + 1 if is_there else 0
        if self._is_own:
            value._seen = dataclasses.replace(
                value._seen,
                version=value.version,
                mod_revision=revision if is_there else 0,
                content=self._content,
            )

    def is_still_held(self) -> bool:
        """Whether the copy holds what was committed of it."""
        return self.value.content == self._content


class Joint:
    """Copies that are committed together, for as long as that may be applied."""

    def __init__(self, store: Store, copies: Iterable[tuple[Key, Value]], writes: Writes) -> None:
        self._members = [_Member(key, value, writes) for key, value in copies]
        plan = Plan()
        for member in self._members:
            member.add_to(plan)
        self._commit = store.prepare(plan)

    def settle(self, deadline: float) -> None:
        """Sends it, until ``deadline`` by the monotonic clock; the copies follow if it was applied.

        Raises as :meth:`Value.commit`; unless that is definite, the copies remember what is open.
        """
        for member in self._members:
            member.value._open = self
        try:
            revision = self._commit.commit_by(deadline)
        except HoldfastError as error:
            if error.applied is Applied.NO:
                self._end()
            raise
        self._end()
        for member in self._members:
            member.follow(revision)

    def held(self) -> set[_Place]:
        """The copies that hold what was committed of them, so that nothing of them is left."""
        held = (member for member in self._members if member.is_still_held())
        return {(member.encoded, id(member.value)) for member in held}

    def _end(self) -> None:
        for member in self._members:
            member.value._open = None


_Place = tuple[bytes, int]
"""A copy in a commit: under which key, and which one."""


def commit(store: Store, copies: Mapping[Key, Value], writes: Writes, deadline: float) -> None:
    """Compares copies and writes them, all or none; see :meth:`Value.commit`."""
    left = {(encode(key), id(value)) for key, value in copies.items()}
    for joint in {id(value._open): value._open for value in copies.values()}.values():
        if joint is not None:
            try:
                joint.settle(deadline)
            except BusyRetry:
                continue  # not applied: what it was to write is still to be committed
            left -= joint.held()
    if left:
        Joint(store, copies.items(), writes).settle(deadline)
