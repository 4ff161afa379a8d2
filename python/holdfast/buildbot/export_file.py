"""The file of an export: JSON lines, of which the first says where the rows are from.

The format is in docs/formats.md; cli/src/export_file.rs reads and writes the same. Numbers of 64
bits are texts, values that are not UTF-8 are base64, and the last line counts the rows and has a
CRC-32 of everything above it: a file that is cut short or was changed is found out, and whoever
reads learns at which line.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from holdfast.transfer import ChangeSourceRow, MasterRow, ObjectRow, Row, ValueRow

SCHEMA = "holdfast.export/v1"
"""What the first line says."""

LINE_BYTES_MAX = 8 << 20
"""Longest line: the largest value, with each byte spelt as ``\\u0000``, and its names."""


class BadExportError(ValueError):
    """A file is no export, or not a whole one.

    ``line`` counts from 1 on; ``what`` is for people.
    """

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line = line
        self.what = what


@dataclass(frozen=True)
class Head:
    """Where the rows of a file are from: a namespace of a cluster, as it was at ``revision``."""

    cluster_id: str
    namespace: str
    revision: int


_COUNTED = {
    MasterRow: "masters",
    ChangeSourceRow: "changesources",
    ObjectRow: "objects",
    ValueRow: "state",
}


def _no_rows() -> dict[str, int]:
    return dict.fromkeys(_COUNTED.values(), 0)


class Writer:
    """Writes a file: the head at once, then ``row`` for each row, then ``end``."""

    def __init__(self, out: BinaryIO, head: Head) -> None:
        self._out = out
        self._crc = 0
        self._rows = _no_rows()
        self._line(
            {
                "schema": SCHEMA,
                "cluster_id": head.cluster_id,
                "namespace": head.namespace,
                "revision": str(head.revision),
            }
        )

    def row(self, row: Row) -> None:
        """Adds a row."""
        self._rows[_COUNTED[type(row)]] += 1
        self._line(_members(row))

    def end(self) -> None:
        """Ends the file, which is not whole before."""
        rows = {kind: str(count) for kind, count in self._rows.items()}
        self._line({"kind": "end", "rows": rows, "crc32": f"{self._crc:08x}"})
        self._out.flush()

    def _line(self, members: Mapping[str, object]) -> None:
        text = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
        line = text.encode("utf-8") + b"\n"
        self._crc = zlib.crc32(line, self._crc)
        self._out.write(line)


def _members(row: Row) -> dict[str, object]:
    if isinstance(row, MasterRow):
        active = str(row.last_active_ms)
        return {"kind": "master", "id": str(row.id), "name": row.name, "last_active_ms": active}
    if isinstance(row, ChangeSourceRow):
        group = row.group
        return {"kind": "changesource", "id": str(row.id), "name": row.name, "group": group}
    if isinstance(row, ObjectRow):
        class_name = row.class_name
        return {"kind": "object", "id": str(row.id), "name": row.name, "class": class_name}
    value: object
    try:
        value = row.value.decode("utf-8")
    except UnicodeDecodeError:
        value = {"base64": base64.b64encode(row.value).decode("ascii")}
    return {"kind": "state", "object_id": str(row.object_id), "key": row.name, "value": value}


class Reader:
    """Reads a file: the head at once, then its rows with their lines.

    Raises ``BadExportError`` at the line that cannot be used. The file is whole once the iteration
    has ended.
    """

    head: Head
    """Where the rows are from."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._crc = 0
        self._number = 0
        self._rows = _no_rows()
        line = self._next_line()
        if line is None:
            raise self._bad("the file is empty")
        members = _Members.of(self._number, line)
        schema = members.text("schema")
        if schema != SCHEMA:
            raise self._bad(f"the schema is {schema!r}; this program reads {SCHEMA!r}")
        self.head = Head(
            members.text("cluster_id"), members.text("namespace"), members.number("revision")
        )
        members.are_all()

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        while True:
            above = self._crc
            line = self._next_line()
            if line is None:
                raise self._bad("the file ends without its last line: it was cut short")
            members = _Members.of(self._number, line)
            kind = members.text("kind")
            if kind == "end":
                self._check_end(members, above)
                return
            row = self._row(kind, members)
            members.are_all()
            self._rows[_COUNTED[type(row)]] += 1
            yield self._number, row

    def _row(self, kind: str, members: _Members) -> Row:
        if kind == "master":
            return MasterRow(
                members.number("id"), members.text("name"), members.number("last_active_ms")
            )
        if kind == "changesource":
            return ChangeSourceRow(
                members.number("id"), members.text("name"), members.optional_text("group")
            )
        if kind == "object":
            return ObjectRow(members.number("id"), members.text("name"), members.text("class"))
        if kind == "state":
            return ValueRow(
                members.number("object_id"), members.text("key"), members.value("value")
            )
        raise self._bad(f"there are no rows of kind {kind!r}")

    def _check_end(self, members: _Members, crc: int) -> None:
        counted = members.take("rows")
        crc32 = members.text("crc32")
        members.are_all()
        if counted != {kind: str(count) for kind, count in self._rows.items()}:
            raise self._bad(f"it counts {counted}, and above are {self._rows}")
        if crc32 != f"{crc:08x}":
            raise self._bad(
                f"it has the checksum {crc32}, and the lines above have {crc:08x}: one of them "
                "was changed"
            )
        if self._next_line() is not None:
            raise self._bad("it comes behind the last line")

    def _next_line(self) -> bytes | None:
        self._number += 1
        line = self._source.readline(LINE_BYTES_MAX)
        if not line:
            return None
        if not line.endswith(b"\n"):
            if len(line) == LINE_BYTES_MAX:
                raise self._bad(f"it is longer than {LINE_BYTES_MAX} bytes")
            raise self._bad("it has no end: the file was cut short")
        self._crc = zlib.crc32(line, self._crc)
        return line

    def _bad(self, what: str) -> BadExportError:
        return BadExportError(self._number, what)


class _Members:
    """The members of one line, each taken once."""

    def __init__(self, number: int, members: dict[str, Any]) -> None:
        self._number = number
        self._members = members

    @classmethod
    def of(cls, number: int, line: bytes) -> _Members:
        """Raises ``BadExportError`` if the line is no object of JSON."""
        try:
            members = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise BadExportError(number, f"it is no JSON: {error}") from error
        if not isinstance(members, dict):
            raise BadExportError(number, "it is no object of JSON")
        return cls(number, members)

    def take(self, name: str) -> Any:
        if name not in self._members:
            raise self._bad(f"it has no member {name}")
        return self._members.pop(name)

    def text(self, name: str) -> str:
        found = self.take(name)
        if not isinstance(found, str):
            raise self._bad(f"{name} is {found!r}, which is no text")
        try:
            found.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self._bad(f"{name} is no text: {error}") from error
        return found

    def optional_text(self, name: str) -> str | None:
        if self._members.get(name, self) is None:
            del self._members[name]
            return None
        return self.text(name)

    def number(self, name: str) -> int:
        text = self.text(name)
        if not (text.isascii() and text.isdigit()):
            raise self._bad(f"{name} is {text!r}, which is no number")
        return int(text)

    def value(self, name: str) -> bytes:
        found = self._members.get(name)
        if not isinstance(found, dict):
            return self.text(name).encode("utf-8")
        members = _Members(self._number, self.take(name))
        text = members.text("base64")
        members.are_all()
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._bad(f"{name} is no base64: {error}") from error

    def are_all(self) -> None:
        if self._members:
            raise self._bad(
                f"it has members that are not known: {', '.join(sorted(self._members))}"
            )

    def _bad(self, what: str) -> BadExportError:
        return BadExportError(self._number, what)
