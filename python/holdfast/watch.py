"""Watching: every change of a namespace, in order, whatever happens to the nodes (W).

The model: a watch has one stream open, to whichever node takes it, and a cursor behind the last
change that it handed out. When the stream breaks or falls silent it opens the next one, at another
node if it can, from its cursor on.

Invariants:
- The cursor moves only over what was handed out, or what a node says holds nothing of interest; so
  nothing is missing and nothing comes twice.
- A node that does not remember far enough back ends the watch only if no other node that answers
  does remember.
"""

from __future__ import annotations

import os
import random
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from holdfast._engine import answer, calls, rpc, task
from holdfast._engine.answer import Answer, Fate
from holdfast._engine.endpoint import ConnectError
from holdfast._engine.pool import ForeignClusterError
from holdfast._engine.stream import Stream
from holdfast._engine.task import wait
from holdfast._wire import watch_pb2
from holdfast.errors import Attempt, Header, HoldfastError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._engine.context import Context
    from holdfast._engine.deadline import Deadline
    from holdfast._engine.endpoint import Endpoint

_PROGRESS_MS = 1000
"""How often an idle stream says how far it has come."""
_SILENCE_SECONDS = 4.0
"""Silence after which a stream counts as broken."""
_PAUSE_FIRST = 0.02
"""Pause after all endpoints have failed, in seconds; doubles from round to round."""
_PAUSE_MAX = 0.4
"""Longest pause between rounds, in seconds."""
_ABOUT_NODE = frozenset({"COMPACTED", "TOO_MANY_WATCHES", "UNIMPLEMENTED"})
"""Refusals of one node, which another one may not share."""


@dataclass(frozen=True)
class StateFilter:
    """Values of an object whose names begin with a text.

    With an empty text also the creation of objects.
    """

    object_id: int | None = None
    """None: all objects."""
    name_prefix: str = ""
    """Empty: all names."""


@dataclass(frozen=True)
class MasterFilter:
    """A master, or all of them."""

    master_id: int | None = None


@dataclass(frozen=True)
class ChangeSourceFilter:
    """A change source, or all of them."""

    changesource_id: int | None = None


@dataclass(frozen=True)
class StoredObjectFilter:
    """A stored object, or all of them."""

    object_id: int | None = None


@dataclass(frozen=True)
class VariableFilter:
    """STM variables whose keys, as they are encoded, begin with these bytes; empty: all."""

    key_prefix: bytes = b""


WatchFilter = Union[
    StateFilter, MasterFilter, ChangeSourceFilter, StoredObjectFilter, VariableFilter
]


@dataclass(frozen=True)
class ObjectCreated:
    """There is a new object."""

    object_id: int
    name: str
    class_name: str


@dataclass(frozen=True)
class StatePut:
    """A value was written."""

    object_id: int
    name: str
    value: bytes
    """Byte for byte as it was written."""


@dataclass(frozen=True)
class StateDeleted:
    """A value was deleted."""

    object_id: int
    name: str


@dataclass(frozen=True)
class CreatorChanged:
    """Another caller has the right to create a value, from this revision on."""

    object_id: int
    name: str
    token: int | None
    """The caller's; None if nobody has the right any more."""


@dataclass(frozen=True)
class MasterChanged:
    """What a master is, from this revision on."""

    id: int
    name: str
    active: bool
    lease_id: int | None
    """Its lease, if it has one."""
    claims: int
    """How many change sources it owns."""


@dataclass(frozen=True)
class ChangeSourceChanged:
    """What a change source is, from this revision on."""

    id: int
    name: str
    master_id: int | None
    """Its owner; None if nobody owns it."""
    token: int | None
    """The token of the grant; None if nobody owns it."""
    group: str | None


@dataclass(frozen=True)
class StoredObjectChanged:
    """What a stored object is, from this revision on."""

    id: int
    class_name: str
    """Empty if it was removed."""
    mod_revision: int | None
    """The revision that made it visible, which may be one shortly before; None if it was
    removed."""


@dataclass(frozen=True)
class VariableChanged:
    """What an STM variable is, from this revision on."""

    key: bytes
    """As it is encoded."""
    version: int | None
    """How often it has been written since it was created; None: it was deleted."""


Event = Union[
    ObjectCreated,
    StatePut,
    StateDeleted,
    CreatorChanged,
    MasterChanged,
    ChangeSourceChanged,
    StoredObjectChanged,
    VariableChanged,
]


@dataclass(frozen=True)
class Change:
    """A change, and the revision that made it."""

    revision: int
    """Rises from change to change; several changes of one step share it."""
    event: Event


class Watch:
    """A watch, as coroutines. :meth:`close` ends it."""

    def __init__(
        self, context: Context, filters: Sequence[WatchFilter], from_revision: int | None
    ) -> None:
        self._context = context
        self._filters = [_filter(one) for one in filters]
        # Everything up to here was handed out or holds nothing of interest. None until the first
        # stream has said where it begins.
        self._cursor = None if from_revision is None else max(0, from_revision - 1)
        # Received and not yet handed out, all behind the cursor; and where the cursor goes when the
        # last of them is.
        self._received: deque[Change] = deque()
        self._through = self._cursor or 0
        self._stream: Stream[watch_pb2.WatchResponse] | None = None
        self._last: str | None = None  # where the last stream was, to try others first
        self._is_closed = False
        self._pid = os.getpid()

    @classmethod
    async def open(
        cls, context: Context, filters: Sequence[WatchFilter], from_revision: int | None
    ) -> Watch:
        """Opens a watch.

        When this returns every change that is acknowledged from here on will be handed out. Raises
        as :meth:`next`.
        """
        watch = cls(context, filters, from_revision)
        await watch._connect()
        return watch

    @property
    def revision(self) -> int:
        """Everything up to this revision was handed out.

        A watch that begins behind it goes on where this one is.
        """
        return self._cursor or 0

    async def next(self) -> Change:
        """The next change; waits for as long as there is none. One at a time.

        Raises:
            Unavailable: no node could be reached for as long as a call may take; calling again goes
                on from where it was.
            Compacted: no node remembers far enough back: read the state, and watch from there.
        """
        while True:
            if self._received:
                return self._hand_out()
            if self._pid != os.getpid():
                # The stream is the parent's; this process goes on with one of its own.
                self._pid, self._stream = os.getpid(), None
            if self._stream is None:
                await self._connect()
                continue
            try:
                response = await wait(self._stream.receive(silence=_SILENCE_SECONDS))
            except HoldfastError:
                # The node stops, or cut off a slow reader; or it has become silent.
                response = None
            if response is None:
                self._break_off()
            else:
                self._take_in(response)

    def close(self) -> None:
        """Ends it. Whoever waits for a change gets ``CancelledError``."""
        self._is_closed = True
        self._break_off()

    def _hand_out(self) -> Change:
        change = self._received.popleft()
        if not self._received:
            self._cursor = self._through
        elif self._received[0].revision > change.revision:
            self._cursor = change.revision
        return change

    def _take_in(self, response: watch_pb2.WatchResponse) -> None:
        self._through = max(self._through, response.header.revision)
        for event in response.events:
            change = _change(event)
            if change is not None:
                self._received.append(change)
        if not self._received:
            self._cursor = self._through

    def _break_off(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._last = stream.endpoint
            stream.cancel()

    async def _connect(self) -> None:
        """Opens a stream at any node, from the cursor on."""
        pool = self._context.engine.runtime.pool
        deadline = self._context.deadline()
        faults = pool.faults()
        if faults is not None:
            raise _unavailable({one: Attempt(one, None, faults[one]) for one in faults})
        attempts: dict[str, Attempt] = {}
        pause = _PAUSE_FIRST
        while True:
            refused: Answer | None = None
            others_may_answer = False
            for endpoint in self._in_order():
                said = await self._try(endpoint, deadline)
                if said is None:
                    return
                attempts[endpoint.address] = Attempt(endpoint.address, said.reason, said.message)
                if said.fate == Fate.REFUSED:
                    if said.reason not in _ABOUT_NODE:
                        raise said.error()
                    refused = said
                others_may_answer |= said.fate == Fate.ELSEWHERE
                if deadline.has_passed():
                    raise _unavailable(attempts)
            # A node that refuses for its lack of memory, when all others have been asked.
            if refused is not None and not others_may_answer:
                raise refused.error()
            pausing = pause * random.uniform(0.5, 1.0)
            if deadline.remaining() <= pausing:
                raise _unavailable(attempts)
            await task.sleep(pausing)
            pause = min(pause * 2, _PAUSE_MAX)

    def _in_order(self) -> list[Endpoint]:
        """All endpoints, in no order, so that watches spread over the nodes.

        Those that failed lately are behind the others, the one that has just failed last of all.
        """
        endpoints = self._context.engine.runtime.pool.in_order()
        random.shuffle(endpoints)
        return sorted(endpoints, key=lambda one: (one.address == self._last, one.is_avoided))

    async def _try(self, endpoint: Endpoint, deadline: Deadline) -> Answer | None:
        """Opens a stream at one node; None if that worked."""
        opening = task.start(self._open_at(endpoint))
        try:
            self._stream = await task.within(min(deadline.remaining(), _SILENCE_SECONDS), opening)
        except TimeoutError:
            if not deadline.has_passed():
                endpoint.mark_bad()
            return Answer(Fate.UNKNOWN, answer.SILENCE)
        except ConnectError as error:
            endpoint.mark_bad()
            return Answer(Fate.NOT_SENT, str(error))
        except ForeignClusterError as error:
            endpoint.mark_bad()
            return Answer(Fate.UNKNOWN, str(error), answer.FOREIGN)
        except rpc.Status as status:
            said = answer.read(status)
            if said.fate in (Fate.UNKNOWN, Fate.NOT_SENT):
                endpoint.mark_bad()
            return said
        if self._is_closed:
            self._break_off()
            raise CancelledError
        endpoint.mark_good()
        return None

    async def _open_at(self, endpoint: Endpoint) -> Stream[watch_pb2.WatchResponse]:
        """Opens a stream at one node, and waits until it says where it begins."""
        link = endpoint.link or await endpoint.connect()
        request = watch_pb2.WatchRequest(
            namespace=self._context.namespace,
            from_revision=0 if self._cursor is None else self._cursor + 1,
            filters=self._filters,
            progress_ms=_PROGRESS_MS,
        )
        runtime = self._context.engine.runtime
        stream = Stream(calls.WATCH, link, request.SerializeToString(), runtime)
        await stream.begin()
        header = Header.of(stream.first.header)
        runtime.pool.observe(endpoint, header, has_answered=False)
        # What a watch from now on begins with. Afterwards it is the node that says again what we
        # have asked for.
        if self._cursor is None:
            self._cursor = header.revision
        self._through = max(self._through, self._cursor)
        return stream


def _unavailable(attempts: dict[str, Attempt]) -> Unavailable:
    met = [attempts[address] for address in sorted(attempts)]
    return Unavailable("Watch.Watch got no answer in time", met)


def _filter(one: WatchFilter) -> watch_pb2.WatchFilter:
    if isinstance(one, StateFilter):
        state = watch_pb2.StateFilter(object_id=one.object_id or 0, name_prefix=one.name_prefix)
        return watch_pb2.WatchFilter(state=state)
    if isinstance(one, MasterFilter):
        return watch_pb2.WatchFilter(masters=watch_pb2.MasterFilter(master_id=one.master_id or 0))
    if isinstance(one, ChangeSourceFilter):
        sources = watch_pb2.ChangeSourceFilter(changesource_id=one.changesource_id or 0)
        return watch_pb2.WatchFilter(changesources=sources)
    if isinstance(one, StoredObjectFilter):
        stored = watch_pb2.StoredObjectFilter(object_id=one.object_id or 0)
        return watch_pb2.WatchFilter(stored_objects=stored)
    variables = watch_pb2.VariableFilter(key_prefix=one.key_prefix)
    return watch_pb2.WatchFilter(variables=variables)


def _change(event: watch_pb2.WatchEvent) -> Change | None:
    """None for an event of a kind that this release does not know."""
    kind = event.WhichOneof("event")
    read = _EVENTS.get(kind) if kind is not None else None
    return None if read is None else Change(event.revision, read(event))


def _master_changed(event: watch_pb2.WatchEvent) -> Event:
    master = event.master_changed
    return MasterChanged(
        master.master_id, master.name, master.active, master.lease_id or None, master.claims
    )


def _changesource_changed(event: watch_pb2.WatchEvent) -> Event:
    source = event.changesource_changed
    return ChangeSourceChanged(
        source.changesource_id,
        source.name,
        source.master_id or None,
        source.token or None,
        source.group or None,
    )


def _stored_object_changed(event: watch_pb2.WatchEvent) -> Event:
    stored = event.stored_object_changed
    return StoredObjectChanged(stored.object_id, stored.class_name, stored.mod_revision or None)


def _creator_changed(event: watch_pb2.WatchEvent) -> Event:
    creator = event.creator_changed
    return CreatorChanged(creator.object_id, creator.name, creator.token or None)


def _object_created(event: watch_pb2.WatchEvent) -> Event:
    created = event.object_created
    return ObjectCreated(created.object_id, created.name, created.class_name)


def _state_put(event: watch_pb2.WatchEvent) -> Event:
    return StatePut(event.state_put.object_id, event.state_put.name, event.state_put.value)


def _state_deleted(event: watch_pb2.WatchEvent) -> Event:
    return StateDeleted(event.state_deleted.object_id, event.state_deleted.name)


def _variable_changed(event: watch_pb2.WatchEvent) -> Event:
    return VariableChanged(event.variable_changed.key, event.variable_changed.version or None)


_EVENTS = {
    "object_created": _object_created,
    "state_put": _state_put,
    "state_deleted": _state_deleted,
    "creator_changed": _creator_changed,
    "master_changed": _master_changed,
    "changesource_changed": _changesource_changed,
    "stored_object_changed": _stored_object_changed,
    "variable_changed": _variable_changed,
}
