"""gRPC calls on an HTTP/2 connection (the protocol: "gRPC over HTTP2" in grpc's documentation).

Invariants:
- A status that says *not sent* is given only for what certainly never reached the node's code:
  nothing was written, or HTTP/2 says that the stream was not looked at.
- A response of which a part is missing is a fault, never an empty response.
"""

from __future__ import annotations

import base64
import binascii
import struct
import threading
import urllib.parse
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

from hpack import HeaderTuple, NeverIndexedHeaderTuple

from holdfast._engine import task

if TYPE_CHECKING:
    from holdfast._engine.http2 import Connection, Fault, Stream

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 2, 3, 4, 5
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED = 8, 9, 10
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14

MESSAGE_BYTES_MAX = 260 << 20
"""Longest message that is taken in, in bytes: 256 values of 1 MiB, the most that one read can
return, with room for their names."""
_CLOSED = "the connection has just been closed"
_PREFIX = struct.Struct(">BI")
_TIMEOUT_MS_MAX = 99_999_999
"""Longest time-out that the header can say, in milliseconds: eight digits."""


class Status(Exception):
    """How a call ended that was not carried out.

    Args:
        code: the gRPC status code.
        message: text for people.
        details: encoded ``google.rpc.Status``; only with a status that a node made.
        is_sent: False: it certainly never reached a node's code.
        is_local: whether this side made it, because the connection failed.
    """

    def __init__(
        self,
        code: int,
        message: str,
        details: bytes | None = None,
        *,
        is_sent: bool = True,
        is_local: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.is_sent = is_sent
        self.is_local = is_local


class Headers:
    """The headers of one connection's requests, most of which are the same for all of them."""

    def __init__(self, authority: str, user_agent: str) -> None:
        self._before = [_field(":method", "POST"), _field(":scheme", "http")]
        self._behind = [
            _field(":authority", authority),
            _field("te", "trailers"),
            _field("content-type", "application/grpc"),
            _field("user-agent", user_agent),
        ]
        self._blocks: dict[str, list[HeaderTuple]] = {}

    def block(self, path: str, seconds: float | None) -> list[HeaderTuple]:
        """The headers of a call that is of use for so long."""
        block = self._blocks.get(path)
        if block is None:
            block = [*self._before, _field(":path", path), *self._behind]
            self._blocks[path] = block
        if seconds is None:
            return block
        timeout_ms = min(max(int(seconds * 1000), 1), _TIMEOUT_MS_MAX)
        # Hardly ever the same twice: it would only push the others out of the compression's table.
        return [*block, NeverIndexedHeaderTuple(b"grpc-timeout", b"%dm" % timeout_ms)]


def _field(name: str, value: str) -> HeaderTuple:
    return HeaderTuple(name.encode(), value.encode())


def enveloped(message: bytes) -> bytes:
    """A message as it goes on a stream: not compressed, with its length."""
    return _PREFIX.pack(0, len(message)) + message


def _unbase64(text: str) -> bytes | None:
    """A binary header's bytes, which may come without padding; None if there are none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4)) if text else None
    except binascii.Error:
        return None


class Incoming:
    """What has come of a response."""

    def __init__(self) -> None:
        self._http_status = ""
        self._trailers: dict[str, str] = {}
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """How many bytes of a message are here that is not complete yet."""
        return len(self._buffer)

    def take_headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        headers = {str(name, "latin-1"): str(value, "latin-1") for name, value in fields}
        if ":status" in headers:
            self._http_status = headers[":status"]
        if "grpc-status" in headers:
            self._trailers = headers

    def take_data(self, data: bytes) -> list[bytes]:
        """The messages that are complete with these bytes.

        Raises:
            Status: it is nothing that a gRPC server sends.
        """
        buffer = self._buffer
        buffer += data
        messages = []
        at = 0
        while len(buffer) - at >= _PREFIX.size:
            compressed, size = _PREFIX.unpack_from(buffer, at)
            if compressed or size > MESSAGE_BYTES_MAX:
                what = "compressed" if compressed else f"{size} bytes long"
                raise Status(INTERNAL, f"the response is {what}")
            if len(buffer) - at < _PREFIX.size + size:
                break
            at += _PREFIX.size
            messages.append(bytes(memoryview(buffer)[at : at + size]))
            at += size
        if at:
            del buffer[:at]
        return messages

    def status(self, fault: Fault | None) -> Status | None:
        """The status that the call ended with; None if that is OK."""
        if fault is not None:
            is_sent = not fault.is_unprocessed
            return Status(UNAVAILABLE, fault.message, is_sent=is_sent, is_local=True)
        if "grpc-status" not in self._trailers:
            what = f"HTTP status {self._http_status}" if self._http_status else "nothing"
            return Status(UNKNOWN, f"the call ended with {what} and without a gRPC status")
        code = self._trailers["grpc-status"]
        message = urllib.parse.unquote(self._trailers.get("grpc-message", ""))
        if not code.isdecimal():
            return Status(UNKNOWN, f"gRPC status {code!r}: {message}")
        if int(code) == OK:
            missing = bool(self._buffer)
            return Status(INTERNAL, "the response was cut short") if missing else None
        details = _unbase64(self._trailers.get("grpc-status-details-bin", ""))
        return Status(int(code), message or f"gRPC status {code}", details)


def unary(connection: Connection, headers: list[HeaderTuple], request: bytes) -> Future[bytes]:
    """Sends a request that gets one response. Cancelling the future tells the node.

    Raises:
        Status: it was not carried out, as far as the node or the connection can tell.
    """
    call = _Unary()
    stream = connection.open(headers, call, enveloped(request))
    if stream is None:
        task.fail(call.response, Status(UNAVAILABLE, _CLOSED, is_sent=False, is_local=True))
        return call.response
    call.response.add_done_callback(lambda done: stream.cancel() if done.cancelled() else None)
    return call.response


class _Unary:
    """A call with one response."""

    def __init__(self) -> None:
        self.response: Future[bytes] = Future()
        self._incoming = Incoming()
        self._message: bytes | None = None

    def on_headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._incoming.take_headers(fields)

    def on_data(self, stream: Stream, data: bytes) -> None:
        stream.consumed(len(data))
        try:
            for message in self._incoming.take_data(data):
                self._message = message
        except Status as status:
            stream.cancel()
            task.fail(self.response, status)

    def on_end(self, fault: Fault | None) -> None:
        status = self._incoming.status(fault)
        if status is None and self._message is None:
            status = Status(INTERNAL, "the call ended without a response")
        if status is not None:
            task.fail(self.response, status)
        elif self._message is not None:
            task.settle(self.response, self._message)


class Messages:
    """The responses of a call that gets a stream of them, handed out one at a time.

    Those that nobody has asked for yet take room in the stream's window, so that the node waits.
    """

    def __init__(self) -> None:
        self._incoming = Incoming()
        self.stream: Stream | None = None
        """What they come on; set before anybody asks for one."""
        # Held for a few moves: messages arrive on the loop's thread and are asked for on any.
        self._lock = threading.Lock()
        self._arrived: deque[tuple[bytes, int]] = deque()
        self._waiting: Future[bytes | None] | None = None
        self._end: Status | None = None
        self.has_ended = False
        """Nothing more comes."""

    def on_headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        """See :class:`http2.Handler`."""
        self._incoming.take_headers(fields)

    def on_data(self, stream: Stream, data: bytes) -> None:
        """See :class:`http2.Handler`."""
        before = self._incoming.buffered
        try:
            messages = self._incoming.take_data(data)
        except Status as status:
            stream.cancel()
            self._finish(status)
            return
        # What is not a whole message yet must not wait until somebody asks for it.
        room = len(data)
        with self._lock:
            for message in messages:
                held = _PREFIX.size + len(message) - before
                before = 0
                room -= held
                self._arrived.append((message, held))
        if room:
            stream.consumed(room)
        self._hand_out()

    def on_end(self, fault: Fault | None) -> None:
        """See :class:`http2.Handler`."""
        self._finish(self._incoming.status(fault))

    def receive(self) -> Future[bytes | None]:
        """The next message; None behind the last one. One at a time.

        Raises:
            Status: the stream ended otherwise.
        """
        waiting: Future[bytes | None] = Future()
        with self._lock:
            self._waiting = waiting
        self._hand_out()
        return waiting

    def cancel(self) -> None:
        """Ends it: whoever waits gets ``CancelledError``."""
        if self.stream is not None:
            self.stream.cancel()
        waiting = self._waiting
        if waiting is not None:
            waiting.cancel()

    def _finish(self, status: Status | None) -> None:
        with self._lock:
            self._end, self.has_ended = status, True
        self._hand_out()

    def _hand_out(self) -> None:
        with self._lock:
            waiting = self._waiting
            if waiting is None or not (self._arrived or self.has_ended):
                return
            self._waiting = None
            if waiting.done():
                return  # Given up; what has arrived is for the next one who asks.
            arrived = self._arrived.popleft() if self._arrived else None
        if arrived is not None:
            message, held = arrived
            if self.stream is not None:
                self.stream.consumed(held)
            task.settle(waiting, message)
        elif self._end is not None:
            task.fail(waiting, self._end)
        else:
            task.settle(waiting, None)


def stream(connection: Connection, headers: list[HeaderTuple], request: bytes | None) -> Messages:
    """Opens a call that gets a stream of responses, with its only request or with none yet.

    Raises:
        Status: the connection takes no more; nothing was sent.
    """
    messages = Messages()
    opened = connection.open(headers, messages, None if request is None else enveloped(request))
    if opened is None:
        raise Status(UNAVAILABLE, _CLOSED, is_sent=False, is_local=True)
    messages.stream = opened
    return messages
