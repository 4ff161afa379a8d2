"""The synchronous client. Thread-safe and fork-safe; nothing connects before the first call."""

from __future__ import annotations

import contextlib
import queue
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, TypeVar

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
    from collections.abc import Awaitable, Coroutine, Iterator

    from typing_extensions import Concatenate, ParamSpec

    from holdfast.changesources import Fence
    from holdfast.exclusive import Creator
    from holdfast.instance import Instance
    from holdfast.lease import Loss
    from holdfast.state import Created, Written
    from holdfast.watch import Change, WatchFilter

    P = ParamSpec("P")
    _Call = Callable[..., Awaitable[bytes]]

T = TypeVar("T")


def result_of(future: Future[T]) -> T:
    """Waits for a future; gives it up if this thread is interrupted."""
    try:
        return future.result()
    finally:
        future.cancel()


def blocking(
    operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[Any], P], T]:
    """An operation as a method that waits for it."""

    def method(facade: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return result_of(task.start(operation(facade._core, *args, **kwargs)))

    documented(method, operation)
    return method


def _with_callbacks(operation: Callable[[_Call], Coroutine[Any, Any, T]]) -> T:
    """Waits for an operation that calls functions of the program: here, on this thread."""
    asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    async def call(function: Callable[..., bytes], *arguments: object) -> bytes:
        made: Future[bytes] = Future()

        def make() -> None:
            try:
                task.settle(made, function(*arguments))
            except BaseException as error:
                task.fail(made, error)

        asked.put(make)
        return await wait(made)

    running = task.start(operation(call))
    running.add_done_callback(lambda _: asked.put(None))
    try:
        while True:
            make = asked.get()
            if make is None:
                return running.result()
            make()
    finally:
        running.cancel()


class State(Facade[state.State]):
    """Object state (S); see ``holdfast.state.State``."""

    get_object_id = blocking(state.State.get_object_id)
    find_object_id = blocking(state.State.find_object_id)
    get = blocking(state.State.get)
    get_many = blocking(state.State.get_many)
    set = blocking(state.State.set)
    create = blocking(state.State.create)
    delete = blocking(state.State.delete)
    list_objects = blocking(state.State.list_objects)
    list_objects_page = blocking(state.State.list_objects_page)
    list_state = blocking(state.State.list_state)
    list_state_page = blocking(state.State.list_state_page)
    import_rows = blocking(state.State.import_rows)

    def atomic_create(self, object_id: int, name: str, create: Callable[[], bytes]) -> Created:
        """See ``holdfast.state.State.atomic_create``; ``create`` runs on this thread."""
        return _with_callbacks(
            lambda call: self._core.atomic_create(object_id, name, lambda: call(create))
        )

    def create_exclusive(
        self,
        object_id: int,
        name: str,
        create: Callable[[Creator], bytes],
        *,
        ttl: float = 2.0,
        wait: float = 60.0,
    ) -> Created:
        """See ``holdfast.state.State.create_exclusive``; ``create`` runs on this thread."""
        return _with_callbacks(
            lambda call: self._core.create_exclusive(
                object_id, name, lambda creator: call(create, creator), ttl=ttl, wait=wait
            )
        )

    def update(self, object_id: int, name: str, change: Callable[[bytes | None], bytes]) -> Written:
        """See ``holdfast.state.State.update``; ``change`` runs on this thread."""
        return _with_callbacks(
            lambda call: self._core.update(object_id, name, lambda old: call(change, old))
        )

    def export(self) -> Iterator[list[transfer.Row]]:
        """All rows of the namespace with their ids, at one revision, some at a time (S7).

        Raises:
            Unavailable: no node answered, or the stream broke: the rows are to be read anew.
        """
        export = result_of(task.start(self._core.export()))
        try:
            while True:
                rows = result_of(task.start(export.next()))
                if rows is None:
                    return
                yield rows
        finally:
            export.close()


class ChangeSources(Facade[changesources.ChangeSources]):
    """Change sources and who owns them (C); see ``holdfast.changesources.ChangeSources``."""

    find_id = blocking(changesources.ChangeSources.find_id)
    set_master = blocking(changesources.ChangeSources.set_master)
    get = blocking(changesources.ChangeSources.get)
    list_changesources = blocking(changesources.ChangeSources.list_changesources)
    claim = blocking(changesources.ChangeSources.claim)
    release = blocking(changesources.ChangeSources.release)
    await_claim = blocking(changesources.ChangeSources.await_claim)
    stop_awaiting = blocking(changesources.ChangeSources.stop_awaiting)
    set_group = blocking(changesources.ChangeSources.set_group)


class Masters(Facade[masters.Masters]):
    """Masters and their leases (M); see ``holdfast.masters.Masters``."""

    find_id = blocking(masters.Masters.find_id)
    set_state = blocking(masters.Masters.set_state)
    get = blocking(masters.Masters.get)
    list_masters = blocking(masters.Masters.list_masters)
    open_lease = blocking(masters.Masters.open_lease)
    keep_alive = blocking(masters.Masters.keep_alive)
    close_lease = blocking(masters.Masters.close_lease)


class Cluster(Facade[cluster.Cluster]):
    """The cluster itself; see ``holdfast.cluster.Cluster``."""

    status = blocking(cluster.Cluster.status)
    members = blocking(cluster.Cluster.members)


class LeaseHolder(LeaseFacade):
    """A live lease that renews itself; see ``holdfast.lease.LeaseHolder``.

    As a context manager it is closed in the end, unless it is lost by then.
    """

    claim = blocking(lease.LeaseHolder.claim)
    await_claim = blocking(lease.LeaseHolder.await_claim)
    release = blocking(lease.LeaseHolder.release)
    set_fenced = blocking(lease.LeaseHolder.set_fenced)
    close = blocking(lease.LeaseHolder.close)

    def wait_lost(self, seconds: float | None = None) -> Loss | None:
        """Waits until the lease is lost, and says how; None if it is not within so many seconds."""
        return result_of(task.start(self._core.lost(seconds)))

    @contextlib.contextmanager
    def owning(self, changesource_id: int) -> Iterator[Fence]:
        """Waits for our turn to own a change source, and gives it back in the end.

        Raises:
            LeaseLost: the lease was lost, before or meanwhile.
        """
        fence = self.await_claim(changesource_id)
        try:
            yield fence
        finally:
            if self.is_live:
                self.release(fence)

    def __enter__(self) -> LeaseHolder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_live:
            self.close()


class Watch(WatchFacade):
    """Changes as they are made, in order; see ``holdfast.watch.Watch``. Iterating waits."""

    next = blocking(watch.Watch.next)

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Change:
        return self.next()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client(ClientFacade):
    """A client of one cluster, for programs that block.

    Threads share it; a child process that was forked goes on with connections and a session of its
    own. Nothing connects before the first call, and nothing here can fail: what is wrong with an
    address comes out of the first call.

    Args:
        endpoints: nodes to begin with, as ``"host:port,host:port"`` or a sequence. None: those in
            ``HOLDFAST_ENDPOINTS``, else ``127.0.0.1:7480``. One that answers is enough.
        namespace: of every call, 1 to 1,024 bytes (G10). None: ``HOLDFAST_NAMESPACE``, else
            ``default``.
        deadline: how long a call may take, in seconds: retries, elections, queueing included.
        session_idle: how long the cluster keeps the session without a sign of life, in seconds.
    """

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

    def hold_lease(
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
        return LeaseHolder(result_of(task.start(opening)))

    def watch(self, *filters: WatchFilter, from_revision: int | None = None) -> Watch:
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
        return Watch(result_of(task.start(opening)))

    def close(self) -> None:
        """Ends the session, so that the cluster need not keep it until it lapses; then connections.

        Worth calling at the end of a program, when all writes have returned; a call after it begins
        anew.

        Raises:
            Unavailable: no node answered; the session then lapses by itself.
        """
        result_of(self.engine.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        # Where no node answers the session lapses by itself.
        with contextlib.suppress(Unavailable):
            result_of(self.engine.close(deadline=min(self.engine.deadline, CLOSE_SECONDS)))
