"""What one node said about one copy of a call, and how far that reaches.

This is the inverse of the node's map from refusals to gRPC statuses.

Invariants:
- Only a status that carries Holdfast's own ``ErrorInfo`` with ``applied = no`` is a definite answer
  (or UNIMPLEMENTED, with which a server says that it has no such method). Anything else, broken
  connections first of all, leaves the outcome of that copy unknown (G5).
- Nothing is guessed from message texts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from holdfast import errors
from holdfast._engine import details, rpc
from holdfast.errors import Header, Refused

if TYPE_CHECKING:
    from holdfast._engine.rpc import Status

_DOMAIN = "holdfast"
"""The ``domain`` of every ``ErrorInfo`` that a Holdfast node attaches."""
SILENCE = "no answer"
"""What is reported of an endpoint that has a copy of the call and says nothing."""
FOREIGN = "FOREIGN_CLUSTER"
"""The reason reported of an endpoint that belongs to another cluster."""

_HEADER_FIELDS = frozenset(
    {"applied", "cluster_id", "node_id", "leader_id", "leader_endpoint", "revision", "term"}
)


class Fate(enum.Enum):
    """What became of one copy."""

    REFUSED = enum.auto()
    """This copy changed nothing, and the node says why."""
    ELSEWHERE = enum.auto()
    """The node cannot carry calls out at present; this copy changed nothing."""
    UNKNOWN = enum.auto()
    """Nobody knows."""
    NOT_SENT = enum.auto()
    """This copy never left, or certainly never reached a node's code."""


class Reach(enum.Enum):
    """How far a refusal reaches."""

    REQUEST = enum.auto()
    """Follows from the request alone: every copy of it is refused."""
    OUTCOME = enum.auto()
    """Decided when the write was applied and remembered under its seq, if it went through the
    log, as every resent copy does: every copy gets the same answer."""
    FORGOTTEN = enum.auto()
    """The session or the seq is gone from the cluster's memory: no copy will be answered again."""
    COPY = enum.auto()
    """About this copy alone: another one may fare differently."""


_FORGOTTEN = frozenset({"SESSION_EXPIRED", "UNKNOWN_SESSION", "STALE_SEQ"})
_OUTCOME = frozenset(
    {
        "TOO_MANY_CLAIMS",
        "TOO_MANY_WAITERS",
        "TOO_MANY_PLACES",
        "TOO_MANY_MEMBERS",
        "TOO_MANY_CREATORS",
        "TOO_MANY_UPLOADS",
        "UNISSUED_ID",
    }
)


@dataclass(frozen=True)
class Answer:
    """What one node said about one copy of a call that it did not carry out."""

    fate: Fate
    message: str
    reason: str | None = None
    """None if the node did not answer."""
    code: int = rpc.UNKNOWN
    fields: dict[str, str] = field(default_factory=dict)
    header: Header | None = None

    def in_foreign_cluster(self, message: str) -> Answer:
        """What it is worth from a node of another cluster, which did nothing in ours."""
        if self.fate == Fate.NOT_SENT:
            return replace(self, message=message, header=None)
        fate = Fate.ELSEWHERE if self.fate == Fate.REFUSED else self.fate
        return Answer(fate, message, FOREIGN)

    def reach(self) -> Reach:
        """How far it reaches, if it is a refusal."""
        if self.reason in _FORGOTTEN:
            return Reach.FORGOTTEN
        if self.reason in _OUTCOME:
            return Reach.OUTCOME
        if self.reason == "TRANSACTION_TOO_LARGE" or self.code == rpc.INVALID_ARGUMENT:
            return Reach.REQUEST
        if self.code in (rpc.NOT_FOUND, rpc.FAILED_PRECONDITION):
            return Reach.OUTCOME
        return Reach.COPY

    def error(self) -> Refused:
        """The error of a call that was refused with this."""
        reason = self.reason or ""
        return errors.refused(reason, self.code, self.message, self.fields, self.header)


def tells_of_lost_session(error: errors.HoldfastError) -> bool:
    """Whether a node does not know the session any more, of a write that may have been applied."""
    return any(attempt.reason in _FORGOTTEN for attempt in error.attempts)


def read(status: Status) -> Answer:
    """Reads a status, from whoever made it: a node, or the connection on this side."""
    if not status.is_sent:
        return Answer(Fate.NOT_SENT, status.message)
    info = details.error_info(status.details) if status.details else None
    if info is None or info.domain != _DOMAIN:
        return _read_bare(status)
    header = _header(info.metadata)
    if info.metadata.get("applied") != "no":
        return Answer(Fate.UNKNOWN, status.message, info.reason, status.code, header=header)
    if status.code == rpc.UNAVAILABLE or info.reason == "OVERLOADED":
        return Answer(Fate.ELSEWHERE, status.message, info.reason, status.code, header=header)
    fields = {name: text for name, text in info.metadata.items() if name not in _HEADER_FIELDS}
    return Answer(Fate.REFUSED, status.message, info.reason, status.code, fields, header)


def _read_bare(status: Status) -> Answer:
    """A status without Holdfast's details: from the connection, or another kind of server."""
    if status.code == rpc.UNIMPLEMENTED:
        message = "the server does not know this call; is it a holdfast node of this version?"
        return Answer(Fate.REFUSED, message, "UNIMPLEMENTED", status.code)
    # With these either side says that the time was up.
    is_late = status.code in (rpc.CANCELLED, rpc.DEADLINE_EXCEEDED)
    return Answer(Fate.UNKNOWN, SILENCE if is_late else status.message, code=status.code)


def _header(metadata: dict[str, str]) -> Header:
    def number(name: str) -> int:
        text = metadata.get(name, "")
        return int(text) if text.isdigit() else 0

    return Header(
        cluster_id=metadata.get("cluster_id", ""),
        node_id=number("node_id"),
        revision=number("revision"),
        term=number("term"),
        leader_id=number("leader_id"),
        leader_endpoint=metadata.get("leader_endpoint", ""),
    )
