"""Client of Holdfast, a Raft-replicated store of coordination state.

Nothing here connects at import or in a constructor (B2).
"""

from __future__ import annotations

from holdfast.client import Client
from holdfast.errors import (
    AlreadyClaimed,
    Applied,
    Attempt,
    BadRequest,
    Claimant,
    Compacted,
    CreationLost,
    Header,
    HeldBy,
    HoldfastError,
    LeaseHeld,
    LeaseLost,
    LimitReached,
    NotApplied,
    NotFound,
    OutcomeUnknown,
    Refused,
    SessionExpired,
    StaleFence,
    Unavailable,
)

__all__ = [
    "AlreadyClaimed",
    "Applied",
    "Attempt",
    "BadRequest",
    "Claimant",
    "Client",
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
