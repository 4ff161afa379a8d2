"""One call: brings it to an answer, on whichever node, by its deadline.

A call is sent as one or more *copies*. A copy goes to one endpoint and ends with an answer, or is
lost (the connection broke, or the node itself does not know). When a copy has not been answered for
a while another one goes to another endpoint beside it, so that a node that hangs costs a second and
not the deadline. A node without a leader holds a call until there is one (G3), so a copy that is
not answered at once is nothing unusual.

Invariants:
- All copies of a write carry the same seq, and only the first is not marked as resent.
- The answer to an unmarked copy may have come without a log entry, and then it says nothing about
  marked ones: one of them that arrives later would still be carried out. It is the call's result
  only if no other copy can be on its way; else a marked copy has to be answered.
- *Definitely not applied* is reported only if every copy that was handed to a connection got a
  definite answer, or if the refusal of one holds for all of them (``Reach``). A copy counts as sent
  from the moment it is handed over, whether or not a byte of it left (G5).
- Nothing is sent after the deadline, nor after a refusal while copies are still in the air.
"""

from __future__ import annotations

import enum
import logging
import random
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar

from holdfast._engine import answer, rpc, task
from holdfast._engine.answer import Answer, Fate, Reach
from holdfast._engine.deadline import TICK, Deadline
from holdfast._engine.endpoint import ConnectError, Endpoint, Link
from holdfast._engine.pool import ForeignClusterError
from holdfast._engine.task import Mailbox, wait
from holdfast.errors import (
    Attempt,
    Header,
    HoldfastError,
    NotApplied,
    OutcomeUnknown,
    Unavailable,
)

if TYPE_CHECKING:
    from concurrent.futures import Future

    from holdfast._engine.pool import Pool
    from holdfast._wire.common_pb2 import ResponseHeader

log = logging.getLogger("holdfast")

_COPIES_MAX = 4
"""Most copies of one call in the air together: enough to get around two nodes that hang."""
_PAUSE_FIRST = 0.02
"""Pause after all endpoints have failed once, in seconds; doubles from round to round."""
_PAUSE_MAX = 0.4
"""Longest pause between rounds: about an election, after which a leader can be found."""
ATTEMPT_SECONDS = 1.0
"""How long one node may leave a call unanswered before a copy of it is also sent to another one.
Never more than a quarter of the call's own time, and growing from copy to copy."""
_FIRST_SHARE = 0.8
"""In how much of a first run's time nodes may carry copies out. They hold a copy until nearly the
end of that while there is no leader, and the rest is for their word that it was not carried out:
too late, that leaves the outcome unknown."""
_STRAY = "answered, but another copy of the write may still be on its way"

R = TypeVar("R")


class Kind(enum.Enum):
    """What a lost copy means for a call."""

    READ = enum.auto()
    """Nothing: repeating it does no harm, and nobody asks whether it was carried out."""
    WRITE = enum.auto()
    """It may have been applied; further copies under the same seq get its outcome."""


class Run(enum.Enum):
    """What came before a run that brings a call to an answer, and whether others may follow."""

    ONLY = enum.auto()
    """The only one: it does all it can by its deadline."""
    FIRST = enum.auto()
    """The first of several, and a short one: it does not send copies beside each other, since a
    later run can do that in peace, and waits longer than nodes hold them."""
    FURTHER = enum.auto()
    """Copies of an earlier run may be on their way, or may have been carried out. They count as one
    copy that was lost, so that all copies are marked as resent and none is reported as definitely
    not applied."""


@dataclass(frozen=True)
class Plan(Generic[R]):
    """How a call is sent."""

    name: str
    """For messages: ``State.GetState``."""
    kind: Kind
    send: Callable[[Link, bool, float], Future[Any]]
    """Sends a copy on a connection, marked as resent or not, of use for so many seconds."""
    read: Callable[[Any], R]
    """The response in what comes of that."""
    header: Callable[[R], ResponseHeader]
    """The header of a response."""


async def run(pool: Pool, plan: Plan[R], deadline: Deadline, nth: Run = Run.ONLY) -> R:
    """Sends copies of a call until it is answered or the deadline passes.

    Raises:
        HoldfastError: as the outcome is.
    """
    return await _Copies(pool, plan, deadline, nth).run()


async def run_at(pool: Pool, plan: Plan[R], endpoint: Endpoint, deadline: Deadline) -> R:
    """Sends one copy to this one endpoint.

    Raises:
        HoldfastError: as the outcome is.
    """
    return await _Copies(pool, plan, deadline, Run.ONLY).run_at(endpoint)


@dataclass(frozen=True)
class _Flight(Generic[R]):
    """One copy that has landed."""

    endpoint: Endpoint
    was_sent: bool
    """Whether it was handed to a connection."""
    was_resent: bool
    response: R | None
    answer: Answer | None


class _Copies(Generic[R]):
    """The copies of one call."""

    def __init__(self, pool: Pool, plan: Plan[R], deadline: Deadline, nth: Run) -> None:
        self._pool = pool
        self._plan = plan
        self._deadline = deadline
        # Until when nodes may carry copies out.
        self._carried_out_by = deadline
        if nth == Run.FIRST:
            self._carried_out_by = deadline.at_most(deadline.remaining() * _FIRST_SHARE)
        self._progress = _Progress(pool, plan, is_further=nth == Run.FURTHER)
        self._round = _Round(pool)
        self._hedge = _Hedge(deadline, is_allowed=nth != Run.FIRST)
        self._landed: Mailbox[_Flight[R]] = Mailbox()
        self._flights: dict[str, Future[None]] = {}

    async def run(self) -> R:
        faults = self._pool.faults()
        if faults is not None:
            for address, message in faults.items():
                self._progress.note(address, None, message)
            raise self._progress.give_up()
        try:
            while True:
                pause = self._send_copies()
                flight = await self._landed.get(self._time_to_wait(pause))
                if flight is not None:
                    del self._flights[flight.endpoint.address]
                    response = self._progress.take_in(flight)
                    if response is not None:
                        return response
                elif self._deadline.has_passed():
                    self._progress.note_silent(self._flights)
                    raise self._progress.give_up()
                elif self._hedge.is_due():
                    self._hedge.add_copy()
                elif pause is not None and pause.is_over():
                    self._round.begin_again()
        finally:
            # Nobody waits for them any more: the nodes are told.
            for flying in self._flights.values():
                flying.cancel()

    async def run_at(self, endpoint: Endpoint) -> R:
        self._launch(endpoint)
        try:
            flight = await self._landed.get(self._deadline.remaining())
            if flight is not None:
                response = self._progress.take_in(flight)
                if response is not None:
                    return response
            else:
                self._progress.note_silent(self._flights)
            raise self._progress.give_up()
        finally:
            for flying in self._flights.values():
                flying.cancel()

    def _send_copies(self) -> _Pause | None:
        """Sends as many copies as may be in the air; the pause to make if there is no endpoint."""
        while len(self._flights) < self._hedge.copies and self._progress.may_send:
            if self._carried_out_by.has_passed():
                return None
            endpoint = self._round.next(self._flights)
            if endpoint is None:
                return self._round.pause()
            self._hedge.note_sent(endpoint)
            self._launch(endpoint)
        return None

    def _launch(self, endpoint: Endpoint) -> None:
        self._flights[endpoint.address] = task.start(self._transmit(endpoint))

    def _time_to_wait(self, pause: _Pause | None) -> float:
        seconds = min(self._deadline.remaining(), TICK)
        if self._hedge.may_add:
            seconds = min(seconds, self._hedge.remaining())
        if pause is not None:
            seconds = min(seconds, pause.remaining())
        return seconds

    async def _transmit(self, endpoint: Endpoint) -> None:
        was_sent = was_resent = False
        response: R | None = None
        said: Answer | None = None
        try:
            link = endpoint.link or await endpoint.connect()
            if self._carried_out_by.has_passed():
                raise ConnectError("connected too late to send")
            was_sent, was_resent = True, self._progress.sent > 0
            self._progress.sent += 1
            sending = self._plan.send(link, was_resent, self._carried_out_by.remaining())
            response = self._plan.read(await wait(sending))
        except ConnectError as error:
            said = Answer(Fate.NOT_SENT, str(error))
        except rpc.Status as status:
            said = answer.read(status)
        except CancelledError:
            raise
        except Exception as error:
            # A response that cannot be read, or a fault of ours: nobody knows what became of it.
            log.exception("a copy of %s failed", self._plan.name)
            said = Answer(Fate.UNKNOWN, repr(error))
        self._landed.put(_Flight(endpoint, was_sent, was_resent, response, said))


class _Progress(Generic[R]):
    """What is known about a call that has no answer yet."""

    def __init__(self, pool: Pool, plan: Plan[R], *, is_further: bool) -> None:
        self._pool = pool
        self._kind = plan.kind
        self._plan = plan
        self._started = time.monotonic()
        self.sent = 1 if is_further else 0
        """Copies handed to a connection."""
        self._definite = 0  # those of them that certainly changed nothing
        self._lost = self.sent  # those of them of which nobody knows what became
        self._answered: R | None = None  # to the unmarked copy, while others may be on their way
        self._refused: tuple[Answer, bool] | None = None  # and whether that copy was resent
        self._attempts: dict[str, Attempt] = {}
        self._header: Header | None = None

    @property
    def _undecided(self) -> int:
        """Copies that may have been applied: lost, or still in the air."""
        return self.sent - self._definite

    @property
    def may_send(self) -> bool:
        """After a refusal the copies in the air come first."""
        return self._refused is None or self._undecided == self._lost

    def take_in(self, flight: _Flight[R]) -> R | None:
        """Takes in what became of one copy; the call's response once that is certain.

        Raises:
            HoldfastError: it is certain that there is none.
        """
        if flight.answer is None:
            assert flight.response is not None
            said = self._take_response(flight, flight.response)
            if said is None:
                if self._kind != Kind.WRITE or flight.was_resent:
                    return flight.response
                # It counts as lost from here: only its answer is left, and that is kept.
                self._lost += 1
                self.note(flight.endpoint.address, None, _STRAY)
                self._answered = flight.response
                return self._verdict()
        else:
            said = self._check_cluster(flight.endpoint, flight.answer)
        self._take_answer(flight, said)
        self.note(flight.endpoint.address, said.reason, said.message)
        return self._verdict()

    def _take_response(self, flight: _Flight[R], response: R) -> Answer | None:
        try:
            header = Header.of(self._plan.header(response))
            self._pool.observe(flight.endpoint, header, has_answered=True)
        except ForeignClusterError as error:
            return Answer(Fate.UNKNOWN, str(error), answer.FOREIGN)
        flight.endpoint.mark_good()
        return None

    def _check_cluster(self, endpoint: Endpoint, said: Answer) -> Answer:
        if said.header is not None:
            try:
                self._pool.observe(endpoint, said.header, has_answered=False)
            except ForeignClusterError as error:
                return said.in_foreign_cluster(str(error))
        return said

    def _take_answer(self, flight: _Flight[R], said: Answer) -> None:
        self._header = said.header or self._header
        if said.fate == Fate.NOT_SENT:
            self._definite += flight.was_sent
            flight.endpoint.mark_bad()
        elif said.fate == Fate.ELSEWHERE:
            self._definite += 1
        elif said.fate == Fate.UNKNOWN:
            self._lost += 1
            flight.endpoint.mark_bad()
        else:
            self._definite += 1
            flight.endpoint.mark_good()
            self._refused = (said, flight.was_resent)

    def _verdict(self) -> R | None:
        """The call's response, if what has come in so far settles it."""
        # Nor can a copy do anything any more once the session is gone.
        is_forgotten = self._refused is not None and self._refused[0].reach() == Reach.FORGOTTEN
        if self._answered is not None and (self._undecided == 1 or is_forgotten):
            return self._answered
        self._raise_if_refused()
        return None

    def _raise_if_refused(self) -> None:
        if self._refused is None:
            return
        said, was_resent = self._refused
        reach = said.reach()
        holds_for_all = (
            self._kind == Kind.READ
            or reach == Reach.REQUEST
            or (reach == Reach.OUTCOME and was_resent)
        )
        if holds_for_all or self._undecided == 0:
            raise said.error()
        is_in_the_air = self._undecided > self._lost
        if reach == Reach.FORGOTTEN and not is_in_the_air:
            raise self._unknown()

    def note_silent(self, addresses: dict[str, Future[None]]) -> None:
        """Says of the endpoints with a copy in the air that they have not answered it."""
        for address in addresses:
            self.note(address, None, answer.SILENCE)

    def note(self, address: str, reason: str | None, message: str) -> None:
        """Says what happened at an endpoint."""
        self._attempts[address] = Attempt(address, reason, message)

    def give_up(self) -> HoldfastError:
        """The error of a call whose deadline has passed."""
        if self._kind == Kind.READ:
            return Unavailable(self._summary("got no answer"), self._met(), self._header)
        if self._undecided > 0:
            return self._unknown()
        return NotApplied(self._summary("was not carried out"), self._met(), self._header)

    def _unknown(self) -> HoldfastError:
        what = "was sent and may have been carried out, but got no answer"
        return OutcomeUnknown(self._summary(what), self._met(), self._header)

    def _met(self) -> list[Attempt]:
        return [self._attempts[address] for address in sorted(self._attempts)]

    def _summary(self, what: str) -> str:
        seconds = time.monotonic() - self._started
        summary = f"{self._plan.name} {what} within {seconds:.1f} s"
        return summary if self._attempts else f"{summary}; there are no endpoints to try"


class _Pause:
    """The time between two rounds."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def remaining(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def is_over(self) -> bool:
        return time.monotonic() >= self._until


class _Round:
    """One pass over the endpoints, each of which gets one copy."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tried: set[str] = set()
        self._number = 0

    def next(self, in_flight: dict[str, Any]) -> Endpoint | None:
        """The next endpoint that has not had a copy in this round and has none in the air.

        The order is looked at afresh each time, so that a hint is followed at once.
        """
        if not self._tried and not in_flight:
            best = self._pool.best()
            if best is not None:
                self._tried.add(best.address)
                return best
        for endpoint in self._pool.in_order():
            if endpoint.address not in self._tried and endpoint.address not in in_flight:
                self._tried.add(endpoint.address)
                return endpoint
        return None

    def pause(self) -> _Pause:
        """How long to wait before the next round.

        With jitter, so that clients that failed together do not come back together.
        """
        longest = min(_PAUSE_FIRST * 2 ** min(self._number, 8), _PAUSE_MAX)
        return _Pause(longest * random.uniform(0.5, 1.0))

    def begin_again(self) -> None:
        self._tried.clear()
        self._number += 1


class _Hedge:
    """When to send another copy beside those in the air."""

    def __init__(self, deadline: Deadline, *, is_allowed: bool) -> None:
        self.copies = 1
        self._is_allowed = is_allowed
        self._wait = min(ATTEMPT_SECONDS, deadline.remaining() / 4)
        self._at = time.monotonic() + self._wait
        self._newest: tuple[Endpoint, float] | None = None

    @property
    def may_add(self) -> bool:
        return self._is_allowed and self.copies < _COPIES_MAX

    def note_sent(self, endpoint: Endpoint) -> None:
        now = time.monotonic()
        self._newest = (endpoint, now)
        self._at = now + self._wait

    def remaining(self) -> float:
        return max(0.0, self._at - time.monotonic())

    def is_due(self) -> bool:
        return self.may_add and time.monotonic() >= self._at

    def add_copy(self) -> None:
        now = time.monotonic()
        if self._newest is not None and now - self._newest[1] >= ATTEMPT_SECONDS:
            # However short the call's own time is, less silence is no reason to suspect a node.
            self._newest[0].mark_bad()
            self._newest = None
        self.copies += 1
        self._wait *= 1.5
        self._at = now + self._wait
