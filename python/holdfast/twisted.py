"""The client for Twisted: every call gives a Deferred, fired on the reactor's thread.

Nothing connects before the first call, no work is done on the reactor's thread but to hand a
request over, and no reactor is installed by importing this (B2). Cancelling a Deferred gives its
call up.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union

from twisted.internet.defer import Deferred, maybeDeferred

from holdfast import changesources, cluster, lease, masters, state, watch
from holdfast._engine import task
from holdfast._engine.task import wait
from holdfast._flavour import ClientFacade, Facade, LeaseFacade, WatchFacade, documented

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import Concatenate, ParamSpec

    from holdfast.exclusive import Creator
    from holdfast.instance import Instance
    from holdfast.lease import Loss
    from holdfast.state import Created, Written
    from holdfast.watch import WatchFilter

    P = ParamSpec("P")

T = TypeVar("T")

Made = Union[bytes, "Deferred[bytes]"]
"""What a function of the program makes: a value, or a Deferred that gives one."""


def _on_reactor(function: Callable[..., object], *arguments: object) -> None:
    # Here and not at the top: whoever imports it installs it.
    from twisted.internet import reactor

    reactor.callFromThread(function, *arguments)


def deferred_of(future: Future[T]) -> Deferred[T]:
    """A Deferred for a future; cancelling it cancels that."""

    def give_up(_: object) -> None:
        future.cancel()

    deferred: Deferred[T] = Deferred(give_up)

    def fire() -> None:
        if deferred.called:
            return  # It was cancelled.
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            deferred.cancel()
        elif error is not None:
            deferred.errback(error)
        else:
            deferred.callback(future.result())

    future.add_done_callback(lambda _: _on_reactor(fire))
    return deferred


def deferred(
    operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[Any], P], Deferred[T]]:
    """An operation as a method that gives a Deferred."""

    def method(facade: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return deferred_of(task.start(operation(facade._core, *args, **kwargs)))

    documented(method, operation)
    return method


def _from_engine(function: Callable[..., Made]) -> Callable[..., Coroutine[Any, Any, bytes]]:
    """A function of the program, to be called from the engine: it runs on the reactor's thread."""

    async def call(*arguments: object) -> bytes:
        made: Future[bytes] = Future()

        def run() -> None:
            running = maybeDeferred(function, *arguments)
            running.addCallbacks(
                lambda value: task.settle(made, value),
                lambda failure: task.fail(made, failure.value),
            )

        _on_reactor(run)
        return await wait(made)

    return call


class State(Facade[state.State]):
    """Object state (S); see ``holdfast.state.State``."""

    get_object_id = deferred(state.State.get_object_id)
    find_object_id = deferred(state.State.find_object_id)
    get = deferred(state.State.get)
    get_many = deferred(state.State.get_many)
    set = deferred(state.State.set)
    create = deferred(state.State.create)
    delete = deferred(state.State.delete)
    list_objects = deferred(state.State.list_objects)
    list_objects_page = deferred(state.State.list_objects_page)
    list_state = deferred(state.State.list_state)
    list_state_page = deferred(state.State.list_state_page)
    import_rows = deferred(state.State.import_rows)

    def atomic_create(
        self, object_id: int, name: str, create: Callable[[], Made]
    ) -> Deferred[Created]:
        """See ``holdfast.state.State.atomic_create``; ``create`` may give a Deferred."""
        creating = self._core.atomic_create(object_id, name, _from_engine(create))
        return deferred_of(task.start(creating))

    def create_exclusive(
        self,
        object_id: int,
        name: str,
        create: Callable[[Creator], Made],
        *,
        ttl: float = 2.0,
        wait: float = 60.0,
    ) -> Deferred[Created]:
        """See ``holdfast.state.State.create_exclusive``; ``create`` may give a Deferred."""
        creating = self._core.create_exclusive(
            object_id, name, _from_engine(create), ttl=ttl, wait=wait
        )
        return deferred_of(task.start(creating))

    def update(
        self, object_id: int, name: str, change: Callable[[bytes | None], Made]
    ) -> Deferred[Written]:
        """See ``holdfast.state.State.update``; ``change`` may give a Deferred."""
        return deferred_of(task.start(self._core.update(object_id, name, _from_engine(change))))


class ChangeSources(Facade[changesources.ChangeSources]):
    """Change sources and who owns them (C); see ``holdfast.changesources.ChangeSources``."""

    find_id = deferred(changesources.ChangeSources.find_id)
    set_master = deferred(changesources.ChangeSources.set_master)
    get = deferred(changesources.ChangeSources.get)
    list_changesources = deferred(changesources.ChangeSources.list_changesources)
    claim = deferred(changesources.ChangeSources.claim)
    release = deferred(changesources.ChangeSources.release)
    await_claim = deferred(changesources.ChangeSources.await_claim)
    stop_awaiting = deferred(changesources.ChangeSources.stop_awaiting)
    set_group = deferred(changesources.ChangeSources.set_group)


class Masters(Facade[masters.Masters]):
    """Masters and their leases (M); see ``holdfast.masters.Masters``."""

    find_id = deferred(masters.Masters.find_id)
    set_state = deferred(masters.Masters.set_state)
    get = deferred(masters.Masters.get)
    list_masters = deferred(masters.Masters.list_masters)
    open_lease = deferred(masters.Masters.open_lease)
    keep_alive = deferred(masters.Masters.keep_alive)
    close_lease = deferred(masters.Masters.close_lease)


class Cluster(Facade[cluster.Cluster]):
    """The cluster itself; see ``holdfast.cluster.Cluster``."""

    status = deferred(cluster.Cluster.status)
    members = deferred(cluster.Cluster.members)


class LeaseHolder(LeaseFacade):
    """A live lease that renews itself; see ``holdfast.lease.LeaseHolder``.

    Its renewals do not run on the reactor's thread, so one that is held up does not lose the lease.
    """

    claim = deferred(lease.LeaseHolder.claim)
    await_claim = deferred(lease.LeaseHolder.await_claim)
    release = deferred(lease.LeaseHolder.release)
    set_fenced = deferred(lease.LeaseHolder.set_fenced)
    close = deferred(lease.LeaseHolder.close)

    def lost(self) -> Deferred[Loss | None]:
        """Fires when the lease is lost, with how."""
        return deferred_of(task.start(self._core.lost()))


class Watch(WatchFacade):
    """Changes as they are made, in order; see ``holdfast.watch.Watch``."""

    next = deferred(watch.Watch.next)


class Client(ClientFacade):
    """A client of one cluster, for Twisted; see ``holdfast.Client`` for the arguments."""

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
    ) -> Deferred[LeaseHolder]:
        """Opens a lease for a master and keeps it alive; see ``holdfast.lease.LeaseHolder.open``.

        Raises:
            LeaseHeld: another instance holds a live lease of that name.
            BadRequest: a number is out of its range.
            NotApplied: there was no lease in time.
            OutcomeUnknown: there may be one, which then runs out.
        """
        opening = lease.LeaseHolder.open(self.context, name, instance, ttl, grace)
        return deferred_of(task.start(opening)).addCallback(LeaseHolder)

    def watch(self, *filters: WatchFilter, from_revision: int | None = None) -> Deferred[Watch]:
        """Watches what changes: what passes one of the filters, or all of the namespace.

        When it fires, every change that is acknowledged from there on will be handed out.

        Args:
            filters: see ``holdfast.watch``.
            from_revision: the first revision of interest; None: from now on.

        Raises:
            Unavailable: no node took the watch in time.
            Compacted: no node remembers that far back.
        """
        opening = watch.Watch.open(self.context, filters, from_revision)
        return deferred_of(task.start(opening)).addCallback(Watch)

    def close(self) -> Deferred[None]:
        """Ends the session, so that the cluster need not keep it until it lapses; then connections.

        Raises:
            Unavailable: no node answered; the session then lapses by itself.
        """
        return deferred_of(self.engine.close())
