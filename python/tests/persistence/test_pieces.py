"""What an upload sends, in which order, and how much of it at a time."""

from __future__ import annotations

import pytest

from holdfast.persistence.cluster.pieces import (
    BYTES_MAX,
    CHUNK_BYTES,
    OBJECTS_MAX,
    WINDOW_BYTES,
    WINDOW_PIECES,
    Chunk,
    Objects,
    Queue,
    plan,
)
from holdfast.persistence.record import Record


def records(*sizes):
    return [(10**15 + nth, Record("C", {}, bytes(size))) for nth, size in enumerate(sizes)]


def test_long_bodies_are_cut_and_named_behind():
    bodies, names = plan(records(3, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 0))
    assert bodies == [
        Chunk(2, 0, CHUNK_BYTES),
        Chunk(2, CHUNK_BYTES, CHUNK_BYTES + 1),
        Chunk(3, 0, CHUNK_BYTES),
        Chunk(3, CHUNK_BYTES, 2 * CHUNK_BYTES),
        Objects((0, 1, 4), has_chunks=False),
    ]
    assert names == [Objects((2, 3), has_chunks=True)]


# G9
def test_messages_hold_no_more_than_they_may():
    bodies, names = plan(records(*[0] * (OBJECTS_MAX + 1)))
    assert [len(batch.places) for batch in bodies] == [OBJECTS_MAX, 1]
    assert names == []
    # A byte is that of the class.
    full = [CHUNK_BYTES - 1, BYTES_MAX - CHUNK_BYTES - 1]
    assert [batch.places for batch in plan(records(*full))[0]] == [(0, 1)]
    full[1] += 1
    assert [batch.places for batch in plan(records(*full))[0]] == [(0,), (1,)]


# G9
@pytest.mark.parametrize(("size", "room"), [(CHUNK_BYTES, WINDOW_BYTES // CHUNK_BYTES), (1, 64)])
def test_no_more_is_on_its_way_than_may_be(size, room):
    assert WINDOW_PIECES == 64
    queue = Queue([Chunk(0, at, at + size) for at in range(100)], before=7)
    numbers = []
    while (sending := queue.next()) is not None:
        numbers.append(sending[0])
    assert numbers == list(range(8, 8 + room))
    assert queue.answer(8)
    assert queue.next()[0] == 8 + room


def test_answers_come_in_order_and_what_was_not_answered_is_sent_again():
    queue = Queue([Chunk(0, at, at + 1) for at in range(3)], before=0)
    assert not queue.answer(1), "nothing was sent"
    sent = [queue.next()[1].start for _ in range(3)]
    assert (sent, queue.next()) == ([0, 1, 2], None)
    assert not queue.answer(2)
    assert queue.answer(1)
    queue.begin_again()
    assert not queue.answer(2)
    assert [queue.next()[0], queue.next()[0], queue.next()] == [2, 3, None]
    assert not queue.is_done
    assert queue.answer(2)
    assert queue.answer(3)
    assert queue.is_done
