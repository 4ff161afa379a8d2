"""An object as every store keeps it: a class, metadata and one body of bytes (docs/formats.md).

References to children stand in front of the body, 8 bytes each, big-endian. Metadata names that
begin with ``_`` are ours:

- ``_children`` how many references there are, in decimal; not there if there are none
- ``_codec`` ``pickle``: the object is a Python object; not there: it is plain bytes
- ``_signature`` what proves that somebody who has the key wrote all of it

Stores of other languages keep the same form, and read what is plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.persistence import ids
from holdfast.persistence.errors import DamagedObject, ObjectTooLarge, UnstorableObject

BODY_BYTES_MAX = 64 << 20
"""Longest body, in bytes, references included (64 MiB): what a node takes."""
NAME_BYTES_MAX = 1024
"""Longest name of a class or a metadata entry, in bytes."""
METADATA_MAX = 64
"""Most metadata entries, ours included."""
METADATA_BYTES_MAX = 8 << 10
"""Most bytes of names and values of all metadata entries together."""

CHILDREN = "_children"
CODEC = "_codec"
SIGNATURE = "_signature"

_REFERENCE_BYTES = 8
_COUNT_DIGITS_MAX = 8
"""Of the number of references: a body has no room for more than 8,388,608."""


@dataclass
class Record:
    """An object as it is kept."""

    class_name: str
    metadata: dict[str, str]
    body: bytes

    @property
    def request_bytes(self) -> int:
        """What it adds to a request, as the cluster counts it."""
        return text_bytes(self.class_name) + metadata_bytes(self.metadata) + len(self.body)


@dataclass
class Encoded:
    """An object of which all is known but the ids of its children."""

    class_name: str
    metadata: dict[str, str]
    """With those of ours that do not depend on ids."""
    payload: bytes
    """The body without the references."""
    children: int
    """How many references there will be."""

    def check(self) -> None:
        """Checks it against all limits; a signature that comes later counts as well.

        Raises:
            ObjectTooLarge: It states both numbers.
            UnstorableObject: A name is empty, or begins as only ours do.
        """
        names = [self.class_name, *self.metadata]
        if not all(names):
            why = "its class or the name of a metadata entry is empty"
            raise UnstorableObject(self.class_name, why)
        try:
            longest = max(map(text_bytes, names))
            metadata = metadata_bytes(self.metadata)
        except UnicodeEncodeError as error:
            raise UnstorableObject(self.class_name, str(error)) from error
        whose = f"of an object of class {self.class_name!r} are"
        _at_most("the bytes of the longest name of an object are", longest, NAME_BYTES_MAX)
        _at_most(f"the metadata entries {whose}", len(self.metadata), METADATA_MAX)
        _at_most(f"the metadata bytes {whose}", metadata, METADATA_BYTES_MAX)
        body = len(self.payload) + self.children * _REFERENCE_BYTES
        _at_most(f"the body bytes {whose}", body, BODY_BYTES_MAX)

    def rename(self, class_name: str) -> None:
        """Keeps it under another class.

        Raises:
            ObjectTooLarge: As :meth:`check`.
        """
        self.class_name = class_name
        self.check()

    def with_children(self, children: Sequence[int]) -> Record:
        """The object, with the ids of its children, of which there are as many as it has."""
        assert len(children) == self.children, "each child has an id"
        references = b"".join(child.to_bytes(_REFERENCE_BYTES, "big") for child in children)
        return Record(self.class_name, self.metadata, references + self.payload)


@dataclass
class Stored:
    """An object as it came out of a store, taken apart."""

    id: int
    record: Record
    """As it is kept."""
    metadata: dict[str, str]
    """Without ours."""
    payload: bytes
    children: list[int] = field(default_factory=list)
    codec: str = ""
    """How the payload is to be read; empty: it is plain bytes."""


def encoded(
    class_name: str,
    metadata: Mapping[str, str],
    payload: bytes,
    children: int,
    ours: Mapping[str, str],
) -> Encoded:
    """An object that has been checked against all limits.

    Raises:
        ObjectTooLarge: Nothing was sent or written.
        UnstorableObject: As above.
    """
    for name in metadata:
        if name.startswith("_"):
            why = f"the metadata name {name!r} begins with _, as only our own do"
            raise UnstorableObject(class_name, why)
    counted = {CHILDREN: str(children)} if children else {}
    made = Encoded(class_name, {**metadata, **ours, **counted}, payload, children)
    made.check()
    return made


def split(id_: int, record: Record) -> Stored:
    """Takes the references and our metadata off.

    Raises:
        DamagedObject: The references are not there.
    """
    count = record.metadata.get(CHILDREN, "0")
    what = f"object {id_}"
    is_count = count.isascii() and count.isdigit() and len(count) <= _COUNT_DIGITS_MAX
    end = int(count) * _REFERENCE_BYTES if is_count else -1
    if not 0 <= end <= len(record.body):
        how = f"it has {len(record.body)} bytes, and {count} references in them"
        raise DamagedObject(what, how)
    starts = range(0, end, _REFERENCE_BYTES)
    children = [int.from_bytes(record.body[at : at + _REFERENCE_BYTES], "big") for at in starts]
    for child in children:
        if not ids.is_id(child):
            raise DamagedObject(what, f"one of its references is {child}, which is no id")
    payload = record.body[end:] if end else record.body
    codec = record.metadata.get(CODEC, "")
    return Stored(id_, record, own_metadata(record.metadata), payload, children, codec)


def own_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without what is ours."""
    return {name: value for name, value in metadata.items() if not name.startswith("_")}


def text_bytes(text: str) -> int:
    """The bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def metadata_bytes(metadata: Mapping[str, str]) -> int:
    """The bytes of all names and values."""
    return sum(text_bytes(name) + text_bytes(value) for name, value in metadata.items())


def _at_most(what: str, actual: int, allowed: int) -> None:
    if actual > allowed:
        raise ObjectTooLarge(what, actual, allowed)
