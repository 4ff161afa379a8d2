"""The one thread on which a process's connections are read and its timers go off.

Invariants:
- There is at most one loop a process, started by the first call. A child process that was forked
  has none of its parent's: their file descriptors are closed in the child at once, so that the
  other side notices when the parent dies, and a new loop is made when one is needed.
- Callbacks run on this thread, one at a time. What they raise is logged, and ends nothing else.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from typing import Callable

log = logging.getLogger("holdfast")

Callback = Callable[[], None]

_SWEEP_MIN = 512
"""So many cancelled timers are left lying before they are swept out."""


class Timer:
    """A callback to come."""

    __slots__ = ("_callback", "_loop")

    def __init__(self, loop: Loop, callback: Callback) -> None:
        self._loop = loop
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        """It will not go off, unless it is doing so already."""
        if self._callback is not None:
            self._callback = None
            self._loop.note_cancelled()

    def _fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop:
    """The thread, its timers and its sockets. Use :func:`here`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._woken_by, self._waker = socket.socketpair()
        self._woken_by.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken_by, selectors.EVENT_READ, self._drain)
        self._sockets: set[socket.socket] = {self._woken_by, self._waker}
        # Held for a few moves, never while a callback runs. One that can be taken twice, since what
        # the garbage collector ends, at any moment, may call here.
        self._lock = threading.RLock()
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        # Until when the thread sleeps unless it is woken; 0.0 while it is awake.
        self._asleep_until = 0.0
        self._thread: threading.Thread | None = None

    def call_soon(self, callback: Callback) -> None:
        """Runs the callback on the loop's thread."""
        with self._lock:
            self._soon.append(callback)
            must_wake = self._must_wake(0.0)
        if must_wake:
            self._wake()

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Runs the callback on the loop's thread in so many seconds, by CLOCK_MONOTONIC."""
        timer = Timer(self, callback)
        when = time.monotonic() + max(seconds, 0.0)
        with self._lock:
            heapq.heappush(self._timers, (when, next(self._numbers), timer))
            must_wake = self._must_wake(when)
        if must_wake:
            self._wake()
        return timer

    def note_cancelled(self) -> None:
        """A timer has been cancelled: sweep them out when most are."""
        with self._lock:
            self._cancelled += 1
            if self._cancelled < max(_SWEEP_MIN, len(self._timers) // 2):
                return
            self._timers = [entry for entry in self._timers if entry[2]._callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Calls back whenever the socket is ready for these events. On the loop's thread only."""
        if sock in self._sockets:
            self._selector.modify(sock, events, callback)
        else:
            self._selector.register(sock, events, callback)
            self._sockets.add(sock)

    def close(self, sock: socket.socket) -> None:
        """Closes a socket. On the loop's thread only."""
        if sock in self._sockets:
            self._sockets.discard(sock)
            self._selector.unregister(sock)
        sock.close()

    def abandon(self) -> None:
        """In a child process: closes this process's copies of the parent's descriptors.

        Takes no lock, since a thread that is not here may have held it, and does not touch the
        selector's registrations, which the parent shares.
        """
        self._lock = threading.RLock()
        for sock in self._sockets:
            sock.close()
        self._selector.close()

    def _must_wake(self, when: float) -> bool:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="holdfast", daemon=True)
            self._thread.start()
            return False
        if when >= self._asleep_until:
            return False
        # One wake is enough until it sleeps again.
        self._asleep_until = 0.0
        return True

    def _wake(self) -> None:
        # A full buffer has woken it often enough.
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b"\0")

    def _drain(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken_by.recv(4096):
                pass

    def _run(self) -> None:
        while True:
            ready = self._selector.select(self._time_to_sleep())
            self._asleep_until = 0.0
            for key, events in ready:
                try:
                    key.data(events)
                except Exception:
                    log.exception("a connection's callback failed")
            with self._lock:
                due, self._soon = self._soon, deque()
                now = time.monotonic()
                while self._timers and self._timers[0][0] <= now:
                    due.append(heapq.heappop(self._timers)[2]._fire)
            for callback in due:
                try:
                    callback()
                except Exception:
                    log.exception("a callback failed")

    def _time_to_sleep(self) -> float | None:
        with self._lock:
            if self._soon:
                return 0.0
            if not self._timers:
                self._asleep_until = float("inf")
                return None
            self._asleep_until = self._timers[0][0]
            return max(0.0, self._asleep_until - time.monotonic())


# By process id, so that a fork needs no lock: whatever was held then stays with the parent's loop.
_loops: dict[int, Loop] = {}


def here() -> Loop:
    """This process's loop."""
    pid = os.getpid()
    loop = _loops.get(pid)
    if loop is None:
        loop = _loops.setdefault(pid, Loop())
    return loop


# In a child process: what the parent had in flight. Kept, because its end would take locks that
# threads may have held which are not here.
_inherited: list[Loop] = []


def _after_fork_in_child() -> None:
    for loop in _loops.values():
        loop.abandon()
        _inherited.append(loop)
    _loops.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
