"""Many calls on one stream of a connection: what comes up at the same moment shares a message.

A stream is opened with the first call and lives as long as its connection. A call goes at once when
nothing else is on the stream; what comes up while something is goes together, on the loop's next
round. A node that ends the stream, or loses it, leaves the calls on it unanswered: they count as
lost, and further copies are sent (``copies``).

A node that does not know such streams gets each call by itself.

Invariant: a call that was put on the stream gets an answer, or the status that the stream ended
with.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from holdfast._engine import rpc, task
from holdfast._wire.pipeline_pb2 import ExchangeRequest, ExchangeResponse, PipedCall

if TYPE_CHECKING:
    from holdfast._engine.endpoint import Link
    from holdfast._engine.http2 import Fault, Stream
    from holdfast._engine.loop import Loop

_PATH = "/holdfast.v1.Pipeline/Exchange"
_CALLS_MAX = 256
"""How many calls may be on one stream, as many as a node works on; more go by themselves."""
_REQUEST_BYTES_MAX = 64 << 10
"""Longest request that goes on a stream, in bytes: those behind it wait for it."""
_MESSAGE_CALLS_MAX = 64
"""How many calls go into one message at most."""


class Pipeline:
    """The stream of one connection. Any thread may use it."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self._loop = loop
        self._link = link
        # Held for a few moves, never while anybody is told. Taken before the connection's.
        self._lock = threading.Lock()
        self._exchange: _Exchange | None = None
        self._is_unknown = False  # to the node

    def call(self, path: str, seconds: float, request: bytes) -> Future[bytes] | None:
        """Makes a call on the stream; None if it is to go by itself.

        Cancelling the future tells the node nothing: it carries the call out, for nobody.

        Raises:
            Status: it was not carried out, as far as the node or the connection can tell.
        """
        if self._is_unknown or len(request) > _REQUEST_BYTES_MAX:
            return None
        with self._lock:
            exchange = self._exchange
            if exchange is None or exchange.has_ended:
                exchange = self._exchange = _Exchange(self)
                if not exchange.open(self._link):
                    return None
            return exchange.put(path, seconds, request)

    def flush_soon(self, exchange: _Exchange) -> None:
        """What has been put on the stream goes on the loop's next round."""

        def flush() -> None:
            with self._lock:
                exchange.flush()

        self._loop.call_soon(flush)

    def take(self, exchange: _Exchange, number: int) -> Future[bytes] | None:
        """The future of a call that has its answer; None if it was given up."""
        with self._lock:
            owed = exchange.owed.pop(number, None)
        return None if owed is None else owed[0]

    def end(self, exchange: _Exchange, status: rpc.Status) -> None:
        """The stream has ended: the calls on it will not be answered."""
        with self._lock:
            exchange.has_ended = True
            owed, exchange.owed = exchange.owed, {}
            # Of the calls on it a node says that they are unknown, never of the stream.
            self._is_unknown |= status.code == rpc.UNIMPLEMENTED and not status.is_local
        for answer, path, seconds, request in owed.values():
            if self._is_unknown:
                self._call_by_itself(answer, path, seconds, request)
            else:
                task.fail(answer, status)

    def _call_by_itself(
        self, answer: Future[bytes], path: str, seconds: float, request: bytes
    ) -> None:
        headers = self._link.headers.block(path, seconds)
        alone = rpc.unary(self._link.connection, headers, request)
        task.pass_on(alone, answer)


_Owed = tuple["Future[bytes]", str, float, bytes]


class _Exchange:
    """A stream, the calls on it that have no answer yet, and those that have not gone yet."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._incoming = rpc.Incoming()
        self._stream: Stream | None = None
        self._queue: list[PipedCall] = []
        self._last = 0
        self.owed: dict[int, _Owed] = {}
        self.has_ended = False

    # What follows is called with the pipeline's lock held.

    def open(self, link: Link) -> bool:
        """Opens it; false if the connection takes no more."""
        self._stream = link.connection.open(link.headers.block(_PATH, None), self, None)
        self.has_ended = self._stream is None
        return not self.has_ended

    def put(self, path: str, seconds: float, request: bytes) -> Future[bytes] | None:
        """Adds a call; None if there are too many."""
        if len(self.owed) >= _CALLS_MAX:
            return None
        self._last = number = self._last + 1
        answer: Future[bytes] = Future()
        is_alone = not self.owed
        self.owed[number] = (answer, path, seconds, request)
        timeout_ms = max(1, int(seconds * 1000))
        self._queue.append(
            PipedCall(id=number, method=path, timeout_ms=timeout_ms, message=request)
        )
        if is_alone:
            self.flush()
        elif len(self._queue) == 1:
            self._pipeline.flush_soon(self)
        return answer

    def flush(self) -> None:
        """Sends what has been put on it."""
        if self._stream is None or self.has_ended:
            return
        queue, self._queue = self._queue, []
        for at in range(0, len(queue), _MESSAGE_CALLS_MAX):
            message = ExchangeRequest(calls=queue[at : at + _MESSAGE_CALLS_MAX])
            self._stream.send(rpc.enveloped(message.SerializeToString()), is_last=False)

    # What follows is called by the connection, on the loop's thread; see `http2.Handler`.

    def on_headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._incoming.take_headers(fields)

    def on_data(self, stream: Stream, data: bytes) -> None:
        stream.consumed(len(data))
        try:
            for message in self._incoming.take_data(data):
                for piped in ExchangeResponse.FromString(message).answers:
                    answer = self._pipeline.take(self, piped.id)
                    if answer is None:
                        continue  # Whoever has given its call up does not listen.
                    if piped.code == rpc.OK:
                        task.settle(answer, piped.message)
                    else:
                        status = rpc.Status(piped.code, piped.error, piped.details)
                        task.fail(answer, status)
        except rpc.Status as status:
            stream.cancel()
            self._pipeline.end(self, status)

    def on_end(self, fault: Fault | None) -> None:
        status = self._incoming.status(fault)
        if status is None:
            status = rpc.Status(rpc.UNAVAILABLE, "the node has ended the stream of calls")
        self._pipeline.end(self, status)
