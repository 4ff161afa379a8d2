"""Keeps a lease with a grace attached to a node, and its holder aware of what that allows (M6).

A node to which a lease is attached shrinks it to the grace once the connection breaks. That must
not find a holder that believes in its lease. So the holder sends a message a few times in each
grace, and the node answers every one: a message that was answered was sent before the node saw any
break. From the moment before it was sent the holder counts the grace, less the margin.

A node can shrink the lease only by the last renewal, and only if it was told of it. So a holder
whose connection has broken renews first. With that it is free: no node knows of that renewal, and
the count of the grace ends. It starts again when the renewal is told to another node.

In between no node would see it go, so it renews for the grace alone, as often as that asks for,
until another node has answered; then for the full time.

Invariants:
- A lease has its full time only before it was ever attached, or while a node answers that can
  shrink it; but for a renewal that was on its way as the connection broke.
- A renewal is told to one node only, and to none once a stream has ended to which it was told.
- The count of the grace begins before a node is told, and only an answer on the same stream, or a
  renewal that no node was told of, moves its end.
- A node that stops says so, and shrinks nothing: then the count ends as well.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from typing import TYPE_CHECKING

from holdfast._engine import boottime, calls, rpc, task
from holdfast._engine.endpoint import ConnectError, Endpoint
from holdfast._engine.life import counted, pause
from holdfast._engine.stream import Exchange
from holdfast._wire.masters_pb2 import AttachLeaseRequest, AttachLeaseResponse
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.lease import LeaseHolder

log = logging.getLogger("holdfast")

_MESSAGES_PER_GRACE = 8
"""So many messages are sent in each grace, one and a half of which may be lost to a hiccup before
the holder goes elsewhere, with more than half of the grace to do so."""
_SILENCE_SHARE = 4
"""Part of the grace after which a node that does not answer is left."""


class Span(enum.Enum):
    """What a lease is renewed for."""

    FULL = enum.auto()
    """Its ttl."""
    GRACE = enum.auto()
    """Its grace alone: a node that could see its holder go is yet to be found."""


class Renewals:
    """The numbers of the renewals of a lease that succeeded."""

    def __init__(self) -> None:
        self.newest = 0
        """0: none; the lease as it was opened."""
        self._changed: task.Signal[bool] = task.Signal()

    def note(self, number: int) -> None:
        """A renewal succeeded."""
        if number > self.newest:
            self.newest = number
            changed, self._changed = self._changed, task.Signal()
            changed.tell(True)

    async def beyond(self, number: int | None) -> None:
        """Waits for one that is newer than this; None: for any state."""
        while number is not None and self.newest <= number:
            changed = self._changed
            if self.newest <= number:
                await changed.wait()

    @property
    def changed(self) -> task.Signal[bool]:
        """Told with the next one."""
        return self._changed


class _Ended(enum.Enum):
    """How a stream came to its end."""

    UNUSED = enum.auto()
    """The node was not told of anything."""
    STOPPING = enum.auto()
    """The node stops, and will not shrink the lease."""
    BROKEN = enum.auto()
    """Perhaps the node has seen it too."""


async def keep(holder: LeaseHolder) -> None:
    """Keeps a lease attached until it is lost."""
    attaching = task.spawn(_Attachment(holder).run())
    await holder.lost()
    attaching.cancel()


_Exchange = Exchange[AttachLeaseRequest, AttachLeaseResponse]


class _Attachment:
    def __init__(self, holder: LeaseHolder) -> None:
        self._holder = holder
        # The last renewal that any node was told of.
        self._told: int | None = None
        # Where the last stream was, to try others first.
        self._last: str | None = None

    async def run(self) -> None:
        while True:
            for endpoint in self._in_order():
                ended = await self._attach(endpoint)
                if ended == _Ended.UNUSED:
                    continue
                if ended == _Ended.STOPPING:
                    self._holder.life.detach()
                self._last = endpoint.address
                await self._renew_untold()
                break
            await task.sleep(pause(self._holder.grace))

    def _in_order(self) -> list[Endpoint]:
        """All endpoints, those that failed lately behind the others, the last one last of all."""
        endpoints = self._holder.renewer.engine.runtime.pool.in_order()
        return sorted(endpoints, key=lambda one: (one.address == self._last, one.is_avoided))

    async def _renew_untold(self) -> None:
        """Has the lease renewed for its grace, and waits for a renewal that no node was told of."""
        self._holder.renew_for(Span.GRACE)
        await self._holder.renewals.beyond(self._told)
        self._holder.life.detach()

    async def _attach(self, endpoint: Endpoint) -> _Ended:
        """Attaches the lease to one node, and stays there for as long as that works."""
        silence = self._holder.grace / _SILENCE_SHARE
        try:
            link = await task.within(silence, task.start(endpoint.connect()))
            runtime = self._holder.renewer.engine.runtime
            exchange = Exchange(calls.ATTACH_LEASE, link, runtime)
        except (ConnectError, rpc.Status, TimeoutError):
            endpoint.mark_bad()
            return _Ended.UNUSED
        try:
            is_stopping = await _Link(self, exchange).stay()
        finally:
            exchange.cancel()
        if is_stopping:
            return _Ended.STOPPING
        endpoint.mark_bad()
        return _Ended.BROKEN

    def tell(self, exchange: _Exchange, sent: float) -> None:
        """Tells the node of the last renewal, at this moment on CLOCK_BOOTTIME."""
        holder = self._holder
        self._told = holder.renewals.newest
        holder.life.attach(sent + counted(holder.grace))
        exchange.send(
            AttachLeaseRequest(
                namespace=holder.context.namespace,
                lease_id=holder.lease.id,
                renewal=self._told,
                silence_ms=round(holder.grace * 1000),
            )
        )

    @property
    def holder(self) -> LeaseHolder:
        return self._holder


class _Link:
    """A stream to a node, and when the messages were sent that it has not answered."""

    def __init__(self, attachment: _Attachment, exchange: _Exchange) -> None:
        self._attachment = attachment
        self._exchange = exchange
        self._unanswered: deque[float] = deque()

    async def stay(self) -> bool:
        """Goes on telling, until the stream ends or the node is silent for too long.

        Returns whether the node said that it stops.
        """
        holder = self._attachment.holder
        receiving = task.start(self._take_in())
        try:
            while True:
                changed = holder.renewals.changed
                sent = boottime.now()
                # First, since the answer may come before the call has returned.
                self._unanswered.append(sent)
                self._attachment.tell(self._exchange, sent)
                told = changed.waiter()
                await task.first(receiving, told, seconds=holder.grace / _MESSAGES_PER_GRACE)
                changed.forget(told)
                if receiving.done():
                    return receiving.result()
                silent = boottime.now() - self._unanswered[0] if self._unanswered else 0.0
                if silent > holder.grace / _SILENCE_SHARE:
                    return False
        finally:
            receiving.cancel()

    async def _take_in(self) -> bool:
        """Takes the answers in until there are no more; whether the node said that it stops."""
        holder = self._attachment.holder
        while True:
            try:
                answered = await task.within(
                    holder.grace, self._exchange.receive(silence=2 * holder.grace)
                )
            except TimeoutError:
                return False
            except HoldfastError as error:
                log.debug("lease %d is no more attached: %s", holder.lease.id, error)
                return any(attempt.reason == "STOPPING" for attempt in error.attempts)
            if answered is None or not self._unanswered:
                return False
            holder.life.prove(self._unanswered.popleft() + counted(holder.grace))
            holder.renew_for(Span.FULL)
