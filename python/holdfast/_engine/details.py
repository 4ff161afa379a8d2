"""The details that come with every status of a node: ``google.rpc.Status`` with an ``ErrorInfo``.

Read by hand, since the packages that hold these two messages would tie users to their own versions
of grpcio and protobuf. The wire format is that of protobuf (its encoding guide), of which only
what these messages use is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ErrorInfo(NamedTuple):
    """Why a call was not carried out, for programs."""

    reason: str
    domain: str
    metadata: dict[str, str]


def error_info(status: bytes) -> ErrorInfo | None:
    """The ``ErrorInfo`` in an encoded ``google.rpc.Status``; None if none can be read."""
    try:
        for number, value in _fields(status):
            if number != 3:
                continue
            packed = dict(_fields(value))
            if packed.get(1, b"").decode() == _ERROR_INFO:
                return _read(packed.get(2, b""))
    except (IndexError, UnicodeDecodeError, ValueError):
        return None
    return None


def _read(encoded: bytes) -> ErrorInfo:
    texts = {1: "", 2: ""}
    metadata: dict[str, str] = {}
    for number, value in _fields(encoded):
        if number == 3:
            entry = dict(_fields(value))
            metadata[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
        else:
            texts[number] = value.decode()
    return ErrorInfo(texts[1], texts[2], metadata)


def _fields(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that are bytes, texts or messages; others are passed over."""
    at = 0
    while at < len(encoded):
        tag, at = _varint(encoded, at)
        kind = tag & 0x7
        if kind == _BYTES:
            size, at = _varint(encoded, at)
            if at + size > len(encoded):
                raise ValueError("a message is cut short")
            yield tag >> 3, encoded[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _varint(encoded, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = encoded[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
