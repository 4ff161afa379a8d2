"""Change sources: each is owned by at most one live master (C).

Every grant has a *token*, the revision that granted it, which rises with every grant and is never
reused. A write that carries the token as its :class:`Fence` is refused once the claim has moved on.

Change sources of one *group* belong to one master, all or none: what is said here of one of them
happens to all, in one step and under one token (C7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast._engine import calls
from holdfast._wire import changesources_pb2, common_pb2
from holdfast.errors import AlreadyClaimed, Claimant, Header
from holdfast.masters import malformed

if TYPE_CHECKING:
    from holdfast._engine.context import Context


@dataclass(frozen=True)
class ChangeSource:
    """A change source as the cluster knows it."""

    id: int
    """Positive and never reused."""
    name: str
    """Unique within the namespace."""
    claimant: Claimant | None
    """Who owns it; None if nobody does."""
    group: str | None
    """The group it is in, all of which has the same owner and token."""


@dataclass(frozen=True)
class Fence:
    """Proof that the writer still owns a change source."""

    changesource_id: int
    token: int
    """The token under which it was granted."""

    def to_wire(self) -> common_pb2.Fence:
        """As a write carries it."""
        return common_pb2.Fence(changesource_id=self.changesource_id, token=self.token)


@dataclass(frozen=True)
class Waiting:
    """Somebody owns the change source; the lease waits in line for it."""

    ahead: int
    """How many are before it."""


class ChangeSources:
    """The change sources of one namespace.

    Reads are linearizable and raise ``Unavailable`` if no node answered in time; writes are carried
    out at most once, and raise ``NotApplied`` or ``OutcomeUnknown``. All writes but ``find_id``
    raise ``NotFound`` if there is no such change source.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def find_id(self, name: str) -> int:
        """The id of a change source; creates it, unowned, if there is none (C1)."""
        request = changesources_pb2.FindChangeSourceIdRequest(
            namespace=self._context.namespace, name=name
        )
        found = await self._context.write(calls.FIND_CHANGE_SOURCE_ID, request)
        return found.changesource_id

    async def set_master(self, changesource_id: int, master_id: int | None) -> int:
        """Buildbot's claim: gives a change source to a master, which needs no lease (C2).

        None unsets its owner, whoever it is. Returns the token, 0 after an unset.

        Raises:
            AlreadyClaimed: it is owned already, be it by the same master; nothing changed.
            NotFound: there is no such master.
        """
        request = changesources_pb2.SetChangeSourceMasterRequest(
            namespace=self._context.namespace,
            changesource_id=changesource_id,
            master_id=master_id,
        )
        done = await self._context.write(calls.SET_CHANGE_SOURCE_MASTER, request)
        if done.WhichOneof("outcome") == "already_claimed":
            raise AlreadyClaimed(_claimant(done.already_claimed), Header.of(done.header))
        return done.token

    async def get(self, changesource_id: int) -> ChangeSource | None:
        """A change source, None if there is no such one (C3)."""
        request = changesources_pb2.GetChangeSourceRequest(
            namespace=self._context.namespace, changesource_id=changesource_id
        )
        got = await self._context.read(calls.GET_CHANGE_SOURCE, request)
        return _change_source(got.changesource) if got.HasField("changesource") else None

    async def list_changesources(
        self, *, active: bool | None = None, master_id: int | None = None
    ) -> list[ChangeSource]:
        """The change sources of the namespace, in order of their ids (C3).

        Args:
            active: only the owned (true) or the free ones (false).
            master_id: only those that this master owns.
        """
        request = changesources_pb2.ListChangeSourcesRequest(
            namespace=self._context.namespace, master_id=master_id
        )
        if active is not None:
            request.active = active
        got = await self._context.read(calls.LIST_CHANGE_SOURCES, request)
        return [_change_source(source) for source in got.changesources]

    async def claim(self, lease_id: int, changesource_id: int) -> Fence:
        """Claims a change source under a lease; again under the same lease gives the same token.

        ``LeaseHolder.claim`` does this with a check that the lease lives.

        Raises:
            AlreadyClaimed: somebody else owns it; nothing changed.
            LeaseLost: the lease has ended.
            LimitReached: the lease has as many claims as it may.
        """
        request = changesources_pb2.ClaimRequest(
            namespace=self._context.namespace, changesource_id=changesource_id, lease_id=lease_id
        )
        claimed = await self._context.write(calls.CLAIM, request)
        header = Header.of(claimed.header)
        outcome = claimed.WhichOneof("outcome")
        if outcome == "token":
            return Fence(changesource_id, claimed.token)
        if outcome == "already_claimed":
            raise AlreadyClaimed(_claimant(claimed.already_claimed), header)
        raise malformed("Claim", header)

    async def release(self, fence: Fence) -> bool:
        """Gives a claim back, if it is still held under this very token; returns whether it was."""
        request = changesources_pb2.ReleaseRequest(
            namespace=self._context.namespace,
            changesource_id=fence.changesource_id,
            token=fence.token,
        )
        return (await self._context.write(calls.RELEASE, request)).released

    async def await_claim(self, lease_id: int, changesource_id: int) -> Fence | Waiting:
        """Claims under a lease, or waits in line for it; doing it again keeps the place (C6).

        Returns at once: a later grant is a change to watch for. ``LeaseHolder.await_claim`` does
        all that.

        Raises:
            LeaseLost: the lease has ended.
            LimitReached: too many wait, or the lease waits in too many lines.
        """
        request = changesources_pb2.AwaitClaimRequest(
            namespace=self._context.namespace, changesource_id=changesource_id, lease_id=lease_id
        )
        asked = await self._context.write(calls.AWAIT_CLAIM, request)
        outcome = asked.WhichOneof("outcome")
        if outcome == "token":
            return Fence(changesource_id, asked.token)
        if outcome == "waiting":
            return Waiting(asked.waiting.ahead)
        raise malformed("AwaitClaim", Header.of(asked.header))

    async def stop_awaiting(self, lease_id: int, changesource_id: int) -> bool:
        """Leaves the line; returns whether the lease waited. What was granted meanwhile stays."""
        request = changesources_pb2.StopAwaitingRequest(
            namespace=self._context.namespace, changesource_id=changesource_id, lease_id=lease_id
        )
        return (await self._context.write(calls.STOP_AWAITING, request)).waited

    async def set_group(self, changesource_id: int, group: str | None) -> bool:
        """Puts a change source into a group, which its first member makes; None takes it out.

        Returns whether that changed anything. A group has at most 256 members.

        Raises:
            Refused: as ``CHANGE_SOURCE_IN_USE`` unless the change source and the group are free.
            LimitReached: the group is full.
        """
        request = changesources_pb2.SetGroupRequest(
            namespace=self._context.namespace, changesource_id=changesource_id, group=group
        )
        return (await self._context.write(calls.SET_GROUP, request)).changed


def _claimant(claimant: changesources_pb2.Claimant) -> Claimant:
    return Claimant(
        master_id=claimant.master_id,
        master_name=claimant.master_name,
        token=claimant.token,
        lease_id=claimant.lease_id or None,
        lease_remaining=claimant.lease_remaining_ms / 1000,
    )


def _change_source(source: changesources_pb2.ChangeSource) -> ChangeSource:
    claimant = _claimant(source.claimant) if source.HasField("claimant") else None
    return ChangeSource(source.changesource_id, source.name, claimant, source.group or None)
