"""One HTTP/2 connection of a client (RFC 9113), without TLS.

What is said on it is h2's: frames, compressed headers, the states of streams, the windows. Here are
the socket, the threads, what waits for a window or for a free stream, and who is told what came in.

Any thread opens streams and sends on them; what comes in is read on the loop's thread, and handlers
are called there, in order, with no lock held.

Invariants:
- A handler is told the end of its stream exactly once. The fault says whether the other side
  certainly never looked at it (refused, or above the last stream that it took in).
- What a stream or the connection may have on its way is bounded by the windows of both sides. A
  handler gives the room of what it was handed back with :meth:`Stream.consumed`.
- An open connection is probed while nothing comes in, so that one that hangs is noticed.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error

from holdfast._engine.h2_client import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, H2Client

if TYPE_CHECKING:
    from h2.events import Event
    from hpack import HeaderTuple

    from holdfast._engine.loop import Callback, Loop

log = logging.getLogger("holdfast")

_RECEIVE_BYTES = 256 << 10
"""How much is read from the socket at a time, in bytes."""

PROBE_SECONDS = 1.0
"""Silence after which an open connection is probed."""
PROBE_TIMEOUT_SECONDS = 2.0
"""How long a probe may stay unanswered before the connection counts as broken."""

_GOING_AWAY = "the node is going away"


@dataclass(frozen=True)
class Fault:
    """Why a stream ended before its time."""

    message: str
    is_unprocessed: bool = False
    """The other side certainly never looked at it (RFC 9113, 8.7)."""


class Handler(Protocol):
    """Whoever takes in what comes on a stream."""

    def on_headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        """First the headers, and perhaps trailers behind the data."""

    def on_data(self, stream: Stream, data: bytes) -> None:
        """The next bytes."""

    def on_end(self, fault: Fault | None) -> None:
        """Nothing more comes; None if the other side ended it in order."""


class Stream:
    """One request and its response."""

    __slots__ = ("_connection", "handler", "has_ended", "id", "is_closed", "sending", "unconsumed")

    def __init__(self, connection: Connection, handler: Handler) -> None:
        self._connection = connection
        self.handler = handler
        self.id = 0  # until it is opened
        self.unconsumed = 0
        self.sending: deque[_Sending] = deque()
        self.is_closed = False  # nothing goes out on it any more
        self.has_ended = False  # its handler is told no more

    def send(self, data: bytes, *, is_last: bool, taken: Callback | None = None) -> None:
        """Hands bytes over, in order; `taken` is called once they are on their way, or in vain."""
        self._connection.send(self, _Sending(memoryview(data), is_last, taken))

    def consumed(self, size: int) -> None:
        """There is room again for so many bytes of what the handler was handed."""
        self._connection.widen(self, size)

    def cancel(self) -> None:
        """Nobody waits for it any more. The handler may still be told what came before."""
        self._connection.cancel(self)

    # What follows is called by the connection, on the loop's thread.

    def tell_headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        if not self.has_ended:
            self.handler.on_headers(fields)

    def tell_data(self, data: bytes) -> None:
        if not self.has_ended:
            self.handler.on_data(self, data)

    def tell_end(self, fault: Fault | None) -> None:
        if not self.has_ended:
            self.has_ended = True
            self.handler.on_end(fault)


class _Sending:
    __slots__ = ("data", "is_last", "taken")

    def __init__(self, data: memoryview, is_last: bool, taken: Callback | None) -> None:
        self.data = data
        self.is_last = is_last
        self.taken = taken


class Connection:
    """An open connection, on a connected socket that does not block."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        # Held for building, sending and taking in frames, never while anybody is told of them.
        self._lock = threading.Lock()
        self._h2 = H2Client()
        self._streams: dict[int, Stream] = {}
        self._unopened: deque[tuple[Stream, list[HeaderTuple]]] = deque()
        self._streams_max = self._h2.remote_settings.max_concurrent_streams
        self._has_room = False  # windows have grown since they were last filled
        self._unconsumed = 0
        self._out = bytearray()
        self._wants_write = False
        self._fault: Fault | None = None
        self._is_draining = False
        # Of the loop's thread alone.
        self._heard = time.monotonic()
        self._probed: float | None = None
        self._begin()

    @property
    def is_open(self) -> bool:
        """Whether new streams can be opened, as far as is known."""
        return self._fault is None and not self._is_draining

    def open(
        self,
        headers: list[HeaderTuple],
        handler: Handler,
        body: bytes | None,
        *,
        is_last: bool = True,
    ) -> Stream | None:
        """Opens a stream with its headers and perhaps the first bytes of its body.

        None if the connection takes no more: then nothing was sent.
        """
        stream = Stream(self, handler)
        if body is not None:
            stream.sending.append(_Sending(memoryview(body), is_last, None))
        with self._lock:
            if not self.is_open:
                return None
            self._unopened.append((stream, headers))
            self._open_waiting()
            self._flush()
        return stream

    def send(self, stream: Stream, sending: _Sending) -> None:
        """See :meth:`Stream.send`."""
        with self._lock:
            if not stream.is_closed:
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
            if stream.is_closed or stream.unconsumed < STREAM_WINDOW_BYTES // 2:
                return
            self._h2.increment_flow_control_window(stream.unconsumed, stream.id)
            stream.unconsumed = 0
            self._flush()

    def cancel(self, stream: Stream) -> None:
        """See :meth:`Stream.cancel`."""
        with self._lock:
            stream.has_ended = True
            if stream.is_closed:
                return
            if stream.id:
                self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)
            else:
                self._unopened = deque(entry for entry in self._unopened if entry[0] is not stream)
            told = self._close(stream)
            self._go_on()
        _tell(told)

    def close(self, message: str) -> None:
        """Closes it; streams on it end with this message."""
        self._loop.call_soon(lambda: self._fail(message))

    # What follows is called with the lock held.

    def _open_waiting(self) -> None:
        """Opens what waits, as far as the other side allows."""
        while self._unopened and len(self._streams) < self._streams_max and self.is_open:
            stream, headers = self._unopened.popleft()
            stream.id = self._h2.get_next_available_stream_id()
            self._streams[stream.id] = stream
            # The last id there is: a new connection is due.
            self._is_draining = stream.id == self._h2.HIGHEST_ALLOWED_STREAM_ID
            self._h2.send_headers(stream.id, headers)
            self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Sends of a stream what the windows allow."""
        while stream.sending:
            sending = stream.sending[0]
            room = max(0, self._h2.local_flow_control_window(stream.id))
            if sending.data and not room:
                return
            part = sending.data[: min(room, self._h2.max_outbound_frame_size)]
            sending.data = sending.data[len(part) :]
            ends = not sending.data
            if part or sending.is_last:
                self._h2.send_data(stream.id, part, end_stream=ends and sending.is_last)
            if ends:
                stream.sending.popleft()
                if sending.taken is not None:
                    self._loop.call_soon(sending.taken)

    def _flush(self) -> None:
        """Sends what the socket takes; the rest when it takes more."""
        if self._wants_write:
            return
        self._out += self._h2.data_to_send()
        if not self._out:
            return
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.close(_said(error))
            return
        if sent == len(self._out):
            self._out = bytearray()
        else:
            del self._out[:sent]
            self._wants_write = True
            self._loop.call_soon(self._look_out)

    def _close(self, stream: Stream) -> list[Callback]:
        """Nothing more goes out on it; whoever waits for that is to be told."""
        stream.is_closed = True
        self._streams.pop(stream.id, None)
        taken = [sending.taken for sending in stream.sending if sending.taken is not None]
        stream.sending.clear()
        return taken

    def _end(self, stream: Stream, fault: Fault | None) -> list[Callback]:
        return [*self._close(stream), partial(stream.tell_end, fault)]

    def _go_on(self) -> None:
        """After whatever has come in: sends what there is room for, or ends without more use."""
        if self._has_room:
            self._has_room = False
            for stream in self._streams.values():
                self._pump(stream)
        self._open_waiting()
        self._flush()
        if self._is_draining and not self._streams:
            self.close(_GOING_AWAY)

    def _break(self, message: str) -> list[Callback]:
        if self._fault is not None:
            return []
        self._fault = Fault(message)
        told: list[Callback] = [partial(self._loop.close, self._sock)]
        for stream in list(self._streams.values()):
            told += self._end(stream, self._fault)
        for stream, _ in self._unopened:
            told += self._end(stream, Fault(message, is_unprocessed=True))
        self._unopened.clear()
        return told

    def _take_in(self, event: Event) -> list[Callback]:
        """Notes an event; returns whom to tell of it.

        Sends nothing on a stream: h2 may have closed it with an event that comes behind this one.
        """
        if isinstance(event, (ResponseReceived, TrailersReceived)):
            stream = self._streams.get(event.stream_id)
            return [] if stream is None else [partial(stream.tell_headers, event.headers)]
        if isinstance(event, DataReceived):
            return self._take_in_data(event)
        if isinstance(event, StreamEnded):
            stream = self._streams.get(event.stream_id)
            return [] if stream is None else self._take_in_end(stream)
        if isinstance(event, StreamReset):
            stream = self._streams.get(event.stream_id)
            return [] if stream is None else self._end(stream, _fault_of(event.error_code))
        if isinstance(event, ConnectionTerminated):
            return self._take_in_goaway(event)
        if isinstance(event, RemoteSettingsChanged):
            self._streams_max = self._h2.remote_settings.max_concurrent_streams
            self._has_room = True
        elif isinstance(event, WindowUpdated):
            self._has_room = True
        return []

    def _take_in_data(self, event: DataReceived) -> list[Callback]:
        # The connection's window is given back at once: one stream must not hold up the others.
        self._unconsumed += event.flow_controlled_length
        if self._unconsumed >= CONNECTION_WINDOW_BYTES // 2:
            self._h2.increment_flow_control_window(self._unconsumed)
            self._unconsumed = 0
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return []  # It was cancelled here while this was on its way.
        told: list[Callback] = []
        if event.data:
            told.append(partial(stream.tell_data, event.data))
        padding = event.flow_controlled_length - len(event.data)
        if padding:
            told.append(partial(stream.consumed, padding))
        return told

    def _take_in_end(self, stream: Stream) -> list[Callback]:
        at_h2 = self._h2.streams.get(stream.id)
        if at_h2 is not None and not at_h2.closed:
            # It was answered before all of the request was sent: the rest is of no interest.
            self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)
        return self._end(stream, None)

    def _take_in_goaway(self, event: ConnectionTerminated) -> list[Callback]:
        self._is_draining = True
        last_id = event.last_stream_id or 0
        never = [stream for id_, stream in self._streams.items() if id_ > last_id]
        never += [stream for stream, _ in self._unopened]
        self._unopened.clear()
        told = []
        for stream in never:
            told += self._end(stream, Fault(_GOING_AWAY, is_unprocessed=True))
        if event.error_code != ErrorCodes.NO_ERROR:
            told += self._break(_GOING_AWAY)
        return told

    # What follows runs on the loop's thread.

    def _begin(self) -> None:
        with self._lock:
            self._h2.initiate_connection()
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
        with self._lock:
            try:
                events = self._h2.receive_data(data)
            except H2Error as error:
                self._flush()
                told = self._break(f"the node does not speak HTTP/2: {error}")
            else:
                told = [tell for event in events for tell in self._take_in(event)]
                self._go_on()
        _tell(told)

    def _fail(self, message: str) -> None:
        with self._lock:
            told = self._break(message)
        _tell(told)

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
                self._h2.ping(b"holdfast")
                self._flush()
        wait = PROBE_SECONDS if silent >= PROBE_SECONDS else PROBE_SECONDS - silent
        self._loop.call_later(wait, self._probe)


def _fault_of(code: ErrorCodes | int) -> Fault | None:
    # RFC 9113, 8.1: a server may ask us to send no more of a request that it has answered.
    if code == ErrorCodes.NO_ERROR:
        return None
    message = f"the stream was reset (HTTP/2 error {int(code)})"
    return Fault(message, is_unprocessed=code == ErrorCodes.REFUSED_STREAM)


def _tell(told: list[Callback]) -> None:
    for tell in told:
        try:
            tell()
        except Exception:
            log.exception("the handler of a stream failed")


def _said(error: OSError) -> str:
    return error.strerror or str(error)
