"""Variables with versions, read and written by optimistic transactions: Axon.STM on a cluster.

A variable has a version, which is 1 when it is created and rises by one with each write. Programs
work on copies and commit them, or give a function that reads and writes and runs again until its
commit has gone through; a commit compares and writes all, or nothing. docs/guide-stm.md begins at
the beginning.

``key`` and ``value`` are how keys and values are encoded · ``copies`` what a caller works on ·
``commit`` one commit, sent until its outcome is known · ``transact`` functions, with
``transaction`` for one run and ``queue`` for those of one store · ``reading`` reads and listings.
"""

from __future__ import annotations

from .commit import Commit, Plan
from .copies import Collection, Value, Writes
from .errors import BusyRetry, CommitUncertain, ConcurrentUpdate, NothingRead
from .key import Key, Part, RawKey
from .store import Store
from .transaction import Isolation, Transaction
from .value import Codec, CodecError, Content, Snapshot, Variable

__all__ = [
    "BusyRetry",
    "Codec",
    "CodecError",
    "Collection",
    "Commit",
    "CommitUncertain",
    "ConcurrentUpdate",
    "Content",
    "Isolation",
    "Key",
    "NothingRead",
    "Part",
    "Plan",
    "RawKey",
    "Snapshot",
    "Store",
    "Transaction",
    "Value",
    "Variable",
    "Writes",
]
