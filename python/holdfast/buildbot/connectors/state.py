"""A stand-in for Buildbot's state connector: values are in the cluster, under names (S, B3, B4).

An object id is a handle: the id of the object's row in the master's own database, as Buildbot's
connector gives it out. What a handle stands for is looked up there once, and the cluster's object
of that name and class has the values. So ids that services remember stay right when the stand-in
comes or goes, and are those that the local tables know.

Local stay:

- keys whose values hold ids of local rows (:data:`LOCAL_KEYS`);
- values under an id that no object has, since there is no name to share them under.

Where this differs from Buildbot 4.3.0:

- A name of more than 255 characters is cut alike in all methods. Buildbot's own connector cuts it
  in ``setState`` only, and then does not find it.
- ``setState`` fires with the value that stands, as is documented; Buildbot's own fires with None.
- Keys, and names and classes of objects, have at least one character, and a value is at most 1 MiB:
  the cluster refuses others with ``holdfast.errors.Refused``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, cast

import sqlalchemy as sa
from buildbot.db.state import ObjDict, StateConnectorComponent
from buildbot.util.lru import AsyncLRUCache
from twisted.internet.defer import Deferred

from holdfast._engine import calls
from holdfast._wire import state_pb2 as wire
from holdfast._wire.common_pb2 import Fence
from holdfast.buildbot.connectors.calls import Calls

if TYPE_CHECKING:
    from holdfast.client import Client

LOCAL_KEYS = frozenset({"upstream_bsids", "lastCodebases"})
"""Keys of schedulers whose values hold ids of the local database: of buildsets, of changes (B4)."""

_OBJECTS_MAX = 10_000
"""How many objects' names are remembered: more than a site with thousands of builders has."""


@dataclass
class NamedObject:
    """What a handle stands for."""

    name: str
    """As it is in the local database: cut, if it was too long."""
    class_name: str
    cluster_id: int | None = None
    """Its id in the cluster; None until it was needed."""


class StateConnector:
    """Stands in for ``master.db.state``.

    Args:
        stock: Buildbot's own connector, which goes on to give out ids.
        client: makes the calls; belongs to the caller.
        deadline: how long a call to the cluster may take, in seconds.

    All methods but those called ``thd…`` are for the reactor's thread. They raise, beside what
    Buildbot's own raise, :class:`holdfast.errors.HoldfastError` if the cluster does not answer in
    time or refuses.
    """

    Thunk = StateConnectorComponent.Thunk
    """Stands for no default: callers compare it by identity."""

    def __init__(
        self, stock: StateConnectorComponent, client: Client, *, deadline: float = 5.0
    ) -> None:
        self.db = stock.db
        self.stock = stock
        self._calls = Calls(client, deadline)
        # Not one of the master's caches: those are found by name, and the first to ask for a name
        # decides what fills it, be that a connector that is long gone.
        self._objects = AsyncLRUCache(self._find_object, _OBJECTS_MAX)

    @property
    def master(self) -> Any:
        """Whose connector this is."""
        return self.db.master

    def is_local(self, found: NamedObject, key: str) -> bool:  # noqa: ARG002
        """Whether a value belongs into the master's own database."""
        return key in LOCAL_KEYS

    def fence(self, found: NamedObject) -> Fence | None:  # noqa: ARG002
        """The claim that a write goes under: the cluster refuses it once that has moved on (S8).

        Called before the write is sent, in the context of whoever asked for it; what it raises
        keeps the write back.
        """
        return None

    def getObjectId(self, name: str, class_name: str) -> Deferred[int]:  # noqa: N802
        """The handle of an object; makes one if there is none. Asks the local database only."""
        return cast("Deferred[int]", self.stock.getObjectId(name, class_name))

    def getState(  # noqa: N802
        self, objectid: int, name: str, default: Any = Thunk
    ) -> Deferred[Any]:
        """The value of a key.

        Fires with ``default``, if given, if there is no value.

        Raises:
            KeyError: there is no value, and no default.
            TypeError: what is there is no JSON.
        """
        return Deferred.fromCoroutine(self._get(objectid, self._cut(name), default))

    def setState(self, objectid: int, name: str, value: Any) -> Deferred[Any]:  # noqa: N802
        """Overwrites the value of a key; fires with the one that stands.

        That is another one only if another master's write came at the same time and first (S3).
        ``value`` is encoded before this returns.

        Raises:
            TypeError: ``value`` cannot be written as JSON; nothing changes.
        """
        return Deferred.fromCoroutine(self._set(objectid, self._cut(name), value))

    def atomicCreateState(  # noqa: N802
        self, objectid: int, name: str, thd_create_callback: Callable[[], Any]
    ) -> Deferred[Any]:
        """The value of a key; if there is none, what ``thd_create_callback`` returns becomes it.

        Of all masters that do so at the same time one value stands, and all get that one (S4). The
        callback runs in a thread of the database. A value of None counts as none, but stays.

        Raises:
            TypeError: what is there is no JSON, or what the callback returned cannot be.
        """
        return Deferred.fromCoroutine(self._create(objectid, self._cut(name), thd_create_callback))

    def thdGetObjectId(self, conn: sa.Connection, name: str, class_name: str) -> ObjDict:  # noqa: N802
        """As :meth:`getObjectId`, with a connection to the local database; needs no reactor."""
        return self.stock.thdGetObjectId(conn, name, class_name)

    def thdGetState(  # noqa: N802
        self, conn: sa.Connection, objectid: int, name: str, default: Any = Thunk
    ) -> Any:
        """As :meth:`getState`. Blocks; needs no reactor."""
        name = self._cut(name)
        found = self._thd_find_object(conn, objectid)
        if found is None or self.is_local(found, name):
            return self.stock.thdGetState(conn, objectid, name, default=default)
        get = self._get_request(self._thd_cluster_id(found), name)
        response = self._calls.start_read(calls.GET_STATE, get).result()
        return self._got(response, objectid, name, default)

    def thdSetState(  # noqa: N802
        self, conn: sa.Connection, objectid: int, name: str, value: Any
    ) -> Any:
        """As :meth:`setState`. Blocks; needs no reactor."""
        text, name = _encoded(value), self._cut(name)
        found = self._thd_find_object(conn, objectid)
        if found is None or self.is_local(found, name):
            self.stock.thdSetState(conn, objectid, name, value)
            return value
        set_ = self._set_request(self._thd_cluster_id(found), name, text, self.fence(found))
        response = self._calls.start_write(calls.SET_STATE, set_).result()
        return value if response.written else _decoded(response.value, objectid, name)

    async def _get(self, objectid: int, key: str, default: Any) -> Any:
        found = await self._objects.get(objectid)
        if found is None or self.is_local(found, key):
            return await self.stock.getState(objectid, key, default)
        get = self._get_request(await self._cluster_id(found), key)
        response = await self._calls.read(calls.GET_STATE, get)
        return self._got(response, objectid, key, default)

    async def _set(self, objectid: int, key: str, value: Any) -> Any:
        text = _encoded(value)
        found = await self._objects.get(objectid)
        if found is None or self.is_local(found, key):
            await self.stock.setState(objectid, key, value)
            return value
        fence = self.fence(found)
        set_ = self._set_request(await self._cluster_id(found), key, text, fence)
        response = await self._calls.write(calls.SET_STATE, set_)
        return value if response.written else _decoded(response.value, objectid, key)

    async def _create(self, objectid: int, key: str, create: Callable[[], Any]) -> Any:
        found = await self._objects.get(objectid)
        if found is None or self.is_local(found, key):
            return await self.stock.atomicCreateState(objectid, key, create)
        present = await self._get(objectid, key, None)
        if present is not None:
            return present
        value = await self.db.pool.do(lambda _conn: create())
        fence = self.fence(found)
        creation = wire.CreateStateRequest(
            namespace=self._calls.namespace,
            object_id=await self._cluster_id(found),
            name=key,
            value=_encoded(value),
            fence=fence,
        )
        created = await self._calls.write(calls.CREATE_STATE, creation)
        return value if created.created else _decoded(created.value, objectid, key)

    def _find_object(self, objectid: int) -> Deferred[NamedObject | None]:
        found: Deferred[NamedObject | None] = self.db.pool.do(self._thd_find_object, objectid)
        return found

    def _thd_find_object(self, conn: sa.Connection, objectid: int) -> NamedObject | None:
        objects = self.db.model.objects.c
        query = sa.select(objects.name, objects.class_name).where(objects.id == objectid)
        row = conn.execute(query).first()
        return None if row is None else NamedObject(row.name, row.class_name)

    async def _cluster_id(self, found: NamedObject) -> int:
        if found.cluster_id is None:
            response = await self._calls.write(calls.GET_OBJECT_ID, self._id_request(found))
            found.cluster_id = response.object_id
        return found.cluster_id

    def _thd_cluster_id(self, found: NamedObject) -> int:
        response = self._calls.start_write(calls.GET_OBJECT_ID, self._id_request(found)).result()
        return response.object_id

    def _id_request(self, found: NamedObject) -> wire.GetObjectIdRequest:
        return wire.GetObjectIdRequest(
            namespace=self._calls.namespace, name=found.name, class_name=found.class_name
        )

    def _get_request(self, object_id: int, key: str) -> wire.GetStateRequest:
        return wire.GetStateRequest(namespace=self._calls.namespace, object_id=object_id, name=key)

    def _set_request(
        self, object_id: int, key: str, text: bytes, fence: Fence | None
    ) -> wire.SetStateRequest:
        return wire.SetStateRequest(
            namespace=self._calls.namespace, object_id=object_id, name=key, value=text, fence=fence
        )

    def _got(self, response: wire.GetStateResponse, objectid: int, key: str, default: Any) -> Any:
        if response.found:
            return _decoded(response.value, objectid, key)
        if default is self.Thunk:
            raise KeyError(f"no such state value '{key}' for object {objectid}")
        return default

    def _cut(self, name: str) -> str:
        """As Buildbot cuts names that are too long for its table: with a hash behind."""
        return cast("str", self.stock.ensureLength(self.db.model.object_state.c.name, name))


def _encoded(value: Any) -> bytes:
    try:
        return json.dumps(value).encode("ascii")
    except (TypeError, ValueError) as error:
        raise TypeError(f"Error encoding JSON for {value!r}") from error


def _decoded(text: bytes, objectid: int, key: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise TypeError(f"JSON error loading state value '{key}' for {objectid}") from error
