"""The other end of one HTTP/2 connection, which says exactly what a test tells it to.

What it reads goes through h2, so that a test sees events; what it sends can be any frames.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, SettingsAcknowledged, StreamEnded
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame

from holdfast._engine import loop
from holdfast._engine.http2 import Connection
from tests.support.cluster import wait_until

_SECONDS = 10.0
E = TypeVar("E", bound=Event)


class Peer:
    """The server's end; takes one socket of a connected pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(_SECONDS)
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.encoder = Encoder()
        """For frames that the test makes itself."""
        self.seen: list[Event] = []
        """All that has come in so far."""
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Sends what h2 has to say."""
        self._sock.sendall(self.h2.data_to_send())

    def read(self) -> list[Event]:
        """The next events, at least one."""
        events: list[Event] = []
        while not events:
            data = self._sock.recv(1 << 20)
            assert data, "the connection was closed"
            events = self.h2.receive_data(data)
            self.flush()
        self.seen += events
        return events

    def await_event(self, kind: type[E], count: int = 1, stream_id: int | None = None) -> E:
        """Reads until so many events of a kind, and of a stream, have come in all; the last one."""
        while True:
            found = [
                event
                for event in self.seen
                if isinstance(event, kind)
                and (stream_id is None or getattr(event, "stream_id", 0) == stream_id)
            ]
            if len(found) >= count:
                return found[-1]
            self.read()

    def await_requests(self, count: int) -> None:
        """Reads until so many requests are complete."""
        self.await_event(StreamEnded, count)

    def answer(self, stream_id: int, data: bytes = b"") -> None:
        """Answers a request in order."""
        self.h2.send_headers(stream_id, [(":status", "200")])
        if data:
            self.h2.send_data(stream_id, data)
        self.h2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)
        self.flush()

    def send(self, *frames: Frame) -> None:
        """Sends frames, whatever h2 thinks of that."""
        self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes."""
        self._sock.sendall(data)

    def headers(
        self, stream_id: int, fields: Iterable[tuple[str, str | bytes]], *flags: str
    ) -> HeadersFrame:
        """A frame of headers, to be sent once, in the order in which they are made."""
        block = self.encoder.encode(list(fields))
        return HeadersFrame(stream_id, block, flags=["END_HEADERS", *flags])

    def response(self, stream_id: int, data: bytes = b"") -> list[Frame]:
        """The frames of a response in order."""
        return [
            self.headers(stream_id, [(":status", "200")]),
            DataFrame(stream_id, data),
            self.headers(stream_id, [("grpc-status", "0")], "END_STREAM"),
        ]

    def await_close(self) -> None:
        """Reads until the client has closed the connection."""
        try:
            while data := self._sock.recv(1 << 20):
                self.seen += self.h2.receive_data(data)
                self.flush()
        except ConnectionError:
            pass  # It had not read all of what was sent.

    def close(self) -> None:
        """Closes the connection."""
        self._sock.close()


@dataclass
class Pair:
    """A connection of the package, and its other end."""

    connection: Connection
    socket: socket.socket
    """That of the connection."""
    peer: Peer

    def close(self) -> None:
        """Closes both ends."""
        self.connection.close("the test is over")
        wait_until(lambda: self.socket.fileno() < 0, "the connection's socket is closed")
        self.peer.close()


def connected() -> Pair:
    """A connection that both ends have agreed on."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    made: Future[Connection] = Future()
    loop.here().call_soon(lambda: made.set_result(Connection(loop.here(), ours)))
    pair = Pair(made.result(_SECONDS), ours, Peer(theirs))
    pair.peer.await_event(SettingsAcknowledged)
    return pair
