"""What can go wrong with a call, in the outcomes that a caller must tell apart (G5).

A call was *applied* (it returned), *definitely not applied*, or its *outcome is unknown*;
:attr:`HoldfastError.applied` says which of the last two. Nothing here is guessed from texts.

``HoldfastError``
    ``Unavailable``     a read that no node answered in time
    ``NotApplied``      a write that reached no node, or that every node turned away: safe to repeat
    ``OutcomeUnknown``  a write that was sent and may have been applied, or may still be
    ``Refused``         a deterministic no; its subclasses are the reasons that programs tell apart
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast._wire.common_pb2 import ResponseHeader

__all__ = [
    "AlreadyClaimed",
    "Applied",
    "Attempt",
    "BadRequest",
    "Claimant",
    "Compacted",
    "CreationLost",
    "Header",
    "HeldBy",
    "HoldfastError",
    "LeaseHeld",
    "LeaseLost",
    "LimitReached",
    "NotApplied",
    "NotFound",
    "OutcomeUnknown",
    "Refused",
    "SessionExpired",
    "StaleFence",
    "Unavailable",
]


class Applied(enum.Enum):
    """Whether a call that raised may have changed something."""

    NO = "no"
    """It definitely did not, and never will."""
    UNKNOWN = "unknown"
    """It may have, or may still."""


@dataclass(frozen=True)
class Header:
    """Who answered, and what it knew: comes with every response (G6)."""

    cluster_id: str = ""
    """The cluster, a UUID in text form; empty if the node did not say."""
    node_id: int = 0
    """The node that answered."""
    revision: int = 0
    """The revision at which the answer is true."""
    term: int = 0
    """The Raft term that the node is in."""
    leader_id: int = 0
    """The leader as the node knows it; 0 while there is none."""
    leader_endpoint: str = ""
    """Where clients reach that leader, as ``host:port``; empty while there is none."""

    @classmethod
    def of(cls, header: ResponseHeader) -> Header:
        """The header of a response."""
        return cls(
            header.cluster_id,
            header.node_id,
            header.revision,
            header.term,
            header.leader_id,
            header.leader_endpoint,
        )


@dataclass(frozen=True)
class Attempt:
    """What the last copy of a call met at one endpoint."""

    endpoint: str
    """Where it was sent, as ``host:port``."""
    reason: str | None
    """The reason that the node gave, such as ``NO_LEADER``; none if it gave no answer."""
    message: str
    """Text for people."""


@dataclass(frozen=True)
class Claimant:
    """Who owns a change source."""

    master_id: int
    master_name: str
    token: int
    """The revision that granted the claim (C5)."""
    lease_id: int | None
    """The lease that the claim hangs on; none for a claim without one."""
    lease_remaining: float
    """How long that lease has to run by the cluster's clock, in seconds; 0.0 without a lease."""


@dataclass(frozen=True)
class HeldBy:
    """Who holds the lease of a master's name."""

    master_id: int
    name: str
    lease_id: int
    remaining: float
    """How long it has to run by the cluster's clock if it is not renewed, in seconds."""


class HoldfastError(Exception):
    """The base of all errors of this package."""

    applied: Applied = Applied.NO
    """Whether the call may have changed something. Failed reads change nothing."""
    reason: str | None = None
    """The stable name of a refusal's reason, such as ``STALE_FENCE``; none for other errors."""
    attempts: Sequence[Attempt] = ()
    """What happened at each endpoint, for the errors that are about reaching the cluster."""
    header: Header | None = None
    """The header of the last answer about this call."""

    @property
    def has_answer(self) -> bool:
        """Whether any node answered at all, if only to say that it could not carry the call out."""
        return self.reason is not None or any(a.reason is not None for a in self.attempts)

    @property
    def is_session_gone(self) -> bool:
        """Whether the cluster said that it does not know the session (any more)."""
        return self.reason in ("SESSION_EXPIRED", "UNKNOWN_SESSION")


class _Unreached(HoldfastError):
    """An error about reaching the cluster."""

    _label: str

    def __init__(
        self, summary: str, attempts: Sequence[Attempt] = (), header: Header | None = None
    ) -> None:
        self.summary = summary
        self.attempts = tuple(attempts)
        self.header = header
        super().__init__(summary, self.attempts, header)

    def __str__(self) -> str:
        text = f"{self._label}: {self.summary}"
        if not self.attempts:
            return text
        met = "; ".join(f"{attempt.endpoint}: {attempt.message}" for attempt in self.attempts)
        return f"{text} ({met})"


class Unavailable(_Unreached):
    """A read that no node answered in time."""

    _label = "unavailable"


class NotApplied(_Unreached):
    """A write that was definitely not applied, although nobody refused it.

    It reached no node, or every node that got it answered that it did not carry it out. Safe to
    repeat.
    """

    _label = "not applied"


class OutcomeUnknown(_Unreached):
    """A write that was sent and may have been applied, or may still be.

    Repeating it is a new write, unless it is one whose repetition does no harm.
    """

    _label = "outcome unknown"
    applied = Applied.UNKNOWN


class Refused(HoldfastError):
    """The cluster refused the call: definitely not applied.

    Repeated unchanged it will be refused again.
    """

    reason: str
    fields: Mapping[str, str]
    """What the message names, by field: the values, the limits, the holder."""

    def __init__(
        self,
        reason: str,
        message: str,
        fields: Mapping[str, str] | None = None,
        header: Header | None = None,
    ) -> None:
        self.reason = reason
        self.message = message
        self.fields = dict(fields or {})
        self.header = header
        super().__init__(reason, message, self.fields, header)

    def __str__(self) -> str:
        return self.message


class NotFound(Refused):
    """There is no such object, master, change source, upload or member."""


class BadRequest(Refused):
    """The request itself is wrong: a name, a value or a number is out of its bounds (G11)."""


class LimitReached(Refused):
    """The cluster has as many, or as much, as it may have (G9)."""


class StaleFence(Refused):
    """The claim that the write was fenced with has moved on (S8)."""


class CreationLost(Refused):
    """The right to create a value was lost before the value was written (S5)."""


class Compacted(Refused):
    """No node remembers far enough back for this watch (W2): read the state, watch from there."""

    @property
    def oldest(self) -> int:
        """The first revision that the node still has all changes from."""
        return int(self.fields.get("oldest", "0"))


class SessionExpired(Refused):
    """The write's session had expired, and the write was definitely not applied (G4).

    It is never run in another session by the library; the next write opens a new one.
    """


class LeaseLost(Refused):
    """A lease has ended, so what depends on it did not go on (M3, M5).

    ``applied`` says whether the call may have been carried out before the loss was seen.
    """

    def __init__(
        self,
        reason: str = "LEASE_LOST",
        message: str = "the lease is lost; open a new one",
        fields: Mapping[str, str] | None = None,
        header: Header | None = None,
        *,
        applied: Applied = Applied.NO,
    ) -> None:
        super().__init__(reason, message, fields, header)
        self.applied = applied


class AlreadyClaimed(Refused):
    """Somebody owns the change source; nothing changed (C2)."""

    def __init__(self, claimant: Claimant, header: Header | None = None) -> None:
        message = (
            f"already claimed by master {claimant.master_name!r} (id {claimant.master_id}) "
            f"under token {claimant.token}"
        )
        super().__init__("ALREADY_CLAIMED", message, None, header)
        self.claimant = claimant
        self.args = (claimant, header)


class LeaseHeld(Refused):
    """Another instance holds a live lease of that master's name; nothing changed (M3)."""

    def __init__(self, held_by: HeldBy, header: Header | None = None) -> None:
        message = (
            f"master {held_by.name!r} is run by another instance, whose lease {held_by.lease_id} "
            f"has {held_by.remaining:.1f} s to run; stop it, or give this one another name"
        )
        super().__init__("LEASE_HELD", message, None, header)
        self.held_by = held_by
        self.args = (held_by, header)


_BY_REASON: dict[str, type[Refused]] = {
    "SESSION_EXPIRED": SessionExpired,
    "UNKNOWN_SESSION": SessionExpired,
    "STALE_FENCE": StaleFence,
    "CREATION_LOST": CreationLost,
    "COMPACTED": Compacted,
    "LEASE_LOST": LeaseLost,
}
_BY_CODE: dict[int, type[Refused]] = {
    3: BadRequest,  # INVALID_ARGUMENT
    5: NotFound,  # NOT_FOUND
    8: LimitReached,  # RESOURCE_EXHAUSTED
}


def refused(
    reason: str,
    code: int,
    message: str,
    fields: Mapping[str, str],
    header: Header | None,
) -> Refused:
    """The error of a refusal: its reason's class, or else its gRPC status code's."""
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code) or Refused
    return kind(reason, message, fields, header)
