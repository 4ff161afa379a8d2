"""The cluster itself: what its nodes know, and who its members are (G6, N)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast._engine import calls
from holdfast._wire import cluster_pb2, common_pb2
from holdfast.errors import Header

if TYPE_CHECKING:
    from holdfast._engine.context import Context


class Role(enum.Enum):
    """What a node is in Raft."""

    UNKNOWN = 0
    """A role that this package does not know."""
    LEADER = 1
    FOLLOWER = 2
    CANDIDATE = 3
    LEARNER = 4
    """Follows without a vote."""


@dataclass(frozen=True)
class Member:
    """A member of the cluster."""

    node_id: int
    client_endpoint: str
    """Where clients reach it, as ``host:port``."""
    peer_endpoint: str
    """Where other nodes reach it, as ``host:port``."""
    voter: bool
    """Whether it has a vote."""
    leader: bool
    """Whether it leads."""
    matched_index: int
    """Last log index known to be on it; known to the leader only, 0 elsewhere."""
    silent: float | None
    """Time since the leader last heard from it, in seconds; known to the leader only."""


@dataclass(frozen=True)
class Members:
    """The members of the cluster."""

    header: Header
    """Who answered; names cluster, term and leader."""
    members: list[Member]
    """In order of their node ids."""


@dataclass(frozen=True)
class NodeStatus:
    """What one node knows, answered without any other node."""

    header: Header
    """Who answered; names cluster, node, term and leader."""
    role: Role
    ready: bool
    """Whether it can serve linearizable calls now."""
    applied_index: int
    """Raft index of the last entry that it has applied."""
    clock_ms: int
    """The cluster's clock in its applied state, in milliseconds."""
    alarms: list[str]
    """What is wrong, one line each; empty if nothing is."""
    version: str
    """Of the program."""


class Cluster:
    """The cluster that a client talks to."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def status(self, endpoint: str) -> NodeStatus:
        """What the node at this address (``host:port``, need not be a known one) says of itself.

        Raises:
            Unavailable: it did not answer; nobody else is asked.
        """
        runtime, deadline = self._context.engine.runtime, self._context.deadline()
        status = await runtime.ask(endpoint, calls.STATUS, cluster_pb2.StatusRequest(), deadline)
        known = {role.value for role in Role}
        return NodeStatus(
            header=Header.of(status.header),
            role=Role(status.role if status.role in known else 0),
            ready=status.ready,
            applied_index=status.applied_index,
            clock_ms=status.clock_ms,
            alarms=list(status.alarms),
            version=status.version,
        )

    async def members(self, *, local: bool = False) -> Members:
        """The members.

        Args:
            local: as some node knows them, which may be out of date; else linearizable, which needs
                a quorum.

        Raises:
            Unavailable: no node answered in time.
        """
        request = cluster_pb2.ListMembersRequest(read=common_pb2.ReadOptions(local=local))
        got = await self._context.read(calls.LIST_MEMBERS, request)
        return Members(Header.of(got.header), [_member(member) for member in got.members])


def _member(member: cluster_pb2.Member) -> Member:
    return Member(
        node_id=member.node_id,
        client_endpoint=member.client_endpoint,
        peer_endpoint=member.peer_endpoint,
        voter=member.voter,
        leader=member.leader,
        matched_index=member.matched_index,
        silent=member.silent_ms / 1000 if member.HasField("silent_ms") else None,
    )
