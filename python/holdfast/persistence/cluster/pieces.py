"""What an upload sends, in which messages and how much of it at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.persistence.record import Record

OBJECTS_MAX = 1024
"""Most objects of one request, or one message."""
BYTES_MAX = 1 << 20
"""Most bytes of bodies, classes and metadata of one request, or one message (1 MiB)."""
CHUNK_BYTES = 512 << 10
"""Longest chunk, in bytes (512 KiB); shorter bodies go along with their objects."""
WINDOW_BYTES = 4 << 20
"""How much may be on its way, in bytes (4 MiB): what a quick network and disk take in within a
sync."""
WINDOW_PIECES = 64
"""How many pieces may be on their way."""
_HASH_BYTES = 32


@dataclass(frozen=True)
class Chunk:
    """Bytes of a record's body."""

    place: int
    """Of the record among the records."""
    start: int
    end: int

    @property
    def bytes(self) -> int:
        """How large its message is."""
        return self.end - self.start


@dataclass(frozen=True)
class Objects:
    """Whole objects, bodies and all; or objects whose bodies are chunks."""

    places: tuple[int, ...]
    has_chunks: bool

    @property
    def bytes(self) -> int:
        """How large its message is at most."""
        return BYTES_MAX


class Queue:
    """Pieces, of which a beginning is answered.

    Args:
        pieces: What is to be sent.
        before: How many others came before them; the first one has the next number.
    """

    def __init__(self, pieces: Sequence[Chunk | Objects], before: int) -> None:
        self._pieces = pieces
        self._before = before
        self._in_flight: deque[int] = deque()
        self.answered = 0

    @property
    def is_done(self) -> bool:
        """Whether all are answered."""
        return self.answered == len(self._pieces)

    def begin_again(self) -> None:
        """What was sent and not answered is to be sent again."""
        self._in_flight.clear()

    def next(self) -> tuple[int, Chunk | Objects] | None:
        """The number and the piece that may be sent now, if there is one."""
        place = self.answered + len(self._in_flight)
        if place == len(self._pieces) or len(self._in_flight) == WINDOW_PIECES:
            return None
        piece = self._pieces[place]
        if sum(self._in_flight) + piece.bytes > WINDOW_BYTES:
            return None
        self._in_flight.append(piece.bytes)
        return self._before + place + 1, piece

    def answer(self, number: int) -> bool:
        """Takes an answer in; says whether it was its turn."""
        if number != self._before + self.answered + 1 or not self._in_flight:
            return False
        self._in_flight.popleft()
        self.answered += 1
        return True


def plan(
    records: Sequence[tuple[int, Record]],
) -> tuple[list[Chunk | Objects], list[Chunk | Objects]]:
    """What has to be sent: first bodies, some with their objects; then objects that name chunks."""
    bodies: list[Chunk | Objects] = []
    whole, chunked = _Batches(), _Batches()
    for place, (_, record) in enumerate(records):
        size = len(record.body)
        if size <= CHUNK_BYTES:
            whole.add(place, record.request_bytes)
            continue
        starts = range(0, size, CHUNK_BYTES)
        bodies += [Chunk(place, start, min(start + CHUNK_BYTES, size)) for start in starts]
        chunked.add(place, record.request_bytes - size + len(starts) * _HASH_BYTES)
    bodies += [Objects(tuple(batch), has_chunks=False) for batch in whole.batches]
    return bodies, [Objects(tuple(batch), has_chunks=True) for batch in chunked.batches]


class _Batches:
    """Objects by messages that hold no more than they may."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._bytes = 0

    def add(self, place: int, size: int) -> None:
        has_room = self.batches and len(self.batches[-1]) < OBJECTS_MAX
        if has_room and self._bytes + size <= BYTES_MAX:
            self.batches[-1].append(place)
            self._bytes += size
        else:
            self.batches.append([place])
            self._bytes = size
