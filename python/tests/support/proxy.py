"""A TCP proxy that misbehaves when told to, and counts what it carries.

It runs on a thread of its own, in the test's process. Both directions are controlled apart.
"""

from __future__ import annotations

import contextlib
import enum
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


class Flow(enum.Enum):
    """What happens to bytes of one direction."""

    PASS = "pass"
    """They go on."""
    HOLD = "hold"
    """They wait, until the flow changes."""
    DROP = "drop"
    """They are thrown away: whoever waits for them waits for good."""


@dataclass(eq=False)
class _Pair:
    client: socket.socket
    server: socket.socket
    # What was read and not yet written, by the socket that it is for.
    waiting: dict[socket.socket, bytearray] = field(default_factory=dict)


class Proxy:
    """A proxy before one address; closes all its connections in the end.

    Args:
        target: ``host:port``, which need not listen yet.
        seed: of what is lost.
    """

    def __init__(self, target: str, seed: int = 0) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._own = self._listener.getsockname()
        self._selector = selectors.DefaultSelector()
        self.address = f"127.0.0.1:{self._own[1]}"
        self.up = Flow.PASS
        """From clients to the server. Set it at any time."""
        self.down = Flow.PASS
        """From the server to clients. Set it at any time."""
        self.loss = 0.0
        """How likely a piece is lost, be it a request or a reply: its connection breaks instead."""
        self.delay = 0.0
        """How long each piece is held back, in seconds."""
        self.connections = 0
        """How many were accepted so far."""
        self.bytes_up = 0
        """How much clients have sent so far, carried on or not."""
        self._random = random.Random(seed)
        self._pairs: list[_Pair] = []
        self._commands: list[Callable[[], None]] = []
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def holds_up(self) -> bool:
        """Whether bytes from a client to the server are held at this moment."""
        return any(pair.waiting[pair.server] for pair in list(self._pairs))

    def cut(self) -> None:
        """Breaks all connections; new ones can be made. Returns when it is done."""
        self._obey(self._drop_all)

    def refuse(self) -> None:
        """Breaks all connections and takes no more. Returns when it is done."""
        self._obey(self._stop_listening)
        self.cut()

    def listen(self) -> None:
        """Takes connections again."""
        self._obey(self._start_listening)

    def close(self) -> None:
        """Ends it."""
        self._has_ended.set()
        self._thread.join(5)

    def _obey(self, command: Callable[[], None]) -> None:
        done = threading.Event()

        def obey() -> None:
            command()
            done.set()

        self._commands.append(obey)
        assert done.wait(5), "the proxy does not obey"

    def _drop_all(self) -> None:
        for pair in list(self._pairs):
            self._drop(pair)

    def _stop_listening(self) -> None:
        if self._listener.fileno() >= 0:
            self._selector.unregister(self._listener)
            self._listener.close()

    def _start_listening(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(self._own)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _run(self) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._has_ended.is_set():
            while self._commands:
                self._commands.pop(0)()
            for key, _ in self._selector.select(0.002):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data, key.fileobj)
            for pair in list(self._pairs):
                self._write(pair)
        self._drop_all()
        self._stop_listening()
        self._selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            self.connections += 1
            try:
                server = socket.create_connection(self._target, timeout=1)
            except OSError:
                client.close()
                return
            pair = _Pair(client, server)
            for sock in (client, server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pair.waiting[sock] = bytearray()
                self._selector.register(sock, selectors.EVENT_READ, pair)
            self._pairs.append(pair)

    def _read(self, pair: _Pair, source: object) -> None:
        if pair not in self._pairs:
            return
        is_up = source is pair.client
        source, other = (pair.client, pair.server) if is_up else (pair.server, pair.client)
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        if not data or self._random.random() < self.loss:
            self._drop(pair)
            return
        if is_up:
            self.bytes_up += len(data)
        flow = self.up if is_up else self.down
        if flow != Flow.DROP:
            if self.delay:
                time.sleep(self.delay)
            pair.waiting[other] += data

    def _write(self, pair: _Pair) -> None:
        for sock, waiting in pair.waiting.items():
            flow = self.up if sock is pair.server else self.down
            if flow == Flow.HOLD or not waiting:
                continue
            try:
                del waiting[: sock.send(waiting)]
            except BlockingIOError:
                continue
            except OSError:
                self._drop(pair)
                return

    def _drop(self, pair: _Pair) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
            for sock in (pair.client, pair.server):
                self._selector.unregister(sock)
                sock.close()
