"""Masters and the calls on their leases, one by one (M).

A master that wants to own change sources needs its lease renewed in time and must stop when it is
lost; ``LeaseHolder`` (``holdfast.lease``) sees to both, and these calls are what it is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast._engine import calls
from holdfast._wire import masters_pb2
from holdfast.errors import Header, HeldBy, LeaseHeld, OutcomeUnknown

if TYPE_CHECKING:
    from holdfast._engine.context import Context
    from holdfast.instance import Instance


@dataclass(frozen=True)
class Master:
    """A master as the cluster knows it."""

    id: int
    """Positive and never reused."""
    name: str
    """Unique within the namespace."""
    active: bool
    """Whether it is marked active, by its lease or by ``set_state``."""
    lease_id: int | None
    """Its lease, if it has a live one."""
    lease_remaining: float
    """How long the lease has to run by the cluster's clock, in seconds; 0.0 without a lease."""
    last_active_unix_ms: int
    """Wall-clock time of the leader at the last sign of life, in milliseconds since 1970; for
    display only."""
    claims: int
    """How many change sources it owns."""


@dataclass(frozen=True)
class Lease:
    """A lease that has been granted."""

    id: int
    """A revision, rising with every lease and never reused."""
    master_id: int
    """The master that it makes active."""
    ttl: float
    """How long it lives from the last renewal, in seconds."""


@dataclass(frozen=True)
class Renewal:
    """A renewal of a lease."""

    ttl: float
    """How long the lease lives, in seconds, counted from before the renewal was sent."""
    number: int
    """1 for the first renewal of a lease, and rising by 1."""


class Masters:
    """The masters of one namespace.

    Reads are linearizable and raise ``Unavailable`` if no node answered in time; writes are carried
    out at most once, and raise ``NotApplied`` or ``OutcomeUnknown``.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def find_id(self, name: str) -> int:
        """The id of a master; creates its record, inactive, if there is none (M1)."""
        request = masters_pb2.FindMasterIdRequest(namespace=self._context.namespace, name=name)
        return (await self._context.write(calls.FIND_MASTER_ID, request)).master_id

    async def set_state(self, master_id: int, active: bool) -> bool:
        """Marks a master active or inactive; returns whether the mark changed (M2).

        Inactive ends its lease and all its claims in the same step.

        Raises:
            NotFound: there is no such master.
        """
        request = masters_pb2.SetMasterStateRequest(
            namespace=self._context.namespace, master_id=master_id, active=active
        )
        return (await self._context.write(calls.SET_MASTER_STATE, request)).changed

    async def get(self, master_id: int) -> Master | None:
        """A master, None if there is no such one."""
        request = masters_pb2.GetMasterRequest(
            namespace=self._context.namespace, master_id=master_id
        )
        got = await self._context.read(calls.GET_MASTER, request)
        return _master(got.master) if got.HasField("master") else None

    async def list_masters(self) -> list[Master]:
        """All masters of the namespace, in order of their ids."""
        request = masters_pb2.ListMastersRequest(namespace=self._context.namespace)
        got = await self._context.read(calls.LIST_MASTERS, request)
        return [_master(master) for master in got.masters]

    async def open_lease(
        self, name: str, instance: Instance, ttl: float, *, grace: float = 0.0
    ) -> Lease:
        """Opens a lease, which makes the master of that name active while it lives (M3).

        A lease that the same instance had before ends in the same step, with all its claims;
        another instance's lease has to run out first. The lease counts from before this was sent.

        Args:
            name: of the master.
            instance: the secret of this running installation.
            ttl: 0.5 to 86,400 seconds, in whole milliseconds.
            grace: how long it lives at most once a node has seen the connection break to which it
                is attached, in seconds: 0.5 to ``ttl``, or 0.0 for never. Only a ``LeaseHolder``
                attaches leases (M6).

        Raises:
            LeaseHeld: another instance holds a live lease of that name; nothing changed.
            BadRequest: a number is out of its range.
        """
        request = masters_pb2.OpenLeaseRequest(
            namespace=self._context.namespace,
            name=name,
            instance=instance.secret,
            ttl_ms=round(ttl * 1000),
            grace_ms=round(grace * 1000),
        )
        opened = await self._context.write(calls.OPEN_LEASE, request)
        header = Header.of(opened.header)
        outcome = opened.WhichOneof("outcome")
        if outcome == "lease":
            lease = opened.lease
            return Lease(lease.lease_id, lease.master_id, lease.ttl_ms / 1000)
        if outcome == "held_by":
            held = opened.held_by
            remaining = held.lease_remaining_ms / 1000
            held_by = HeldBy(held.master_id, held.name, held.lease_id, remaining)
            raise LeaseHeld(held_by, header)
        raise malformed("OpenLease", header)

    async def keep_alive(self, lease_id: int, *, within_grace: bool = False) -> Renewal:
        """Renews exactly this lease.

        Args:
            lease_id: of the lease.
            within_grace: for its grace alone, also if it had longer to run: what a holder does that
                is attached to no node, where nobody would see it go.

        Raises:
            LeaseLost: it has ended.
            Refused: as ``NO_GRACE`` if it has none.
        """
        request = masters_pb2.KeepAliveRequest(
            namespace=self._context.namespace, lease_id=lease_id, within_grace=within_grace
        )
        kept = await self._context.write(calls.KEEP_ALIVE, request)
        return Renewal(kept.ttl_ms / 1000, kept.renewal)

    async def close_lease(self, lease_id: int) -> int:
        """Ends a lease and frees all its claims at once; returns how many there were.

        Raises:
            LeaseLost: it has ended already.
        """
        request = masters_pb2.CloseLeaseRequest(
            namespace=self._context.namespace, lease_id=lease_id
        )
        return (await self._context.write(calls.CLOSE_LEASE, request)).freed


def malformed(name: str, header: Header) -> OutcomeUnknown:
    """A node answered a write without saying what came of it: a fault of the node."""
    return OutcomeUnknown(f"the answer to {name} says nothing about its outcome", header=header)


def _master(master: masters_pb2.Master) -> Master:
    return Master(
        id=master.master_id,
        name=master.name,
        active=master.active,
        lease_id=master.lease_id or None,
        lease_remaining=master.lease_remaining_ms / 1000,
        last_active_unix_ms=master.last_active_unix_ms,
        claims=master.claims,
    )
