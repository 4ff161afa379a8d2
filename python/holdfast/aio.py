"""The client for asyncio. Nothing connects before the first call.

Every call may be awaited on any event loop, and cancelled: a write that is cancelled is given up,
and its outcome is unknown. A client is not tied to a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union

from holdfast import changesources, cluster, lease, masters, state, transfer, watch
from holdfast._engine import task
from holdfast._engine.task import wait
from holdfast._flavour import (
    CLOSE_SECONDS,
    ClientFacade,
    Facade,
    LeaseFacade,
    WatchFacade,
    documented,
)
from holdfast.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Coroutine

    from typing_extensions import Concatenate, ParamSpec

    from holdfast.changesources import Fence
    from holdfast.exclusive import Creator
    from holdfast.instance import Instance
    from holdfast.lease import Loss
    from holdfast.state import Created, Written
    from holdfast.watch import Change, WatchFilter

    P = ParamSpec("P")

T = TypeVar("T")

Made = Union[bytes, "Awaitable[bytes]"]
"""What a function of the program makes: a value, or something to await that gives one."""


def awaitable(
    operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[Any], P], Coroutine[Any, Any, T]]:
    """An operation as a coroutine of asyncio."""

    async def method(facade: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(task.start(operation(facade._core, *args, **kwargs)))

    documented(method, operation)
    return method


def _on_this_loop(function: Callable[..., Made]) -> Callable[..., Coroutine[Any, Any, bytes]]:
    """A function of the program, to be called from the engine: it runs on this event loop."""
    loop = asyncio.get_running_loop()

    async def run(arguments: tuple[Any, ...]) -> bytes:
        made = function(*arguments)
        return await made if inspect.isawaitable(made) else made

    async def call(*arguments: object) -> bytes:
        running: Future[bytes] = asyncio.run_coroutine_threadsafe(run(arguments), loop)
        return await wait(running)

    return call


class State(Facade[state.State]):
    """Object state (S); see ``holdfast.state.State``."""

    get_object_id = awaitable(state.State.get_object_id)
    find_object_id = awaitable(state.State.find_object_id)
    get = awaitable(state.State.get)
    get_many = awaitable(state.State.get_many)
    set = awaitable(state.State.set)
    create = awaitable(state.State.create)
    delete = awaitable(state.State.delete)
    list_objects = awaitable(state.State.list_objects)
    list_objects_page = awaitable(state.State.list_objects_page)
    list_state = awaitable(state.State.list_state)
    list_state_page = awaitable(state.State.list_state_page)
    import_rows = awaitable(state.State.import_rows)

    async def atomic_create(self, object_id: int, name: str, create: Callable[[], Made]) -> Created:
        """See ``holdfast.state.State.atomic_create``; ``create`` may be a coroutine function."""
        creating = self._core.atomic_create(object_id, name, _on_this_loop(create))
        return await asyncio.wrap_future(task.start(creating))

    async def create_exclusive(
        self,
        object_id: int,
        name: str,
        create: Callable[[Creator], Made],
        *,
        ttl: float = 2.0,
        wait: float = 60.0,
    ) -> Created:
        """See ``holdfast.state.State.create_exclusive``; ``create`` may be a coroutine function."""
        creating = self._core.create_exclusive(
            object_id, name, _on_this_loop(create), ttl=ttl, wait=wait
        )
        return await asyncio.wrap_future(task.start(creating))

    async def update(
        self, object_id: int, name: str, change: Callable[[bytes | None], Made]
    ) -> Written:
        """See ``holdfast.state.State.update``; ``change`` may be a coroutine function."""
        updating = self._core.update(object_id, name, _on_this_loop(change))
        return await asyncio.wrap_future(task.start(updating))

    async def export(self) -> AsyncIterator[list[transfer.Row]]:
        """All rows of the namespace with their ids, at one revision, some at a time (S7).

        Raises:
            Unavailable: no node answered, or the stream broke: the rows are to be read anew.
        """
        export = await asyncio.wrap_future(task.start(self._core.export()))
        try:
            while True:
                rows = await asyncio.wrap_future(task.start(export.next()))
                if rows is None:
                    return
                yield rows
        finally:
            export.close()


class ChangeSources(Facade[changesources.ChangeSources]):
    """Change sources and who owns them (C); see ``holdfast.changesources.ChangeSources``."""

    find_id = awaitable(changesources.ChangeSources.find_id)
    set_master = awaitable(changesources.ChangeSources.set_master)
    get = awaitable(changesources.ChangeSources.get)
    list_changesources = awaitable(changesources.ChangeSources.list_changesources)
    claim = awaitable(changesources.ChangeSources.claim)
    release = awaitable(changesources.ChangeSources.release)
    await_claim = awaitable(changesources.ChangeSources.await_claim)
    stop_awaiting = awaitable(changesources.ChangeSources.stop_awaiting)
    set_group = awaitable(changesources.ChangeSources.set_group)


class Masters(Facade[masters.Masters]):
    """Masters and their leases (M); see ``holdfast.masters.Masters``."""

    find_id = awaitable(masters.Masters.find_id)
    set_state = awaitable(masters.Masters.set_state)
    get = awaitable(masters.Masters.get)
    list_masters = awaitable(masters.Masters.list_masters)
    open_lease = awaitable(masters.Masters.open_lease)
    keep_alive = awaitable(masters.Masters.keep_alive)
    close_lease = awaitable(masters.Masters.close_lease)


class Cluster(Facade[cluster.Cluster]):
    """The cluster itself; see ``holdfast.cluster.Cluster``."""

    status = awaitable(cluster.Cluster.status)
    members = awaitable(cluster.Cluster.members)


class LeaseHolder(LeaseFacade):
    """A live lease that renews itself; see ``holdfast.lease.LeaseHolder``.

    Its renewals do not run on the event loop, so one that is held up does not lose the lease. As a
    context manager it is closed in the end, unless it is lost by then.
    """

    claim = awaitable(lease.LeaseHolder.claim)
    await_claim = awaitable(lease.LeaseHolder.await_claim)
    release = awaitable(lease.LeaseHolder.release)
    set_fenced = awaitable(lease.LeaseHolder.set_fenced)
    close = awaitable(lease.LeaseHolder.close)

    async def lost(self) -> Loss:
        """Waits until the lease is lost, and says how."""
        loss = await asyncio.wrap_future(task.start(self._core.lost()))
        assert loss is not None  # without a time-out
        return loss

    @contextlib.asynccontextmanager
    async def owning(self, changesource_id: int) -> AsyncIterator[Fence]:
        """Waits for our turn to own a change source, and gives it back in the end.

        Raises:
            LeaseLost: the lease was lost, before or meanwhile.
        """
        fence = await self.await_claim(changesource_id)
        try:
            yield fence
        finally:
            if self.is_live:
                await self.release(fence)

    async def __aenter__(self) -> LeaseHolder:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.is_live:
            await self.close()


class Watch(WatchFacade):
    """Changes as they are made, in order; see ``holdfast.watch.Watch``."""

    next = awaitable(watch.Watch.next)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Change:
        return await self.next()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Client(ClientFacade):
    """A client of one cluster, for asyncio; see ``holdfast.Client`` for the arguments."""

    @property
    def state(self) -> State:
        """Object state."""
        return State(state.State(self.context))

    @property
    def masters(self) -> Masters:
        """Masters and the calls on their leases."""
        return Masters(masters.Masters(self.context))

    @property
    def cluster(self) -> Cluster:
        """The cluster itself: status and members."""
        return Cluster(cluster.Cluster(self.context))

    @property
    def changesources(self) -> ChangeSources:
        """Change sources and who owns them."""
        return ChangeSources(changesources.ChangeSources(self.context))

    async def hold_lease(
        self, name: str, instance: Instance, ttl: float, *, grace: float = 0.0
    ) -> LeaseHolder:
        """Opens a lease for a master and keeps it alive; see ``holdfast.lease.LeaseHolder.open``.

        Raises:
            LeaseHeld: another instance holds a live lease of that name.
            BadRequest: a number is out of its range.
            NotApplied: there was no lease in time.
            OutcomeUnknown: there may be one, which then runs out.
        """
        opening = lease.LeaseHolder.open(self.context, name, instance, ttl, grace)
        return LeaseHolder(await asyncio.wrap_future(task.start(opening)))

    async def watch(self, *filters: WatchFilter, from_revision: int | None = None) -> Watch:
        """Watches what changes: what passes one of the filters, or all of the namespace.

        When this returns, every change that is acknowledged from here on will be handed out.

        Args:
            filters: see ``holdfast.watch``.
            from_revision: the first revision of interest; None: from now on.

        Raises:
            Unavailable: no node took the watch in time.
            Compacted: no node remembers that far back.
        """
        opening = watch.Watch.open(self.context, filters, from_revision)
        return Watch(await asyncio.wrap_future(task.start(opening)))

    async def close(self) -> None:
        """Ends the session, so that the cluster need not keep it until it lapses; then connections.

        Raises:
            Unavailable: no node answered; the session then lapses by itself.
        """
        await asyncio.wrap_future(self.engine.close())

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Where no node answers the session lapses by itself.
        with contextlib.suppress(Unavailable):
            deadline = min(self.engine.deadline, CLOSE_SECONDS)
            await asyncio.wrap_future(self.engine.close(deadline=deadline))
