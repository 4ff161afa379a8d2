"""Variables with versions, read and written by optimistic transactions: Axon.STM on a cluster.

``key`` and ``value`` are how keys and values are encoded · ``queue`` the transactions of one
program.
"""

from __future__ import annotations

from .key import Key, Part, RawKey
from .value import Codec, CodecError, Content, Snapshot, Variable

__all__ = [
    "Codec",
    "CodecError",
    "Content",
    "Key",
    "Part",
    "RawKey",
    "Snapshot",
    "Variable",
]
