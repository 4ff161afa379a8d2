"""One address of the cluster: its connection, and how it has been behaving.

The connection is made as a step of its own, before a request is handed over: what fails there was
never sent. Everybody who needs the connection waits for the same attempt. A connection that broke
is forgotten, and the next call makes a new one.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from holdfast._engine import rpc, task
from holdfast._engine.http2 import Connection
from holdfast._engine.pipeline import Pipeline
from holdfast._engine.task import wait

if TYPE_CHECKING:
    from holdfast._engine.loop import Loop

CONNECT_SECONDS = 1.0
"""How long one attempt to connect to one node may take, finding its address included."""
_AVOID_FIRST = 1.0
"""How long an endpoint is passed over after its first failure; doubles with each further one."""
_AVOID_MAX = 10.0
"""Longest time that an endpoint is passed over, so that a node that comes back is used soon."""
_USER_AGENT = "holdfast-python"
_CLOSED = "the client was closed"


class ConnectError(Exception):
    """There is no connection, so nothing was sent."""


class Link:
    """An open connection, what its requests begin with, and the stream that small calls share."""

    def __init__(self, loop: Loop, connection: Connection, authority: str) -> None:
        self.connection = connection
        self.authority = authority
        self.headers = rpc.Headers(authority, _USER_AGENT)
        self.pipeline = Pipeline(loop, self)


class Endpoint:
    """See the module. Any thread may use it.

    Args:
        address: ``host:port``.
        is_learned: told by a node rather than configured.
    """

    def __init__(self, loop: Loop, address: str, *, is_learned: bool) -> None:
        self.address = address
        self.is_learned = is_learned
        self.fault: str | None = None
        """Why there never can be a connection, if so."""
        self._target: tuple[str, int] = ("", 0)
        try:
            self._target = split(address)
        except ValueError as error:
            self.fault = str(error)
        self._loop = loop
        # Held for a few moves, never while anything waits.
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._connecting: Future[Link] | None = None
        self._closings = 0
        self._failures = 0
        self._avoid_until = 0.0

    @property
    def link(self) -> Link | None:
        """The open connection, if there is one."""
        link = self._link
        return link if link is not None and link.connection.is_open else None

    async def connect(self) -> Link:
        """The open connection, or the outcome of making one.

        Raises:
            ConnectError: there is none within the connect time-out.
        """
        with self._lock:
            link = self.link
            if link is not None:
                return link
            connecting, closings = self._connecting, self._closings
            is_mine = connecting is None
            if connecting is None:
                connecting = self._connecting = Future()
        if is_mine:
            own = task.start(self._connect())
            own.add_done_callback(lambda done: self._note_connected(connecting, done, closings))
        return await wait(task.follow(connecting))

    def mark_good(self) -> None:
        """It answered: use it again without delay."""
        self._failures = 0
        self._avoid_until = 0.0

    def mark_bad(self) -> None:
        """It failed or did not answer in time: prefer others for a while.

        Failures within the time in which it is avoided anyway count once, as they come from calls
        that had begun before.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._avoid_until:
                return
            avoid = min(_AVOID_FIRST * 2 ** min(self._failures, 8), _AVOID_MAX)
            self._failures += 1
            self._avoid_until = now + avoid

    @property
    def is_avoided(self) -> bool:
        """Whether others are to be asked first."""
        return time.monotonic() < self._avoid_until

    def close(self) -> None:
        """Closes the connection, or the one that is being made; what is on it ends."""
        with self._lock:
            link, self._link = self._link, None
            self._closings += 1
        if link is not None:
            link.connection.close(_CLOSED)

    def _note_connected(self, connecting: Future[Link], done: Future[Link], closings: int) -> None:
        error = done.exception()
        with self._lock:
            self._connecting = None
            is_closed = self._closings != closings
            if error is None:
                self._link = None if is_closed else done.result()
        if error is not None:
            task.fail(connecting, error)
            return
        if is_closed:
            done.result().connection.close(_CLOSED)
        task.settle(connecting, done.result())

    async def _connect(self) -> Link:
        if self.fault is not None:
            raise ConnectError(self.fault)
        attempt = task.start(self._open())
        try:
            return await task.within(CONNECT_SECONDS, attempt)
        except TimeoutError:
            message = f"no connection within {CONNECT_SECONDS:.0f} s"
            raise ConnectError(message) from None

    async def _open(self) -> Link:
        error = ConnectError(f"{self._target[0]} has no address")
        for family, address in await wait(_resolve(self._loop, *self._target)):
            try:
                connection = await wait(_dial(self._loop, family, address))
            except OSError as failure:
                error = ConnectError(failure.strerror or str(failure))
                continue
            return Link(self._loop, connection, self.address)
        raise error


def split(address: str) -> tuple[str, int]:
    """Host and port of an address.

    Raises:
        ValueError: it is not of the form ``host:port``.
    """
    host, colon, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    is_sound = bool(colon and host) and (is_bracketed or ":" not in host)
    if not is_sound or not port.isdigit() or not 0 < int(port) < 65_536 or "/" in host:
        raise ValueError(f"{address!r} is not of the form host:port")
    return host, int(port)


def _resolve(loop: Loop, host: str, port: int) -> Future[list[tuple[int, Any]]]:
    """The addresses of a host; on a thread of its own if they must be asked for."""
    found: Future[list[tuple[int, Any]]] = Future()

    def look_up(flags: int) -> list[tuple[int, Any]]:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        return [(info[0], info[4]) for info in infos]

    def ask() -> None:
        try:
            addresses = look_up(0)
        except OSError as error:
            failure = ConnectError(f"{host}: {error.strerror or error}")
            loop.call_soon(lambda: task.fail(found, failure))
        else:
            loop.call_soon(lambda: task.settle(found, addresses))

    try:
        found.set_result(look_up(socket.AI_NUMERICHOST))
    except OSError:
        threading.Thread(target=ask, name="holdfast-resolve", daemon=True).start()
    return found


def _dial(loop: Loop, family: int, address: Any) -> Future[Connection]:
    """An open connection, made on the loop's thread. Cancelling it closes the socket.

    Raises:
        OSError: there is none.
    """
    dialled: Future[Connection] = Future()
    sock = socket.socket(family, socket.SOCK_STREAM)
    connected: list[Connection] = []

    def begin() -> None:
        if dialled.cancelled():
            loop.close(sock)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code in (0, errno.EINPROGRESS):
            loop.watch(sock, selectors.EVENT_WRITE, finish)
        else:
            fail(code)

    def finish(_: int) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            fail(code)
        elif dialled.cancelled():
            loop.close(sock)
        else:
            connection = Connection(loop, sock)
            connected.append(connection)
            task.settle(dialled, connection)
            if dialled.cancelled():
                connection.close("nobody waits for the connection any more")

    def fail(code: int) -> None:
        loop.close(sock)
        task.fail(dialled, OSError(code, os.strerror(code)))

    def give_up() -> None:
        # Once it has become a connection, `finish` sees to it.
        if not connected:
            loop.close(sock)

    dialled.add_done_callback(lambda done: loop.call_soon(give_up) if done.cancelled() else None)
    loop.call_soon(begin)
    return dialled
