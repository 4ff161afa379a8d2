"""The calls that the plug-in makes itself, as Deferreds of Buildbot's reactor.

Nothing here blocks the reactor (B2). Calls that a start, a stop or a poll may wait for have a
deadline of a few seconds; what keeps the lease alive is a thread of the client library.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred

from holdfast._engine import task
from holdfast.buildbot.notes import note
from holdfast.changesources import ChangeSources, Fence
from holdfast.client import Client
from holdfast.instance import Instance, Origin
from holdfast.lease import LeaseHolder, Loss
from holdfast.state import State
from holdfast.twisted import deferred_of
from holdfast.watch import ChangeSourceChanged, ChangeSourceFilter, Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from buildbot.master import BuildMaster

T = TypeVar("T")

DEADLINE_S = 5.0
"""Of a call that something waits for, in seconds: longer than an election."""
BRIEF_S = 1.0
"""Of a call whose answer is not worth a longer wait, in seconds."""
RETRY_S = 0.1
"""Pause after a call that the cluster could not carry out, in seconds: it has waited by itself."""
INSTANCE_FILE = "holdfast-instance"
"""In the master's directory: the secret by which the cluster knows this installation (M3)."""
MASTER_CLASS = "holdfast.buildbot.Master"
"""Class of the objects in the cluster that say who a master is, for people."""
WHO_KEY = "who"


@dataclass(frozen=True)
class ClusterSettings:
    """The arguments of the plug-in; see :class:`holdfast.buildbot.Holdfast`."""

    endpoints: str | Sequence[str] | None = None
    namespace: str = "default"
    master_name: str | None = None
    lease: float = 10.0
    watchdog: float = 60.0


@dataclass(frozen=True)
class SourceChange:
    """Who owns a change source from a revision on."""

    revision: int
    source: str
    master_id: int | None
    """None: nobody."""
    fence: Fence
    """Its token is 0 if nobody owns it."""


class Cluster:
    """The cluster, as one master sees it.

    Args:
        settings: of the plug-in.
        master: whose reactor, name and directory count.

    Methods raise what those of the client's connectors raise.
    """

    def __init__(self, settings: ClusterSettings, master: BuildMaster) -> None:
        self.reactor = master.reactor
        self.master_name: str = settings.master_name or master.name
        self.client = Client(settings.endpoints, namespace=settings.namespace, deadline=DEADLINE_S)
        self._settings = settings
        self._me = f"{socket.gethostname()}:{master.basedir}, pid {os.getpid()}"
        # Of this run: so that what the file system has to say is told at once, and only here.
        self._instance = Instance.from_file(os.path.join(master.basedir, INSTANCE_FILE))
        if self._instance.origin not in (Origin.KEPT, Origin.CREATED):
            # After a restart this master then has to wait for its lease of before to run out.
            note(f"the secret in {INSTANCE_FILE} is new: {self._instance.origin.value}")
        self._context = self.client.context
        self._sources = ChangeSources(self._context)
        self._sources_briefly = ChangeSources(self._context.at_most(BRIEF_S))
        self._state = State(self._context)

    def close(self) -> None:
        """Gives up what is left, without waiting."""
        del self._instance
        self.client.engine.close()

    def open_lease(self) -> Deferred[LeaseHolder]:
        """Opens a lease under the master's name, kept alive by a thread.

        Raises:
            LeaseHeld: another installation has that name, and lives.
        """
        settings = self._settings
        return self._deferred(
            LeaseHolder.open(self._context, self.master_name, self._instance, settings.lease, 0.0)
        )

    def lost(self, lease: LeaseHolder) -> Deferred[Loss | None]:
        """Fires when a lease is lost, with how."""
        return self._deferred(lease.lost(None))

    def close_lease(self, lease: LeaseHolder) -> Deferred[int]:
        """Ends a lease, and all claims under it.

        Raises:
            twisted.internet.defer.TimeoutError: no answer came, and the lease will run out.
        """
        return self._deferred(lease.close()).addTimeout(BRIEF_S, self.reactor)

    def abandon(self, lease: LeaseHolder) -> None:
        """As :meth:`close_lease`, for threads that wait."""
        task.start(lease.close()).result()

    async def introduce(self) -> None:
        """Tells other installations that come under the same name who runs under it."""
        found = await self.find_object_id(self.master_name, MASTER_CLASS)
        await self._deferred(self._state.set(found, WHO_KEY, json.dumps(self._me).encode()))

    async def who_is_it(self) -> str:
        """Who runs under the master's name, as far as that was told."""
        found = await self.find_object_id(self.master_name, MASTER_CLASS)
        told = await self._deferred(self._state.get(found, WHO_KEY))
        return "one that did not say" if told is None else str(json.loads(told.value))

    def find_source_id(self, name: str) -> Deferred[int]:
        """The cluster's id of a change source, made if there is none."""
        return self._deferred(self._sources.find_id(name))

    async def await_claim(self, lease: LeaseHolder, source_id: int) -> Fence | None:
        """Claims a change source; None if somebody owns it, and the lease stands in line."""
        asked = await self._deferred(self._sources.await_claim(lease.lease.id, source_id))
        return asked if isinstance(asked, Fence) else None

    def stop_awaiting(self, lease: LeaseHolder, source_id: int) -> Deferred[bool]:
        """Leaves the line."""
        return self._deferred(self._sources_briefly.stop_awaiting(lease.lease.id, source_id))

    def release(self, fence: Fence) -> Deferred[bool]:
        """Gives a change source back, if it is still held under that very fence."""
        return self._deferred(self._sources_briefly.release(fence))

    async def source_changes(self, began: Callable[[], None]) -> AsyncIterator[SourceChange]:
        """What happens to change sources from now on.

        ``began`` is called when nothing can be missed any more, before the first one.

        Raises:
            HoldfastError: something may have been missed since, or will be.
        """
        opening = Watch.open(self._context, [ChangeSourceFilter()], None)
        watch = await self._deferred(opening)
        try:
            began()
            while True:
                change = await self._deferred(watch.next())
                event = change.event
                if isinstance(event, ChangeSourceChanged):
                    fence = Fence(event.id, event.token or 0)
                    yield SourceChange(change.revision, event.name, event.master_id, fence)
        finally:
            watch.close()

    def find_object_id(self, name: str, class_name: str) -> Deferred[int]:
        """The cluster's id of an object, made if there is none."""
        return self._deferred(self._state.get_object_id(name, class_name))

    def set_value(self, object_id: int, key: str, value: bytes, fence: Fence) -> Deferred[Any]:
        """Writes a value under a fence."""
        return self._deferred(self._state.set(object_id, key, value, fence=fence))

    def delete_value(self, object_id: int, key: str, fence: Fence) -> Deferred[Any]:
        """Removes a value under a fence."""
        return self._deferred(self._state.delete(object_id, key, fence=fence))

    async def list_keys(self, object_id: int) -> list[str]:
        """The keys of an object."""
        return [item.name for item in await self._deferred(self._state.list_state(object_id))]

    def _deferred(self, operation: Coroutine[Any, Any, T]) -> Deferred[T]:
        return deferred_of(task.start(operation))
