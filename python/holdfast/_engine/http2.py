"""One HTTP/2 connection of a client (RFC 9113), without TLS.

Any thread opens streams and sends on them; what comes in is read on the loop's thread, and handlers
are called there, in order, with no lock held.

Invariants:
- A handler is told the end of its stream exactly once. The fault says whether the other side
  certainly never looked at it (refused, or above the last stream that it took in).
- What a stream or the connection may have on its way is bounded by the windows of both sides. A
  handler gives the room of what it was handed back with :meth:`Stream.consumed`.
- An open connection is probed while nothing comes in, so that one that hangs is noticed.

It leaves out: server push, priorities and padding of its own.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holdfast._engine import hpack

if TYPE_CHECKING:
    from holdfast._engine.loop import Callback, Loop

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = struct.Struct(">HBBBI")

# Frames (RFC 9113, 6).
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
_PUSH_PROMISE, _WINDOW_UPDATE, _CONTINUATION = 0x5, 0x8, 0x9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# Settings (6.5.2).
_ENABLE_PUSH, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 0x2, 0x3, 0x4, 0x5
# Errors (7).
_NO_ERROR, _PROTOCOL_ERROR, _FLOW_CONTROL_ERROR, _REFUSED_STREAM, _CANCEL = 0x0, 0x1, 0x3, 0x7, 0x8

_WINDOW_DEFAULT = 65_535
_WINDOW_MAX = (1 << 31) - 1
STREAM_WINDOW_BYTES = 2 << 20
"""How much of one response may be on its way, in bytes: a page of values, the largest of which are
1 MiB, without waiting for a window update."""
CONNECTION_WINDOW_BYTES = 8 << 20
"""How much of all responses of a connection may be on its way, in bytes."""
FRAME_BYTES_MAX = 1 << 20
"""Longest frame that is taken in, in bytes."""
_HEADER_BLOCK_BYTES_MAX = 256 << 10
"""Longest header block that is taken in, in bytes; a status with its details has some hundreds."""
_RECEIVE_BYTES = 256 << 10
"""How much is read from the socket at a time, in bytes."""
_ID_LAST = (1 << 31) - 1
"""The last id that a stream can have; then a new connection is due."""

PROBE_SECONDS = 1.0
"""Silence after which an open connection is probed."""
PROBE_TIMEOUT_SECONDS = 2.0
"""How long a probe may stay unanswered before the connection counts as broken."""


@dataclass(frozen=True)
class Fault:
    """Why a stream ended before its time."""

    message: str
    is_unprocessed: bool = False
    """The other side certainly never looked at it (RFC 9113, 8.7)."""


class Handler(Protocol):
    """Whoever takes in what comes on a stream."""

    def on_headers(self, fields: list[tuple[str, str]]) -> None:
        """A header block: first the headers, and perhaps trailers behind the data."""

    def on_data(self, stream: Stream, data: bytes) -> None:
        """The next bytes."""

    def on_end(self, fault: Fault | None) -> None:
        """Nothing more comes; None if the other side ended it in order."""


class Stream:
    """One request and its response."""

    __slots__ = ("_connection", "handler", "has_ended", "id", "sending", "unconsumed", "window")

    def __init__(self, connection: Connection, handler: Handler) -> None:
        self._connection = connection
        self.handler = handler
        self.id = 0  # until it is opened
        self.window = 0
        self.unconsumed = 0
        self.sending: deque[_Sending] = deque()
        self.has_ended = False

    def send(self, data: bytes, *, is_last: bool, taken: Callback | None = None) -> None:
        """Hands bytes over, in order; `taken` is called once they are on their way, or in vain."""
        self._connection.send(self, _Sending(memoryview(data), is_last, taken))

    def consumed(self, size: int) -> None:
        """There is room again for so many bytes of what the handler was handed."""
        self._connection.widen(self, size)

    def cancel(self) -> None:
        """Nobody waits for it any more. The handler may still be told what came before."""
        self._connection.cancel(self)


class _Sending:
    __slots__ = ("data", "is_last", "taken")

    def __init__(self, data: memoryview, is_last: bool, taken: Callback | None) -> None:
        self.data = data
        self.is_last = is_last
        self.taken = taken


class ProtocolError(Exception):
    """The other side does not keep to HTTP/2."""


class Connection:
    """An open connection, on a connected socket that does not block."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        # Held for building and sending frames, never while a handler runs.
        self._lock = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._unopened: deque[tuple[Stream, bytes]] = deque()
        self._next_id = 1
        self._last_id = _ID_LAST
        self._streams_max = _ID_LAST
        self._frame_max = 16_384
        self._stream_window = _WINDOW_DEFAULT
        self._window = _WINDOW_DEFAULT
        self._out = bytearray()
        self._wants_write = False
        self._fault: Fault | None = None
        self._is_draining = False
        # Of the loop's thread alone.
        self._in = bytearray()
        self._decoder = hpack.Decoder()
        self._block: tuple[int, int, bytearray] | None = None
        self._unconsumed = 0
        self._heard = time.monotonic()
        self._probed: float | None = None
        self._begin()

    @property
    def is_open(self) -> bool:
        """Whether new streams can be opened, as far as is known."""
        return self._fault is None and not self._is_draining

    def open(
        self, headers: bytes, handler: Handler, body: bytes | None, *, is_last: bool = True
    ) -> Stream | None:
        """Opens a stream with a header block and perhaps the first bytes of its body.

        None if the connection takes no more: then nothing was sent.
        """
        stream = Stream(self, handler)
        if body is not None:
            stream.sending.append(_Sending(memoryview(body), is_last, None))
        with self._lock:
            if not self.is_open:
                return None
            if len(self._streams) < self._streams_max:
                self._open(stream, headers)
            else:
                self._unopened.append((stream, headers))
            self._flush()
        return stream

    def send(self, stream: Stream, sending: _Sending) -> None:
        """See :meth:`Stream.send`."""
        with self._lock:
            if not stream.has_ended and self._fault is None:
                stream.sending.append(sending)
                if stream.id:
                    self._pump(stream)
                    self._flush()
                return
        if sending.taken is not None:
            sending.taken()

    def widen(self, stream: Stream, size: int) -> None:
        """See :meth:`Stream.consumed`."""
        with self._lock:
            stream.unconsumed += size
            if stream.has_ended or stream.unconsumed < STREAM_WINDOW_BYTES // 2:
                return
            self._frame(_WINDOW_UPDATE, 0, stream.id, stream.unconsumed.to_bytes(4, "big"))
            stream.unconsumed = 0
            self._flush()

    def cancel(self, stream: Stream) -> None:
        """See :meth:`Stream.cancel`."""
        with self._lock:
            if stream.has_ended or self._fault is not None:
                return
            stream.has_ended = True
            if stream.id:
                self._frame(_RST_STREAM, 0, stream.id, _CANCEL.to_bytes(4, "big"))
                del self._streams[stream.id]
                self._open_more()
                self._flush()
            else:
                self._unopened = deque(entry for entry in self._unopened if entry[0] is not stream)
            unsent, stream.sending = stream.sending, deque()
        _tell_taken(unsent)

    def close(self, message: str) -> None:
        """Closes it; streams on it end with this message."""
        self._loop.call_soon(lambda: self._fail(message))

    # What follows is called with the lock held.

    def _open(self, stream: Stream, headers: bytes) -> None:
        stream.id = self._next_id
        stream.window = self._stream_window
        self._streams[stream.id] = stream
        self._next_id += 2
        if self._next_id > _ID_LAST:
            self._is_draining = True
        self._frame(_HEADERS, _END_HEADERS, stream.id, headers)
        self._pump(stream)

    def _open_more(self) -> None:
        while self._unopened and len(self._streams) < self._streams_max and self.is_open:
            self._open(*self._unopened.popleft())

    def _pump(self, stream: Stream) -> None:
        """Sends of a stream what the windows allow."""
        while stream.sending:
            sending = stream.sending[0]
            room = max(0, min(self._window, stream.window))
            if sending.data and not room:
                return
            size = min(len(sending.data), room, self._frame_max)
            ends = size == len(sending.data)
            flags = _END_STREAM if ends and sending.is_last else 0
            if size or flags:
                self._frame(_DATA, flags, stream.id, sending.data[:size])
            self._window -= size
            stream.window -= size
            sending.data = sending.data[size:]
            if ends:
                stream.sending.popleft()
                if sending.taken is not None:
                    self._loop.call_soon(sending.taken)

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> None:
        size = len(payload)
        self._out += _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id)
        self._out += payload

    def _flush(self) -> None:
        """Sends what the socket takes; the rest when it takes more."""
        if self._wants_write or not self._out:
            return
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            message = _said(error)
            self._loop.call_soon(lambda: self._fail(message))
            return
        if sent == len(self._out):
            self._out = bytearray()
        else:
            del self._out[:sent]
            self._wants_write = True
            self._loop.call_soon(self._look_out)

    # What follows runs on the loop's thread.

    def _begin(self) -> None:
        settings = {
            _ENABLE_PUSH: 0,
            _INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            _MAX_FRAME_SIZE: FRAME_BYTES_MAX,
        }
        payload = b"".join(struct.pack(">HI", name, value) for name, value in settings.items())
        self._out += _PREFACE
        self._frame(_SETTINGS, 0, 0, payload)
        room = CONNECTION_WINDOW_BYTES - _WINDOW_DEFAULT
        self._frame(_WINDOW_UPDATE, 0, 0, room.to_bytes(4, "big"))
        with self._lock:
            self._flush()
        self._look_out()
        self._loop.call_later(PROBE_SECONDS, self._probe)

    def _look_out(self) -> None:
        if self._fault is not None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._wants_write else 0)
        self._loop.watch(self._sock, events, self._on_ready)

    def _on_ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            with self._lock:
                self._wants_write = False
                self._flush()
            if not self._wants_write:
                self._look_out()
        if events & selectors.EVENT_READ:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(_said(error))
            return
        if not data:
            self._fail("the connection was closed by the node")
            return
        self._heard = time.monotonic()
        self._probed = None
        self._in += data
        try:
            self._take_in()
        except (ProtocolError, hpack.CodingError, struct.error, IndexError) as error:
            self._fail(f"the node does not speak HTTP/2: {error}")

    def _take_in(self) -> None:
        received, at = self._in, 0
        while len(received) - at >= 9:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(received, at)
            size = high << 8 | low
            if size > FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {size} bytes")
            if len(received) - at < 9 + size:
                break
            payload = bytes(memoryview(received)[at + 9 : at + 9 + size])
            at += 9 + size
            self._on_frame(kind, flags, stream_id & _ID_LAST, payload)
            if self._fault is not None:
                return
        del received[:at]

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise ProtocolError("a header block is interrupted")
        if kind == _DATA:
            self._on_data(flags, stream_id, payload)
        elif kind == _HEADERS:
            block = _unpadded(flags, payload)[5 if flags & _PRIORITY else 0 :]
            self._block = (stream_id, flags, bytearray())
            self._on_block(flags, stream_id, block)
        elif kind == _CONTINUATION:
            self._on_block(flags, stream_id, payload)
        elif kind == _RST_STREAM:
            self._on_reset(stream_id, int.from_bytes(payload, "big"))
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._on_settings(payload)
        elif kind == _PING:
            if not flags & _ACK:
                with self._lock:
                    self._frame(_PING, _ACK, 0, payload)
                    self._flush()
        elif kind == _GOAWAY:
            self._on_goaway(payload)
        elif kind == _WINDOW_UPDATE:
            self._on_window_update(stream_id, int.from_bytes(payload, "big") & _WINDOW_MAX)
        elif kind == _PUSH_PROMISE:
            raise ProtocolError("a push that was not asked for")

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._unconsumed += len(payload)
        if self._unconsumed >= CONNECTION_WINDOW_BYTES // 2:
            size, self._unconsumed = self._unconsumed, 0
            with self._lock:
                self._frame(_WINDOW_UPDATE, 0, 0, size.to_bytes(4, "big"))
                self._flush()
        stream = self._streams.get(stream_id)
        if stream is None:
            return  # It was cancelled here while this was on its way.
        data = _unpadded(flags, payload)
        if len(data) < len(payload):
            stream.consumed(len(payload) - len(data))
        if data:
            stream.handler.on_data(stream, data)
        if flags & _END_STREAM:
            self._end(stream, None)

    def _on_block(self, flags: int, stream_id: int, part: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ProtocolError("a header block goes on that was not begun")
        _, first_flags, block = self._block
        block += part
        if len(block) > _HEADER_BLOCK_BYTES_MAX:
            raise ProtocolError(f"a header block of more than {_HEADER_BLOCK_BYTES_MAX} bytes")
        if not flags & _END_HEADERS:
            return
        self._block = None
        # Also for a stream that nobody waits for any more: later blocks build on it.
        fields = self._decoder.decode(bytes(block))
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.handler.on_headers(fields)
            if first_flags & _END_STREAM:
                self._end(stream, None)

    def _on_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        # RFC 9113, 8.1: a server may ask us to send no more of a request that it has answered.
        if code == _NO_ERROR:
            self._end(stream, None)
        else:
            message = f"the node reset the stream (HTTP/2 error {code})"
            self._end(stream, Fault(message, is_unprocessed=code == _REFUSED_STREAM))

    def _on_settings(self, payload: bytes) -> None:
        with self._lock:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW_SIZE:
                    for stream in self._streams.values():
                        stream.window += value - self._stream_window
                    self._stream_window = value
                elif name == _MAX_FRAME_SIZE:
                    self._frame_max = value
                elif name == _MAX_CONCURRENT_STREAMS:
                    self._streams_max = value
            self._frame(_SETTINGS, _ACK, 0, b"")
            self._open_more()
            self._pump_all()
            self._flush()

    def _on_window_update(self, stream_id: int, size: int) -> None:
        with self._lock:
            if stream_id == 0:
                self._window += size
                self._pump_all()
            elif stream_id in self._streams:
                stream = self._streams[stream_id]
                stream.window += size
                self._pump(stream)
            self._flush()

    def _pump_all(self) -> None:
        for stream in self._streams.values():
            if stream.sending:
                self._pump(stream)

    def _on_goaway(self, payload: bytes) -> None:
        last_id, code = struct.unpack_from(">II", payload)
        with self._lock:
            self._is_draining = True
            self._last_id = min(self._last_id, last_id & _ID_LAST)
            above = [stream for id_, stream in self._streams.items() if id_ > self._last_id]
            is_idle = len(above) == len(self._streams)
            above.extend(stream for stream, _ in self._unopened)
            self._unopened.clear()
        for stream in above:
            self._end(stream, Fault("the node is going away", is_unprocessed=True))
        if is_idle or code != _NO_ERROR:
            self._fail("the node is going away")

    def _end(self, stream: Stream, fault: Fault | None) -> None:
        with self._lock:
            if stream.has_ended:
                return
            stream.has_ended = True
            unsent, stream.sending = stream.sending, deque()
            if self._streams.pop(stream.id, None) is not None and unsent and fault is None:
                # It was answered before all of the request was sent: the rest is of no interest.
                self._frame(_RST_STREAM, 0, stream.id, _NO_ERROR.to_bytes(4, "big"))
            self._open_more()
            self._flush()
            is_over = self._is_draining and not self._streams and self._fault is None
        _tell_taken(unsent)
        stream.handler.on_end(fault)
        if is_over:
            self._fail("the node is going away")

    def _fail(self, message: str) -> None:
        with self._lock:
            if self._fault is not None:
                return
            self._fault = Fault(message)
            sent = list(self._streams.values())
            unsent = [stream for stream, _ in self._unopened]
            self._streams.clear()
            self._unopened.clear()
            for stream in sent + unsent:
                stream.has_ended = True
        self._loop.close(self._sock)
        for stream in sent + unsent:
            _tell_taken(stream.sending)
        for stream in sent:
            stream.handler.on_end(Fault(message))
        for stream in unsent:
            stream.handler.on_end(Fault(message, is_unprocessed=True))

    def _probe(self) -> None:
        if self._fault is not None:
            return
        now = time.monotonic()
        if self._probed is not None and now - self._probed >= PROBE_TIMEOUT_SECONDS:
            self._fail(f"no answer to a probe within {PROBE_TIMEOUT_SECONDS:.0f} s")
            return
        silent = now - self._heard
        if silent >= PROBE_SECONDS and self._probed is None:
            self._probed = now
            with self._lock:
                self._frame(_PING, 0, 0, b"holdfast")
                self._flush()
        wait = PROBE_SECONDS if silent >= PROBE_SECONDS else PROBE_SECONDS - silent
        self._loop.call_later(wait, self._probe)


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if payload[0] >= len(payload):
        raise ProtocolError("more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def _tell_taken(unsent: deque[_Sending]) -> None:
    for sending in unsent:
        if sending.taken is not None:
            sending.taken()


def _said(error: OSError) -> str:
    return error.strerror or str(error)
