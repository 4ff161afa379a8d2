"""Object state: key/value pairs of named objects (S).

Objects are named by ``(name, class_name)``; values are bytes to the cluster, and JSON texts by
agreement among Buildbot's masters. Each key has the revision that wrote it last.

:class:`State` is written once, as coroutines; ``holdfast.client``, ``holdfast.aio`` and
``holdfast.twisted`` offer each of its operations in their own way. What is said here of what they
return and raise holds there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from holdfast import exclusive, transfer
from holdfast._engine import calls, task
from holdfast._wire import common_pb2, state_pb2
from holdfast.errors import BadRequest, NotApplied, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from typing import Callable

    from holdfast._engine.context import Context
    from holdfast.changesources import Fence
    from holdfast.exclusive import Creator
    from holdfast.transfer import Export, Row

VALUE_BYTES_MAX = 1 << 20
"""Longest value, in bytes."""
_UPDATE_PAUSE_FIRST = 0.0005
"""Pause after a lost comparison in an update, in seconds; doubled up to 64 times this."""

T = TypeVar("T")


@dataclass(frozen=True)
class Value:
    """A value and the revision that wrote it."""

    value: bytes
    """The bytes as they were written."""
    mod_revision: int
    """The revision that wrote them; what ``if_revision`` compares with."""
    revision: int
    """The revision at which this is the key's value."""


@dataclass(frozen=True)
class Written:
    """What became of a write that overwrites."""

    written: bool
    """Whether the value given is the one that stands. False: a racing write of another session was
    applied first, or the comparison failed; nothing changed."""
    value: bytes | None
    """The value that stands, if ``written`` is false; None if the key is absent."""
    mod_revision: int
    """The revision of the value that stands; 0 if the key is absent."""
    revision: int
    """The revision at which this was decided."""


@dataclass(frozen=True)
class Created:
    """What became of a write that creates."""

    created: bool
    """Whether this call created the value; true for exactly one caller."""
    value: bytes
    """The value that stands, whoever wrote it."""
    mod_revision: int
    """The revision that wrote it."""
    revision: int
    """The revision at which this was decided."""


@dataclass(frozen=True)
class StateItem:
    """One key of an object, with its value."""

    name: str
    value: bytes
    mod_revision: int
    """The revision that wrote it."""


@dataclass(frozen=True)
class Object:
    """An object."""

    id: int
    """Positive and never reused."""
    name: str
    """Unique within its class."""
    class_name: str


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a listing."""

    items: list[T]
    """At most 1,000, in order."""
    more: bool
    """Whether there are more behind the last item."""
    revision: int
    """The revision at which this page is true."""


class State:
    """Object state, in one namespace.

    Unless said otherwise reads are linearizable and raise ``Unavailable`` if no node answered in
    time; writes are carried out at most once, and raise ``NotApplied`` or ``OutcomeUnknown``.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def get_object_id(self, name: str, class_name: str) -> int:
        """The id of an object; creates the object if there is none (S1).

        Raises:
            BadRequest: a name is not 1 to 1,024 bytes long.
        """
        request = self._object_request(name, class_name, only_existing=False)
        return (await self._context.write(calls.GET_OBJECT_ID, request)).object_id

    async def find_object_id(self, name: str, class_name: str) -> int | None:
        """The id of an object, None if there is no such object; creates nothing."""
        request = self._object_request(name, class_name, only_existing=True)
        try:
            return (await self._context.read(calls.GET_OBJECT_ID, request)).object_id
        except NotFound:
            return None

    async def get(self, object_id: int, name: str, *, local: bool = False) -> Value | None:
        """The value of a key, None if the key or the object is absent (S2).

        Args:
            object_id: of the object.
            name: of the key.
            local: whatever the node that answers has applied, which may be out of date; true at
                the revision that comes with it, and needs no quorum (G2).
        """
        request = state_pb2.GetStateRequest(
            read=common_pb2.ReadOptions(local=local),
            namespace=self._context.namespace,
            object_id=object_id,
            name=name,
        )
        got = await self._context.read(calls.GET_STATE, request)
        return Value(got.value, got.mod_revision, got.header.revision) if got.found else None

    async def get_many(self, object_id: int, names: Sequence[str]) -> list[StateItem]:
        """Several values of one object at one revision: those that exist, in the order asked for.

        Raises:
            BadRequest: there are more than 256 names.
        """
        request = state_pb2.GetStateManyRequest(
            namespace=self._context.namespace, object_id=object_id, names=names
        )
        got = await self._context.read(calls.GET_STATE_MANY, request)
        return [StateItem(item.name, item.value, item.mod_revision) for item in got.items]

    async def set(
        self,
        object_id: int,
        name: str,
        value: bytes,
        *,
        if_revision: int | None = None,
        fence: Fence | None = None,
    ) -> Written:
        """Overwrites a value, unless a racing write of another session was applied first (S3).

        A write that begins after another was acknowledged never loses to it.

        Args:
            object_id: of the object.
            name: of the key.
            value: at most 1 MiB.
            if_revision: write only if the key's ``mod_revision`` is this one; 0: only if it is
                absent.
            fence: write only while this claim stands (S8).

        Raises:
            NotFound: there is no such object.
            BadRequest: the value is too long, or the name is.
            StaleFence: the claim has moved on.
        """
        _check_size(value)
        request = state_pb2.SetStateRequest(
            namespace=self._context.namespace,
            object_id=object_id,
            name=name,
            value=value,
            if_revision=if_revision,
            fence=None if fence is None else fence.to_wire(),
        )
        done = await self._context.write(calls.SET_STATE, request)
        has_other = not done.written and done.found
        other = done.value if has_other else None
        return Written(done.written, other, done.mod_revision, done.header.revision)

    async def create(
        self, object_id: int, name: str, value: bytes, *, fence: Fence | None = None
    ) -> Created:
        """Writes a value only if the key has none, and returns the one that stands.

        Raises:
            NotFound: there is no such object.
            BadRequest: the value is too long, or the name is.
            StaleFence: the claim of the fence has moved on.
        """
        return await self.create_under(object_id, name, value, fence=fence, token=None)

    async def create_under(
        self, object_id: int, name: str, value: bytes, *, fence: Fence | None, token: int | None
    ) -> Created:
        """As :meth:`create`; with a token only while it has the right to create.

        Raises:
            CreationLost: it has not, and there is no value.
        """
        _check_size(value)
        request = state_pb2.CreateStateRequest(
            namespace=self._context.namespace,
            object_id=object_id,
            name=name,
            value=value,
            fence=None if fence is None else fence.to_wire(),
            token=token,
        )
        done = await self._context.write(calls.CREATE_STATE, request)
        stands = value if done.created else done.value
        return Created(done.created, stands, done.mod_revision, done.header.revision)

    async def atomic_create(
        self, object_id: int, name: str, create: Callable[[], Awaitable[bytes]]
    ) -> Created:
        """The value of a key, or if there is none the one that ``create`` makes (S4).

        ``create`` does not run if there is a value; several callers may run theirs, and all get
        the one that won. Raises as :meth:`create`, and what ``create`` raises.
        """
        found = await self.get(object_id, name)
        if found is not None:
            return Created(False, found.value, found.mod_revision, found.revision)
        return await self.create(object_id, name, await create())

    async def create_exclusive(
        self,
        object_id: int,
        name: str,
        create: Callable[[Creator], Awaitable[bytes]],
        *,
        ttl: float = 2.0,
        wait: float = 60.0,
    ) -> Created:
        """As :meth:`atomic_create`, but ``create`` runs in one place of the cluster at a time (S5).

        Callers get the right to in the order in which they came, and keep it for as long as it is
        renewed, which happens by itself. The next one has it if ``create`` raises, or if its caller
        dies or is cut off; so what was not completed runs again, and ``create`` is told by
        ``Creator.is_live`` that it goes on in vain. Plain writes of others do not wait for any of
        this, and win.

        Args:
            object_id: of the object.
            name: of the key.
            create: makes the value; is given the right that it has.
            ttl: how long the right lasts without a renewal, in seconds: 0.5 to 60.
            wait: how long to wait for the value or the right, in seconds, at most an hour. What
                ``create`` takes comes on top.

        Raises:
            NotApplied: others were still creating the value after ``wait``, or no node was reached.
            CreationLost: the right was lost before the value was written, and nobody wrote one.
            LimitReached: 1,000 are in line.
        """
        key = exclusive.Key(self._context, object_id, name)
        tenure = await exclusive.wait_for_right(key, ttl, wait)
        if isinstance(tenure, exclusive.Found):
            return Created(False, tenure.value, tenure.mod_revision, tenure.revision)
        try:
            made = await create(tenure.creator)
            created = await self.create_under(
                object_id, name, made, fence=None, token=tenure.creator.token
            )
        except BaseException:
            await tenure.give_up()
            raise
        tenure.end()
        return created

    async def update(
        self, object_id: int, name: str, change: Callable[[bytes | None], Awaitable[bytes]]
    ) -> Written:
        """Replaces a value by what ``change`` makes of it (of None, if the key is absent).

        As often as it takes until no other write came between. If this returns, exactly one run of
        ``change``, the last, has been applied. It may run many times and should have no effects of
        its own. Returning the value unchanged writes nothing. Raises as :meth:`set`.

        Raises:
            NotApplied: others kept coming between until the deadline.
        """
        deadline = self._context.deadline()
        found = await self.get(object_id, name)
        value, mod_revision = (None, 0) if found is None else (found.value, found.mod_revision)
        nth = 0
        while True:
            new = await change(value)
            if deadline.has_passed():
                raise NotApplied(f"other writes to {name!r} kept coming between")
            state = State(self._context.at_most(deadline.remaining()))
            written = await state.set(object_id, name, new, if_revision=mod_revision)
            if written.written:
                return written
            value, mod_revision = written.value, written.mod_revision
            await task.sleep(random.uniform(0.0, _UPDATE_PAUSE_FIRST * 2 ** min(nth, 6)))
            nth += 1

    async def delete(self, object_id: int, name: str, *, fence: Fence | None = None) -> bool:
        """Removes a value; returns whether there was one.

        Raises:
            StaleFence: the claim of the fence has moved on.
        """
        request = state_pb2.DeleteStateRequest(
            namespace=self._context.namespace,
            object_id=object_id,
            name=name,
            fence=None if fence is None else fence.to_wire(),
        )
        return (await self._context.write(calls.DELETE_STATE, request)).deleted

    async def list_objects(self) -> list[Object]:
        """All objects of the namespace, in order of their ids.

        Each page of 1,000 is linearizable; what changes while they are read may or may not be in
        later ones.
        """
        objects: list[Object] = []
        while True:
            page = await self.list_objects_page(objects[-1].id if objects else 0)
            objects += page.items
            if not page.more or not page.items:
                return objects

    async def list_objects_page(self, after: int = 0, limit: int = 0) -> Page[Object]:
        """The objects with an id above ``after``, at most ``limit``; 0 means 1,000, the most."""
        request = state_pb2.ListObjectsRequest(
            namespace=self._context.namespace, after_object_id=after, limit=limit
        )
        got = await self._context.read(calls.LIST_OBJECTS, request)
        items = [Object(item.object_id, item.name, item.class_name) for item in got.objects]
        return Page(items, got.more, got.header.revision)

    async def list_state(self, object_id: int) -> list[StateItem]:
        """All key/value pairs of an object, in order of their names; pages as in `list_objects`.

        Raises:
            NotFound: there is no such object.
        """
        items: list[StateItem] = []
        while True:
            page = await self.list_state_page(object_id, items[-1].name if items else "")
            items += page.items
            if not page.more or not page.items:
                return items

    async def list_state_page(
        self, object_id: int, after: str = "", limit: int = 0
    ) -> Page[StateItem]:
        """An object's key/value pairs with a name behind ``after``, at most ``limit`` of them.

        That is 1,000, which is what 0 means; a page also ends after 1 MiB of values.

        Raises:
            NotFound: there is no such object.
        """
        request = state_pb2.ListStateRequest(
            namespace=self._context.namespace, object_id=object_id, after_name=after, limit=limit
        )
        got = await self._context.read(calls.LIST_STATE, request)
        items = [StateItem(item.name, item.value, item.mod_revision) for item in got.items]
        return Page(items, got.more, got.header.revision)

    async def export(self) -> Export:
        """All rows of the namespace with their ids, at one revision (S7)."""
        return await transfer.export(self._context)

    async def import_rows(self, rows: Sequence[Row]) -> int:
        """Takes in rows under the ids that they have, all or none; how many were not there yet.

        A row that is there already, the same in all that it says, is passed over, so that an import
        can be repeated. Ids that the cluster gives out later are above all of them. At most 1,000
        rows, and 2 MiB of names and values, with 40 bytes for each row.

        Raises:
            Refused: as ``IMPORT_CONFLICT`` if a row contradicts one that is there (the fields
                ``nth``, from 0 on, ``row`` and ``found`` say which, and how).
            NotFound: a value comes before its object.
            BadRequest: it is beyond a limit.
        """
        return await transfer.import_rows(self._context, rows)

    def _object_request(
        self, name: str, class_name: str, *, only_existing: bool
    ) -> state_pb2.GetObjectIdRequest:
        return state_pb2.GetObjectIdRequest(
            namespace=self._context.namespace,
            name=name,
            class_name=class_name,
            only_existing=only_existing,
        )


def _check_size(value: bytes) -> None:
    # One that is far too long would not even reach the node's check.
    if len(value) > VALUE_BYTES_MAX:
        message = f"value has {len(value)} bytes, and at most {VALUE_BYTES_MAX} are allowed"
        fields = {"actual": str(len(value)), "allowed": str(VALUE_BYTES_MAX)}
        raise BadRequest("VALUE_TOO_LARGE", message, fields)
