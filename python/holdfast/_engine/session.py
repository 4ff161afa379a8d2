"""Sessions, in which each write is carried out at most once (G4).

A session numbers its writes. The cluster keeps the outcome of every number not below
``first_incomplete``, and so can answer a copy of a write that it has already carried out.

Invariants:
- A seq is given out once, and ``first_incomplete`` is the lowest seq whose write is still worked
  on: neither answered to its caller (an unknown outcome is an answer) nor given up by it. Once a
  later write has told the cluster so, copies that are still on their way are refused. Only a write
  that goes through the log tells it; so the writes after one that may have left copies behind are
  marked as resent, until one of them is answered.
- At most 256 seqs lie between ``first_incomplete`` and the next one.
- A write is begun only if its session outlives the longest time that the write can take. That is
  counted on CLOCK_BOOTTIME from before the first transmission of the last call that certainly
  counted as use (opening or keeping the session; an answer to a write need not have come through
  the log). The cluster's clock is never faster than ours by more than the margin.
- A write is never moved to another session, and a session never crosses a fork.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections import deque
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

from holdfast._engine import boottime, calls, task
from holdfast._engine.deadline import Deadline
from holdfast._engine.task import wait
from holdfast._wire.cluster_pb2 import KeepSessionRequest, OpenSessionRequest
from holdfast._wire.common_pb2 import WriteContext
from holdfast.errors import HoldfastError, NotApplied, Unavailable

if TYPE_CHECKING:
    from typing import Protocol

    from google.protobuf.message import Message

    from holdfast._engine.calls import Call, Req, Res

    class Reader(Protocol):
        """Makes a call that may be repeated at will."""

        async def read(self, call: Call[Req, Res], request: Req, deadline: Deadline) -> Res: ...


log = logging.getLogger("holdfast")

UNDECIDED_MAX = 256
"""Most writes of one session that are undecided at a time; the cluster refuses more."""


class Sessions:
    """The session that an engine's writes share; opened when first needed."""

    def __init__(self, reader: Reader, idle: float) -> None:
        self._reader = reader
        self._idle = idle
        # Held to read or replace a reference.
        self._lock = threading.Lock()
        self._current: Session | None = None
        self._opening: Future[Session] | None = None

    async def current(self, deadline: Deadline) -> Session:
        """A session that outlives any write that begins now.

        Raises:
            NotApplied: none could be opened by the deadline.
            Refused: the cluster opens no more.
        """
        while True:
            with self._lock:
                session = self._usable()
                if session is not None:
                    return session
                opening = self._opening
                is_mine = opening is None
                if opening is None:
                    opening = self._opening = Future()
            if is_mine:
                self._start_opening(opening, deadline)
            own = task.follow(opening)
            try:
                if is_mine:
                    return await wait(own)  # It ends by the same deadline, and knows why.
                return await task.within(deadline.remaining(), own)
            except TimeoutError:
                raise NotApplied("not sent: no session could be opened in time") from None
            except HoldfastError as error:
                # Whoever opened it may have had less time than is left here.
                if is_mine or deadline.has_passed():
                    raise before_sending(error) from error

    def take(self) -> Session | None:
        """Takes the session away, to end it."""
        with self._lock:
            session, self._current = self._current, None
            return session

    def leave(self, session: Session) -> None:
        """Takes the session away if it is this one, and leaves it to lapse."""
        with self._lock:
            if self._current is session:
                self._current = None

    def _usable(self) -> Session | None:
        session = self._current
        if session is None or not session.is_good_for_a_write():
            return None
        if session.is_due_to_be_kept():
            # Ends by its own deadline; nobody waits for it, as the session is still good.
            task.spawn(session.keep(self._reader))
        return session

    def _start_opening(self, opening: Future[Session], deadline: Deadline) -> None:
        def note(done: Future[Session]) -> None:
            error = done.exception()
            with self._lock:
                self._opening = None
                if error is None:
                    self._current = done.result()
            if error is None:
                task.settle(opening, done.result())
            else:
                task.fail(opening, error)

        task.start(_open(self._reader, self._idle, deadline)).add_done_callback(note)


class Session:
    """See the module.

    Args:
        id_: the revision of the entry that opened it.
        idle: how long the cluster keeps it without use, in seconds.
        used: on CLOCK_BOOTTIME, before it was opened.
    """

    def __init__(self, id_: int, idle: float, used: float) -> None:
        self.id = id_
        self.idle = idle
        self._used = used
        self._is_being_kept = False
        self._is_gone = False
        # Held for a few moves, never while anything waits.
        self._lock = threading.Lock()
        self._next = 1
        self._open: list[int] = []  # a heap of seqs given out, of which `_closed` are answered
        self._closed: set[int] = set()
        # Seqs below it may have left copies behind of which the cluster may not know that they are
        # over.
        self._strays_below = 0
        self._waiting: deque[Future[None]] = deque()
        # Appended to without the lock, by the garbage collector, which may run at any moment.
        self._forgotten: deque[Seq] = deque()

    @property
    def call_seconds_max(self) -> float:
        """Longest time that a write in this session may take: half of its idle time."""
        return self.idle / 2

    def is_good_for_a_write(self) -> bool:
        """Whether it outlives a write that begins now.

        What the longest write leaves of the idle time, less a margin of 1 % and 10 ms for clocks
        that differ, is the age up to which one may begin.
        """
        age_max = self.idle - self.call_seconds_max - self.idle / 100 - 0.01
        return not self._is_gone and boottime.now() - self._used < age_max

    def is_due_to_be_kept(self) -> bool:
        """Whether a sign of life is due; true once for each."""
        if self._is_being_kept or boottime.now() - self._used < self.idle / 3:
            return False
        self._is_being_kept = True
        return True

    async def keep(self, reader: Reader) -> None:
        """Gives a sign of life."""
        began = boottime.now()
        request = KeepSessionRequest(context=WriteContext(session_id=self.id))
        try:
            await reader.read(calls.KEEP_SESSION, request, Deadline(self.idle / 8))
            self._used = began
        except HoldfastError as error:
            if error.is_session_gone:
                self.mark_gone()
            else:
                # It lapses unless a later attempt fares better; then a new one is opened.
                log.debug("session %d not kept: %s", self.id, error)
        finally:
            self._is_being_kept = False

    def mark_gone(self) -> None:
        """No further write begins in this session."""
        self._is_gone = True

    async def allot(self, deadline: Deadline) -> Seq:
        """The number of a new write; waits while too many are undecided.

        Raises:
            NotApplied: too many still were at the deadline.
        """
        while True:
            with self._lock:
                if self._next - self._first_incomplete() < UNDECIDED_MAX:
                    return self._allot()
                moved: Future[None] = Future()
                self._waiting.append(moved)
            try:
                await task.within(deadline.remaining(), moved)
            except TimeoutError:
                message = f"not sent: {UNDECIDED_MAX} earlier writes of this session are undecided"
                raise NotApplied(message) from None
            except CancelledError:
                if not moved.cancelled():
                    self._let_in(1)  # It was told that there is room, which is another one's now.
                raise

    def context(self, seq: Seq, *, is_resent: bool) -> WriteContext:
        """What a copy carries that is sent at this moment."""
        with self._lock:
            first_incomplete = self._first_incomplete()
        return WriteContext(
            session_id=self.id,
            seq=seq.number,
            first_incomplete=first_incomplete,
            resent=is_resent or seq.told is not None,
        )

    def finish(self, seq: Seq, *, is_decided: bool, was_carried_out: bool) -> None:
        """A write is over; see :class:`Seq`."""
        with self._lock:
            before = self._first_incomplete()
            self._close(seq, is_decided=is_decided, was_carried_out=was_carried_out)
            room = self._first_incomplete() - before
        self._let_in(room)

    def forget(self, seq: Seq) -> None:
        """A write is over that nobody can ask about any more. Takes no lock."""
        self._forgotten.append(seq)

    def _let_in(self, room: int) -> None:
        """Tells so many of those who wait that there is room."""
        ready: list[Future[None]] = []
        with self._lock:
            while self._waiting and len(ready) < room:
                moved = self._waiting.popleft()
                if not moved.done():  # else it has given up
                    ready.append(moved)
        for moved in ready:
            task.settle(moved, None)

    def _close(self, seq: Seq, *, is_decided: bool, was_carried_out: bool) -> None:
        self._closed.add(seq.number)
        if not is_decided:
            self._strays_below = max(self._strays_below, seq.number + 1)
        # A node may have refused it by itself, and then the log knows nothing of it.
        elif was_carried_out and seq.told is not None and seq.told >= self._strays_below:
            self._strays_below = 0

    def _first_incomplete(self) -> int:
        while self._forgotten:
            self._close(self._forgotten.popleft(), is_decided=False, was_carried_out=False)
        while self._open and self._open[0] in self._closed:
            self._closed.remove(heapq.heappop(self._open))
        return self._open[0] if self._open else self._next

    def _allot(self) -> Seq:
        number = self._next
        self._next += 1
        heapq.heappush(self._open, number)
        told = self._first_incomplete() if self._strays_below > 0 else None
        return Seq(self, number, told)


class Seq:
    """The number of one write, taken until the write is answered or given up.

    Args:
        session: the session that gave it out.
        number: unique in the session.
        told: set if all its copies go through the log: the first incomplete seq when it was given
            out, which it tells the cluster at least.
    """

    __slots__ = ("is_over", "number", "session", "told")

    def __init__(self, session: Session, number: int, told: int | None) -> None:
        self.session = session
        self.number = number
        self.told = told
        self.is_over = False

    def decide(self, *, was_carried_out: bool) -> None:
        """The write is over, with a certain result."""
        self._finish(is_decided=True, was_carried_out=was_carried_out)

    def give_up(self) -> None:
        """The write is over, and copies of it may still be on their way."""
        self._finish(is_decided=False, was_carried_out=False)

    def forget(self) -> None:
        """As :meth:`give_up`, for whoever must not wait for a lock."""
        if not self.is_over:
            self.is_over = True
            self.session.forget(self)

    def _finish(self, *, is_decided: bool, was_carried_out: bool) -> None:
        if not self.is_over:
            self.is_over = True
            self.session.finish(self, is_decided=is_decided, was_carried_out=was_carried_out)

    def stamp(self, request: Message, *, is_resent: bool) -> None:
        """Fills in the context of a write's request."""
        context = self.session.context(self, is_resent=is_resent)
        request.context.CopyFrom(context)  # type: ignore[attr-defined]


def before_sending(error: HoldfastError) -> HoldfastError:
    """The error of a write that failed in a call that had to come before it."""
    if isinstance(error, Unavailable):
        return NotApplied(error.summary, error.attempts, error.header)
    return error


async def _open(reader: Reader, idle: float, deadline: Deadline) -> Session:
    """Opens a session. Repeating that does no harm: a session too many lapses by itself."""
    began = boottime.now()
    request = OpenSessionRequest(idle_ms=round(idle * 1000))
    opened = await reader.read(calls.OPEN_SESSION, request, deadline)
    return Session(opened.session_id, opened.idle_ms / 1000, began)
