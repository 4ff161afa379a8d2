"""What nodes send of a level of a tree: the same cases as the Rust client's."""

from __future__ import annotations

import pytest

from holdfast._wire.objects_pb2 import LoadPiece, ObjectRecord
from holdfast.persistence import DamagedObject
from holdfast.persistence.cluster.load import _Level
from holdfast.persistence.ids import HIGHEST, LOWEST


def record(nth, body_bytes):
    found = ObjectRecord(
        id=LOWEST + nth, class_name="Task", body_bytes=body_bytes, mod_revision=nth
    )
    return LoadPiece(record=found)


def body(data):
    return LoadPiece(body=data)


def assembled(*pieces):
    level = _Level()
    for piece in pieces:
        level.take_in(piece)
    level.close()
    return [(made, record.body) for made, record in level.found.values()]


def test_bodies_come_in_pieces():
    pieces = [record(1, 3), body(b"ab"), body(b"c"), LoadPiece(missing_id=HIGHEST)]
    # One without anything is of a later release.
    pieces += [record(2, 0), LoadPiece(), record(3, 1), body(b"d")]
    assert assembled(*pieces) == [(1, b"abc"), (2, b""), (3, b"d")]


@pytest.mark.parametrize(
    "pieces",
    [
        [record(1, 3), body(b"ab")],
        [record(1, 3), body(b"ab"), record(2, 0)],
        [record(1, 1), body(b"ab")],
        [record(1, 1), body(b"a"), LoadPiece(missing_id=HIGHEST), body(b"b")],
        [body(b"ab")],
        [record(1, 2**64 - 1)],
        [LoadPiece(record=ObjectRecord())],
    ],
)
def test_what_does_not_add_up_is_refused(pieces):
    with pytest.raises(DamagedObject, match="what a node sent"):
        assembled(*pieces)
