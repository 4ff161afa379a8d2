"""Objects that do not fit into one request: staged piece by piece, then made visible together.

# The model
The pieces are numbered. The cluster answers them in order, each once it is durable, so what it has
answered is always a beginning of them. A stream that breaks or falls silent is followed by another
one, to another node if there is one, from the first piece on that was not answered; pieces that
come twice change nothing.

What has to be sent is in ``pieces``: large bodies come as chunks, named by their BLAKE3 hashes, and
the objects that name them only when all chunks have been answered: so a chunk that is named is
there, whatever happened to the streams.

# Invariants
- Beside the records only what is on its way is in memory.
- It is given up when no piece has been answered for as long as the store waits.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from blake3 import blake3

from holdfast._engine import calls
from holdfast._engine.engine import Exchange
from holdfast._wire import objects_pb2 as proto
from holdfast.errors import Applied, HoldfastError, NotApplied, Unavailable
from holdfast.persistence.cluster.pieces import Chunk, Objects, Queue, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.persistence.cluster.link import Link
    from holdfast.persistence.record import Record

_SILENCE_MAX = 5.0
"""Silence after which another node is tried, in seconds: longer than an election, and than a slow
disk takes for what is on its way."""
_PAUSE_FIRST = 0.02
"""Pause after a stream on which nothing was answered, in seconds; doubles with each such stream."""
_PAUSE_MAX = 0.4
_ABANDON_WITHIN = 1.0
"""How long the end of an upload that failed may take, in seconds; it lapses by itself anyway."""

_Stream = Exchange[proto.UploadRequest, proto.UploadResponse]


def upload(link: Link, records: Sequence[tuple[int, Record]]) -> None:
    """Saves all records, or none.

    Raises:
        HoldfastError: Its ``applied`` says whether they may be there; refused for the reason
            ``UNKNOWN_UPLOAD``, it lapsed on the cluster's side and can be begun anew.
    """
    opening = proto.OpenUploadRequest(namespace=link.location.namespace)
    opened = link.prepare(calls.OPEN_UPLOAD, opening)
    staging = _Upload(link, opened.upload_id, records)
    try:
        staging.stage()
        staging.commit()
    except HoldfastError as error:
        if error.applied is Applied.NO:
            staging.abandon()
        raise


class _Upload:
    def __init__(self, link: Link, upload_id: int, records: Sequence[tuple[int, Record]]) -> None:
        self._link = link
        self._upload_id = upload_id
        self._records = records
        self._avoid: str | None = None
        self._hashes: dict[int, dict[int, bytes]] = {}
        """Of the chunks of large bodies, by the places of their records and by where they begin."""

    def stage(self) -> None:
        bodies, names = plan(self._records)
        self._stage_all(bodies, 0)
        self._stage_all(names, len(bodies))

    def commit(self) -> None:
        request = proto.CommitUploadRequest(
            namespace=self._link.location.namespace,
            upload_id=self._upload_id,
            objects=len(self._records),
        )
        self._link.write(calls.COMMIT_UPLOAD, request)

    def abandon(self) -> None:
        """Tells the cluster that nothing more will come, if it listens."""
        request = proto.AbandonUploadRequest(
            namespace=self._link.location.namespace, upload_id=self._upload_id
        )
        with suppress(HoldfastError):
            self._link.write(calls.ABANDON_UPLOAD, request, _ABANDON_WITHIN)

    def _stage_all(self, pieces: Sequence[Chunk | Objects], before: int) -> None:
        """Stages pieces, whose numbers follow these that came before, until all are answered."""
        wait = self._link.location.wait
        queue = Queue(pieces, before)
        progress = time.monotonic()
        pause = _PAUSE_FIRST
        while not queue.is_done:
            answered = queue.answered
            try:
                self._send(queue)
            except Unavailable as error:
                failed = error
            if queue.answered > answered:
                progress, pause = time.monotonic(), _PAUSE_FIRST
                continue
            if time.monotonic() - progress + pause > wait:
                summary = f"Objects.Upload went on at no node within {wait:.1f} s: {failed.summary}"
                raise NotApplied(summary, failed.attempts, failed.header) from failed
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _PAUSE_MAX)

    def _send(self, queue: Queue) -> None:
        """Sends what is not answered on one stream, for as long as it goes well.

        Raises:
            Unavailable: It broke, or fell silent.
            Refused: The upload is over, or the cluster is full, say.
        """
        exchange = self._link.engine.exchange(calls.UPLOAD, avoid=self._avoid)
        stream: _Stream = exchange.result()
        # Should it break, another node is the better choice.
        self._avoid = stream.endpoint
        queue.begin_again()
        try:
            while not queue.is_done:
                while (sending := queue.next()) is not None:
                    # There is room for all that may be on its way. A stream that has ended says why
                    # when it is read.
                    stream.send(self._message(*sending))
                response = stream.receive(silence=_SILENCE_MAX).result()
                if response is None or not queue.answer(response.number):
                    what = "ended it" if response is None else f"answered {response.number}"
                    raise Unavailable(f"Objects.Upload: {stream.endpoint} {what} out of turn")
        finally:
            stream.cancel()

    def _message(self, number: int, piece: Chunk | Objects) -> proto.UploadRequest:
        request = proto.UploadRequest(
            namespace=self._link.location.namespace,
            upload_id=self._upload_id,
            number=number,
        )
        if isinstance(piece, Chunk):
            chunk = self._records[piece.place][1].body[piece.start : piece.end]
            hashes = self._hashes.setdefault(piece.place, {})
            if piece.start not in hashes:
                hashes[piece.start] = blake3(chunk).digest()
            request.chunk = chunk
            return request
        for place in piece.places:
            id_, record = self._records[place]
            staged = request.objects.objects.add()
            staged.record.id = id_
            staged.record.class_name = record.class_name
            staged.record.metadata.update(record.metadata)
            if piece.has_chunks:
                hashes = self._hashes[place]
                staged.chunks.extend(hashes[start] for start in sorted(hashes))
            else:
                staged.body = record.body
        return request
