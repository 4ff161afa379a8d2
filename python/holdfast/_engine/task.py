"""Coroutines that belong to no event loop, and futures that every flavour can wait for.

What is written once as ``async def`` runs here: a coroutine awaits futures (``await wait(f)``), and
goes on, on whichever thread completes them, usually the loop's. :func:`start` gives its result as a
``concurrent.futures.Future``: a thread waits for that with ``result()``, asyncio with
``wrap_future``, Twisted by a callback.

Cancelling a task's future cancels what its coroutine awaits at that moment, so that it unwinds with
``CancelledError`` and can clean up.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from holdfast._engine import loop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from holdfast._engine.loop import Timer

log = logging.getLogger("holdfast")

T = TypeVar("T")


class wait(Generic[T]):  # noqa: N801 - reads as a verb
    """What a coroutine awaits to have a future's result."""

    __slots__ = ("_future",)

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def __await__(self) -> Generator[Future[Any], None, T]:
        if not self._future.done():
            yield self._future
        return self._future.result()


def start(coroutine: Coroutine[Future[Any], None, T]) -> Future[T]:
    """Runs a coroutine, here until it first has to wait; its result as a future."""
    task = _Task(coroutine)
    task.step()
    if not task.future.done():
        task.future.add_done_callback(task.note_done)
    return task.future


def spawn(coroutine: Coroutine[Future[Any], None, T]) -> Future[T]:
    """As :func:`start`, for a coroutine whose result nobody asks for: what it raises is logged."""
    future = start(coroutine)

    def note(done: Future[T]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            log.error("what runs in the background has failed", exc_info=error)

    future.add_done_callback(note)
    return future


def settle(future: Future[T], result: T) -> None:
    """Sets a future's result, unless it is done or cancelled."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(result)


def fail(future: Future[T], error: BaseException) -> None:
    """Sets a future's exception, unless it is done or cancelled."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)


def done(result: T) -> Future[T]:
    """A future that has its result."""
    future: Future[T] = Future()
    future.set_result(result)
    return future


async def sleep(seconds: float) -> None:
    """Waits for so many seconds, by CLOCK_MONOTONIC."""
    future: Future[None] = Future()
    timer = loop.here().call_later(seconds, lambda: settle(future, None))
    try:
        await wait(future)
    finally:
        timer.cancel()


def follow(future: Future[T]) -> Future[T]:
    """A future of one's own with another one's result; cancelling it leaves the other one alone."""
    own: Future[T] = Future()
    pass_on(future, own)
    return own


def pass_on(future: Future[T], other: Future[T]) -> None:
    """Gives a future's result, once there is one, to another one."""

    def settle_other(done: Future[T]) -> None:
        if done.cancelled():
            other.cancel()
            return
        error = done.exception()
        if error is not None:
            fail(other, error)
        else:
            settle(other, done.result())

    future.add_done_callback(settle_other)


async def first(*futures: Future[Any], seconds: float | None = None) -> None:
    """Waits until one of the futures is done, or for so many seconds; cancels none of them."""
    if any(future.done() for future in futures):
        return
    told: Future[None] = Future()
    timer: Timer | None = None
    if seconds is not None:
        timer = loop.here().call_later(seconds, lambda: settle(told, None))
    for future in futures:
        future.add_done_callback(lambda _: settle(told, None))
    try:
        await wait(told)
    finally:
        if timer is not None:
            timer.cancel()


async def within(seconds: float, future: Future[T]) -> T:
    """A future's result; cancels it after so many seconds.

    Raises:
        TimeoutError: it was not done by then.
    """
    await first_or_cancel(seconds, future)
    if not future.done() or future.cancelled():
        raise TimeoutError
    return future.result()


async def first_or_cancel(seconds: float, future: Future[Any]) -> None:
    """Waits for a future, and cancels it after so many seconds, or if this is cancelled."""
    try:
        await first(future, seconds=seconds)
    finally:
        if not future.done():
            future.cancel()


class Signal(Generic[T]):
    """Something that happens once, and is told to all who wait for it."""

    def __init__(self) -> None:
        # Held for a few moves, never while anybody is told.
        self._lock = threading.Lock()
        self._waiters: set[Future[T]] = set()
        self._told: T | None = None

    @property
    def told(self) -> T | None:
        """What has happened; None as long as nothing has."""
        return self._told

    def tell(self, what: T) -> None:
        """It has happened. What is told first stays."""
        with self._lock:
            if self._told is not None:
                return
            self._told = what
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            settle(waiter, what)

    def waiter(self) -> Future[T]:
        """A future that is done when it has happened; to be given to :meth:`forget`."""
        waiter: Future[T] = Future()
        with self._lock:
            told = self._told
            if told is None:
                self._waiters.add(waiter)
        if told is not None:
            settle(waiter, told)
        return waiter

    def forget(self, waiter: Future[T]) -> None:
        """Nobody waits with this future any more."""
        with self._lock:
            self._waiters.discard(waiter)

    async def wait(self, seconds: float | None = None) -> T | None:
        """Waits until it has happened; None if it has not within so many seconds."""
        await any_of(self, seconds=seconds)
        return self._told


async def any_of(*signals: Signal[Any], seconds: float | None = None) -> None:
    """Waits until one of several things has happened, or for so many seconds."""
    waiters = [signal.waiter() for signal in signals]
    try:
        await first(*waiters, seconds=seconds)
    finally:
        for signal, waiter in zip(signals, waiters):
            signal.forget(waiter)


class Mailbox(Generic[T]):
    """Things that arrive, from any thread, for one coroutine."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._told: Future[None] | None = None

    def put(self, item: T) -> None:
        """Adds a thing; whoever waits for it goes on, here."""
        self._items.append(item)
        told = self._told
        if told is not None:
            settle(told, None)

    async def get(self, seconds: float) -> T | None:
        """The next thing; None if there is none within so many seconds."""
        if not self._items:
            told: Future[None] = Future()
            self._told = told
            # Something may have come between the look and the promise to be told.
            if not self._items:
                timer = loop.here().call_later(seconds, lambda: settle(told, None))
                try:
                    await wait(told)
                finally:
                    timer.cancel()
            self._told = None
        return self._items.popleft() if self._items else None


class _Task(Generic[T]):
    """A coroutine on its way.

    Only one thread steps it at a time: whoever completes what it awaits, which is told once.
    """

    __slots__ = ("_awaited", "_coroutine", "_is_cancelled", "_lock", "future")

    def __init__(self, coroutine: Coroutine[Future[Any], None, T]) -> None:
        self._coroutine = coroutine
        # Held for a few moves, never while the coroutine runs.
        self._lock = threading.Lock()
        self._awaited: Future[Any] | None = None
        self._is_cancelled = False
        self.future: Future[T] = Future()

    def step(self, _: Future[Any] | None = None) -> None:
        while True:
            with self._lock:
                self._awaited = None
                is_cancelled, self._is_cancelled = self._is_cancelled, False
            try:
                # It is told once, so that it can wait again to clean up.
                if is_cancelled:
                    awaited = self._coroutine.throw(CancelledError())
                else:
                    awaited = self._coroutine.send(None)
            except StopIteration as end:
                settle(self.future, end.value)
                return
            except CancelledError:
                self.future.cancel()
                return
            except BaseException as error:
                fail(self.future, error)
                return
            with self._lock:
                self._awaited = awaited
                is_cancelled = self._is_cancelled
            if is_cancelled:
                awaited.cancel()
            if not awaited.done():
                awaited.add_done_callback(self.step)
                return

    def note_done(self, future: Future[T]) -> None:
        if future.cancelled():
            with self._lock:
                self._is_cancelled = True
                awaited = self._awaited
            if awaited is not None:
                awaited.cancel()
