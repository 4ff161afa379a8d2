"""The bytes of a file that holds an object (docs/formats.md).

::

    0   8  magic "hfobject"
    8   4  version, 1
    12  4  length of the head
    16  8  the object's id
    24  8  length of the body
    32  4  CRC-32 of the body
    36  4  CRC-32 of all before this and of the head
    40     head: class, number of metadata entries, then name and value of each;
           a text is its length (4) and its bytes
           body

All numbers are big-endian. A head can be read and checked without its body, for listings.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from holdfast.persistence.backend import Head
from holdfast.persistence.errors import DamagedObject
from holdfast.persistence.record import BODY_BYTES_MAX, Record

_MAGIC = b"hfobject"
_VERSION = 1
_FRAME = struct.Struct(">8sIIQQI")
"""All in front of the head but its last number, the checksum."""
_NUMBER = struct.Struct(">I")
_HEAD_BYTES_MAX = 10 << 10
"""Longest head, in bytes: a class, and 64 metadata entries of 8 KiB in all, with their lengths."""


def encode_head(id_: int, record: Record) -> bytes:
    """All but the body of a file."""
    texts = [text for entry in sorted(record.metadata.items()) for text in entry]
    head = b"".join(
        [
            _encode_text(record.class_name),
            _NUMBER.pack(len(record.metadata)),
            *map(_encode_text, texts),
        ]
    )
    body = record.body
    frame = _FRAME.pack(_MAGIC, _VERSION, len(head), id_, len(body), zlib.crc32(body))
    return frame + _NUMBER.pack(zlib.crc32(head, zlib.crc32(frame))) + head


def read_head(file: BinaryIO, id_: int, path: str) -> tuple[Head, int]:
    """All but the body of the file that holds this object, and the checksum of its body.

    Raises:
        DamagedObject: It names the path.
    """
    frame = _read(file, _FRAME.size, path)
    (checksum,) = _NUMBER.unpack(_read(file, _NUMBER.size, path))
    magic, version, head_bytes, whose, body_bytes, body_checksum = _FRAME.unpack(frame)
    if magic != _MAGIC:
        raise DamagedObject(path, "it is no object of this kind of store")
    if version != _VERSION:
        how = f"it has format version {version}, and this program reads {_VERSION}"
        raise DamagedObject(path, how)
    if head_bytes > _HEAD_BYTES_MAX:
        raise DamagedObject(path, f"its head has {head_bytes} bytes")
    head = _read(file, head_bytes, path)
    if zlib.crc32(head, zlib.crc32(frame)) != checksum:
        raise DamagedObject(path, "the checksum of its head is wrong")
    if whose != id_:
        raise DamagedObject(path, f"it holds the object {whose}")
    try:
        class_name, metadata = _parse(head)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise DamagedObject(path, "its head makes no sense") from error
    return Head(id_, class_name, metadata, body_bytes), body_checksum


def read_object(file: BinaryIO, id_: int, path: str) -> Record:
    """The object of a file.

    Raises:
        DamagedObject: It names the path.
    """
    head, checksum = read_head(file, id_, path)
    size = head.body_bytes
    if size > BODY_BYTES_MAX:
        raise DamagedObject(path, f"its body has {size} bytes")
    # One more, to see whether there is more.
    body = file.read(size + 1)
    if len(body) != size:
        more = "more" if len(body) > size else "less"
        raise DamagedObject(path, f"there is {more} of it than the {size} bytes of its body")
    if zlib.crc32(body) != checksum:
        raise DamagedObject(path, "the checksum of its body is wrong")
    return Record(head.class_name, head.metadata, body)


def _read(file: BinaryIO, size: int, path: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise DamagedObject(path, "it is cut short")
    return data


def _encode_text(text: str) -> bytes:
    data = text.encode()
    return _NUMBER.pack(len(data)) + data


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    class_name, at = _text_at(head, 0)
    (entries,) = _NUMBER.unpack_from(head, at)
    at += _NUMBER.size
    metadata = {}
    for _ in range(entries):
        name, at = _text_at(head, at)
        metadata[name], at = _text_at(head, at)
    if at != len(head):
        raise IndexError(at)
    return class_name, metadata


def _text_at(head: bytes, at: int) -> tuple[str, int]:
    """A text, and where it ends."""
    (size,) = _NUMBER.unpack_from(head, at)
    start = at + _NUMBER.size
    end = start + size
    if end > len(head):
        raise IndexError(end)
    return head[start:end].decode(), end
