"""A lease that renews itself, and says in time when it is lost (M5).

The cluster gives a master's change sources to another one when its lease has run out by the
cluster's clock. The holder must have stopped by then, also if it was cut off, suspended or stopped
by a signal meanwhile. So it counts the lease by itself, and earlier:

- from *before the first transmission* of the renewal that succeeded, on CLOCK_BOOTTIME,
- less a margin of 1 % and 10 ms, for clocks that run at different speeds,
- and for a lease with a grace also from its connection's last sign of life (``attach``).

Invariants:
- Once the clock has reached the end so counted the lease is lost for good: whoever looks first (a
  caller, the renewals, a reply that comes in) compares the clock before anything else, and the loss
  is never taken back. A late reply revives nothing.
- No renewal is sent for a lease that was reported lost.
- :attr:`LeaseHolder.is_live` is exact. Whoever is told of the loss is told by a timer, which stands
  still while the machine is suspended and may be late on a busy one: it looks at the clock at least
  every 100 ms. Whatever must not happen without the lease is to check first.
- A lease is its process's: in a child that was forked it counts as lost.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from holdfast._engine import attach, boottime, task
from holdfast._engine.attach import Renewals, Span
from holdfast._engine.deadline import TICK, Deadline
from holdfast._engine.life import RENEWAL_MIN, Life, Loss, counted, pause
from holdfast.changesources import ChangeSources, Fence
from holdfast.errors import (
    Applied,
    Compacted,
    HoldfastError,
    LeaseLost,
    NotApplied,
    OutcomeUnknown,
    Refused,
    SessionExpired,
    Unavailable,
)
from holdfast.masters import Lease, Masters
from holdfast.state import State, Written
from holdfast.watch import ChangeSourceChanged, ChangeSourceFilter, Watch

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future
    from typing import Any, Callable

    from holdfast._engine.context import Context
    from holdfast.instance import Instance

__all__ = ["LeaseHolder", "Loss"]

log = logging.getLogger("holdfast")

_TTL_MIN = 0.5
"""Shortest ttl that the cluster grants, in seconds; it refuses shorter ones, and must see them."""
T = TypeVar("T")


class LeaseHolder:
    """A live lease of a master, renewed every third of its ttl by a thread of the package.

    As coroutines. One that is not closed is kept for as long as the process lives.
    """

    def __init__(
        self,
        context: Context,
        renewer: Context,
        lease: Lease,
        grace: float,
        life: Life,
        instance: Instance,
    ) -> None:
        self._context = context
        self.renewer = renewer
        """The same cluster through a session for the lease alone, so that renewals never queue
        behind the program's writes."""
        self.lease = lease
        self.grace = grace
        """0.0: none."""
        self.life = life
        # Keeps the secret from others for as long as the lease is held: whoever shows it ends this
        # lease at once, without our noticing before the next renewal.
        self._instance = instance
        self._span = Span.FULL
        self._asked: task.Signal[bool] = task.Signal()
        self.renewals = Renewals()
        """The renewals that succeeded."""

    @classmethod
    async def open(
        cls, context: Context, name: str, instance: Instance, ttl: float, grace: float
    ) -> LeaseHolder:
        """Opens a lease and keeps it alive; see ``Masters.open_lease``.

        Tries again within the time of a call if an answer came too late to be of use. With a grace,
        if this process dies or loses its connection, the lease ends within that from when a node
        has seen it, long before its ttl may have run. The price: a holder that reaches no node, or
        no leader, for the grace less the margin counts its lease as lost. So let it be well above
        an election and a network's hiccups.

        Raises:
            LeaseHeld: another instance holds a live lease of that name.
            BadRequest: a number is out of its range.
            NotApplied: there was no lease in time.
            OutcomeUnknown: there may be one, which then runs out.
        """
        own = replace(context, engine=context.engine.with_own_session())
        deadline = context.deadline()
        while True:
            try:
                holder = await cls._try_to_open(context, own, deadline, name, instance, ttl, grace)
                if holder is not None:
                    holder._start()
                    return holder
                error: HoldfastError = OutcomeUnknown("a lease was granted too late to be of use")
            except Refused as refused:
                if not isinstance(refused, SessionExpired):
                    raise
                error = refused
            except HoldfastError as failure:
                error = failure
            if deadline.has_passed():
                raise error
            await task.sleep(min(deadline.remaining(), pause(ttl)))

    @classmethod
    async def _try_to_open(
        cls,
        context: Context,
        own: Context,
        deadline: Deadline,
        name: str,
        instance: Instance,
        ttl: float,
        grace: float,
    ) -> LeaseHolder | None:
        # First, so that the lease is not counted from before there was a session.
        await own.engine.runtime.sessions.current(deadline)
        began = boottime.now()
        # An answer that takes longer is of no use.
        masters = Masters(own.at_most(min(deadline.remaining(), max(ttl, _TTL_MIN))))
        lease = await masters.open_lease(name, instance, ttl, grace=grace)
        life = Life(began + counted(min(lease.ttl, ttl)))
        if life.loss() is not None:
            return None
        return cls(context, own, lease, grace, life, instance)

    @property
    def is_live(self) -> bool:
        """Whether the lease still holds at this moment. Looks at the clock; waits for nothing."""
        return self.life.loss() is None

    def check(self) -> None:
        """As :attr:`is_live`.

        Raises:
            LeaseLost: it does not hold any more.
        """
        if not self.is_live:
            raise self._lost(Applied.NO)

    @property
    def context(self) -> Context:
        """The client, with no more time for a call than the lease has left."""
        return self._context.at_most(self.life.remaining())

    async def lost(self, seconds: float | None = None) -> Loss | None:
        """Waits until the lease is lost, and says how; None if it is not within so many seconds."""
        return await self.life.lost.wait(seconds)

    def on_lost(self, callback: Callable[[Loss], object]) -> None:
        """Calls back, on a thread of its own, once the lease is lost; at once if it is."""

        def call(told: Future[Loss]) -> None:
            loss = told.result()
            threading.Thread(
                target=callback, args=(loss,), name="holdfast-lost", daemon=True
            ).start()

        self.life.lost.waiter().add_done_callback(call)

    async def claim(self, changesource_id: int) -> Fence:
        """Claims a change source. Doing it again gives the same token.

        Raises:
            AlreadyClaimed: somebody else owns it.
            LeaseLost: the lease is lost, before or meanwhile.
        """
        sources = ChangeSources(self.context)
        return await self._guard(sources.claim(self.lease.id, changesource_id))

    async def await_claim(self, changesource_id: int) -> Fence:
        """Claims a change source as soon as it is our turn (C6).

        Those who wait are served in the order in which they came. Waits for as long as it takes and
        the lease lives, also while no node can be reached or the cluster has no leader. Cancelling
        leaves the line, and gives the change source back if it was granted at that very moment; so
        do not claim the same one, or one of its group, in another way meanwhile.

        Raises:
            LeaseLost: the lease is lost, before or meanwhile.
            NotFound: there is no such change source.
            LimitReached: too many wait, or the lease waits in too many lines.
        """
        try:
            return await self._guard(self._stand_in_line(changesource_id))
        except BaseException:
            if self.is_live:
                task.spawn(self._leave_line(changesource_id))
            raise

    async def release(self, fence: Fence) -> bool:
        """Gives a claim back, if it is still held under this very token; returns whether it was.

        Raises:
            LeaseLost: the lease is lost, before or meanwhile.
        """
        return await self._guard(ChangeSources(self.context).release(fence))

    async def set_fenced(self, object_id: int, name: str, value: bytes, fence: Fence) -> Written:
        """Overwrites a value under a fence; see ``State.set``.

        Raises:
            StaleFence: the claim has moved on.
            LeaseLost: the lease is lost, before or meanwhile.
        """
        state = State(self.context)
        return await self._guard(state.set(object_id, name, value, fence=fence))

    async def close(self) -> int:
        """Ends the lease, which frees all its claims at once; returns how many there were.

        Stop what depends on them first: the holder counts as lost from here on.

        Raises:
            LeaseLost: it was lost already.
            OutcomeUnknown: there was no answer; the lease then runs out by itself.
        """
        self.check()
        self.life.end(Loss.CLOSED)
        freed = await Masters(self.renewer.at_most(self.lease.ttl)).close_lease(self.lease.id)
        # Left open the session lapses by itself.
        self.renewer.engine.close()
        return freed

    def renew_for(self, span: Span) -> None:
        """What it is renewed for from here on; renews at once if that is something else."""
        if self._span != span:
            self._span = span
            self._asked.tell(True)

    def _start(self) -> None:
        task.spawn(self.life.watch())
        task.spawn(self._renew_on(boottime.now()))
        if self.grace:
            task.spawn(attach.keep(self))

    async def _renew_on(self, began: float) -> None:
        """Renews the lease until it is lost."""
        pausing = self.lease.ttl / 3
        while await self._pause_until(began + pausing):
            began = boottime.now()
            asked, span = self._begin_renewal()
            renewing = task.start(self._renew(span))
            told = asked.waiter()
            await task.first(renewing, told)
            asked.forget(told)
            if not renewing.done():
                # What is on its way asks for another time; the next answer makes it stale.
                renewing.cancel()
                pausing = 0.0
                continue
            try:
                ttl = renewing.result()
            except HoldfastError as error:
                log.warning("lease %d not renewed, trying again: %s", self.lease.id, error)
                pausing = boottime.now() - began + pause(self._lasts(span))
                continue
            if ttl is None:
                return
            pausing = ttl / 3

    def _begin_renewal(self) -> tuple[task.Signal[bool], Span]:
        # In this order, as `renew_for` does it in the other: what it asks for is either seen here,
        # or told by the new signal.
        if self._asked.told:
            self._asked = task.Signal()
        return self._asked, self._span

    async def _pause_until(self, moment: float) -> bool:
        """Waits until a moment on CLOCK_BOOTTIME, or until a renewal is asked for.

        Returns whether the lease lives.
        """
        while self.is_live and not self._asked.told:
            left = moment - boottime.now()
            if left <= 0:
                break
            await task.any_of(self.life.lost, self._asked, seconds=min(left, TICK))
        return self.is_live

    async def _renew(self, span: Span) -> float | None:
        """Renews the lease, and counts from before that was sent; for how many seconds it lives.

        None if it was lost before an answer.
        """
        began = boottime.now()
        lasts = self._lasts(span)
        if span == Span.GRACE and not self.life.shorten(began + counted(lasts)):
            return None
        masters = Masters(self.renewer.at_most(self.life.remaining() - RENEWAL_MIN))
        try:
            renewal = await masters.keep_alive(self.lease.id, within_grace=span == Span.GRACE)
        except LeaseLost:
            # The clock first: a reply that comes too late must not be looked at.
            self.life.end(Loss.ENDED)
            return None
        except HoldfastError:
            if not self.is_live:
                return None
            raise
        ttl = min(renewal.ttl, lasts)
        if not self.life.extend(began + counted(ttl)):
            return None
        self.renewals.note(renewal.number)
        return ttl

    def _lasts(self, span: Span) -> float:
        """How long the lease lives from a renewal of this kind, in seconds."""
        return self.lease.ttl if span == Span.FULL else self.grace

    async def _stand_in_line(self, changesource_id: int) -> Fence:
        """Waits for the grant, whatever the cluster is short of meanwhile.

        Asking again keeps the place.
        """
        while True:
            try:
                return await self._await_grant(changesource_id)
            except (Unavailable, NotApplied, OutcomeUnknown, SessionExpired) as error:
                log.debug("waiting on in line for change source %d: %s", changesource_id, error)
            await task.sleep(pause(self.lease.ttl))

    async def _await_grant(self, changesource_id: int) -> Fence:
        """Waits for the grant while the cluster answers.

        It is seen as a change, which is pushed; the claim itself then gives the token.
        """
        while True:
            # Before asking, so that no grant is missed; and anew if too much was missed.
            watch = await Watch.open(self.context, [ChangeSourceFilter(changesource_id)], None)
            try:
                while True:
                    sources = ChangeSources(self.context)
                    asked = await sources.await_claim(self.lease.id, changesource_id)
                    if isinstance(asked, Fence):
                        return asked
                    if not await self._is_granted(watch):
                        break
            finally:
                watch.close()

    async def _is_granted(self, watch: Watch) -> bool:
        """Waits for a grant to this master; false if the watch can show nothing any more."""
        while True:
            try:
                event = (await watch.next()).event
            except Unavailable:
                continue  # It goes on as soon as there is a node; the lease says for how long.
            except Compacted:
                return False
            if isinstance(event, ChangeSourceChanged) and event.master_id == self.lease.master_id:
                return True

    async def _leave_line(self, changesource_id: int) -> None:
        sources = ChangeSources(self.context)
        try:
            if await sources.stop_awaiting(self.lease.id, changesource_id):
                return
            found = await sources.get(changesource_id)
            claimant = None if found is None else found.claimant
            if claimant is not None and claimant.lease_id == self.lease.id:
                await sources.release(Fence(changesource_id, claimant.token))
        except HoldfastError as error:
            log.debug("still in line for change source %d: %s", changesource_id, error)

    async def _guard(self, call: Coroutine[Any, Any, T]) -> T:
        """Makes a call that is of use only while the lease lives."""
        if not self.is_live:
            call.close()
            raise self._lost(Applied.NO)
        calling = task.start(call)
        lost = self.life.lost.waiter()
        try:
            await task.first(calling, lost)
        finally:
            self.life.lost.forget(lost)
            calling.cancel()
        if not calling.done() or calling.cancelled():
            raise self._lost(Applied.UNKNOWN)
        error = calling.exception()
        if isinstance(error, LeaseLost):
            self.life.end(Loss.ENDED)
        if not self.is_live:
            raise self._lost(error.applied if isinstance(error, HoldfastError) else Applied.UNKNOWN)
        return calling.result()

    def _lost(self, applied: Applied) -> LeaseLost:
        message = f"lease {self.lease.id} is lost; open a new one"
        fields = {"lease": str(self.lease.id)}
        return LeaseLost("LEASE_LOST", message, fields, applied=applied)
