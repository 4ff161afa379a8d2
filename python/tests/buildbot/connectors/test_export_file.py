"""Exports in Python: what is written is what is read, and whatever is not is found out (S7)."""

from __future__ import annotations

import io
import json
import zlib

import pytest

from holdfast.buildbot.export_file import LINE_BYTES_MAX, BadExportError, Head, Reader, Writer
from holdfast.transfer import ChangeSourceRow, MasterRow, ObjectRow, Row, ValueRow

HEAD = Head("c", "default", 2**64 - 1)
ROWS: list[Row] = [
    MasterRow(1, "a", 1_700_000_000_000),
    ChangeSourceRow(2, "b", None),
    ChangeSourceRow(3, "c", "g"),
    ObjectRow(1 << 53, "d", "e"),
    ValueRow(1 << 53, "text", "NaN \\ud800 \U0001f600\n\0".encode()),
    ValueRow(1 << 53, "bytes", b"\xff\x00\n"),
    ValueRow(1 << 53, "empty", b""),
]
# The same bytes as in cli/src/export_file.rs: both programs read each other's files.
LINES = (
    rb"""
{"schema":"holdfast.export/v1","cluster_id":"c","namespace":"default","revision":"18446744073709551615"}
{"kind":"master","id":"1","name":"a","last_active_ms":"1700000000000"}
{"kind":"changesource","id":"2","name":"b","group":null}
{"kind":"changesource","id":"3","name":"c","group":"g"}
{"kind":"object","id":"9007199254740992","name":"d","class":"e"}
{"kind":"state","object_id":"9007199254740992","key":"text","value":"NaN \\ud800 %s\n\u0000"}
{"kind":"state","object_id":"9007199254740992","key":"bytes","value":{"base64":"/wAK"}}
{"kind":"state","object_id":"9007199254740992","key":"empty","value":""}
""".lstrip()
    % "\U0001f600".encode()
)
COUNTS = '{"masters":"1","changesources":"2","objects":"1","state":"3"}'
FILE = LINES + f'{{"kind":"end","rows":{COUNTS},"crc32":"{zlib.crc32(LINES):08x}"}}\n'.encode()


def written() -> bytes:
    out = io.BytesIO()
    writer = Writer(out, HEAD)
    for row in ROWS:
        writer.row(row)
    writer.end()
    return out.getvalue()


def read(file: bytes) -> list[Row]:
    return [row for _, row in Reader(io.BytesIO(file))]


def bad(file: bytes) -> BadExportError:
    with pytest.raises(BadExportError) as raised:
        read(file)
    return raised.value


# S7
def test_what_is_written_is_what_the_command_writes() -> None:
    assert written() == FILE


# S7
def test_what_the_command_writes_is_read() -> None:
    reader = Reader(io.BytesIO(FILE))
    assert reader.head == HEAD
    assert list(reader) == list(enumerate(ROWS, start=2))


# S7 G11
def test_a_file_cut_anywhere_is_refused_at_its_last_line() -> None:
    for length in range(len(FILE)):
        assert bad(FILE[:length]).line == FILE[:length].count(b"\n") + 1, length


# S7 G11
def test_a_file_with_any_byte_changed_is_refused() -> None:
    for place in range(len(FILE)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(FILE)
            changed[place] ^= flip
            bad(bytes(changed))


# S7 G11
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schema": "holdfast.export/v2"}, "the schema is 'holdfast.export/v2'"),
        ({"revision": 7}, "revision is 7, which is no text"),
        ({"revision": "-7"}, "revision is '-7', which is no number"),
        ({"more": 1, "still": 2}, "members that are not known: more, still"),
        ({"namespace": "\ud800"}, "namespace is no text"),
    ],
)
def test_errors_say_what_is_wrong(change: dict[str, object], what: str) -> None:
    head, rest = FILE.split(b"\n", 1)
    changed = json.dumps({**json.loads(head), **change}).encode() + b"\n" + rest
    error = bad(changed)
    assert error.line == 1
    assert what in error.what


# S7 G11
def test_errors_name_the_line() -> None:
    lines = FILE.splitlines(keepends=True)
    missing = bad(b"".join([*lines[:2], *lines[3:]]))
    assert (missing.line, "'changesources': 1" in missing.what) == (8, True)
    swapped = bad(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    assert (swapped.line, "checksum" in swapped.what) == (9, True)
    more = bad(FILE + lines[1])
    assert (more.line, more.what) == (10, "it comes behind the last line")
    odd = bad(lines[0] + b'{"kind":"tree"}\n')
    assert (odd.line, odd.what) == (2, "there are no rows of kind 'tree'")
    nothing = bad(lines[0] + b"[]\n")
    assert (nothing.line, nothing.what) == (2, "it is no object of JSON")


# G9
def test_a_line_without_end_is_not_read_to_its_end() -> None:
    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= LINE_BYTES_MAX
            return b"x" * size

    with pytest.raises(BadExportError, match=f"longer than {LINE_BYTES_MAX} bytes"):
        Reader(Endless())  # type: ignore[arg-type]
