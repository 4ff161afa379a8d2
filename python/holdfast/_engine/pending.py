"""A write that has a number and, until it is decided, can be sent again under it.

Invariants:
- The number is kept until the write is decided or given up, whichever future was cancelled
  meanwhile; so the cluster keeps the outcome for as long.
- Sent again, all its copies are marked: whatever became of the first ones, it is carried out once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Generic

from holdfast._engine import answer, task
from holdfast._engine.calls import Req, Res
from holdfast._engine.copies import Run
from holdfast._engine.deadline import Deadline
from holdfast.errors import Applied, HoldfastError, OutcomeUnknown, SessionExpired

if TYPE_CHECKING:
    from concurrent.futures import Future

    from holdfast._engine.calls import Call
    from holdfast._engine.runtime import Runtime
    from holdfast._engine.session import Seq


class Pending(Generic[Req, Res]):
    """See the module. Made by ``Engine.begin``; one :meth:`send` at a time.

    While it is undecided its request must not be changed. One that is forgotten is given up. It is
    the process's that began it: a session never crosses a fork.
    """

    def __init__(
        self, runtime: Runtime, call: Call[Req, Res], request: Req, seq: Seq, deadline: float
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._request = request
        self._seq = seq
        self._deadline = deadline
        self._may_have_left = False

    def __del__(self) -> None:
        self._seq.forget()

    @property
    def is_decided(self) -> bool:
        """Whether sending it again could tell nothing new.

        It was answered, was definitely not applied, was given up, or its session is gone.
        """
        return self._seq.is_over

    def send(self, *, deadline: float | None = None, budget: float | None = None) -> Future[Res]:
        """Sends it until it is answered or the deadline passes; again and again until decided.

        A write that stays open holds up no others: they go on in a new session.

        Args:
            deadline: how long this attempt may take, in seconds; the engine's by default.
            budget: after so many seconds, if certainly no copy has been carried out or may yet be,
                ends with ``NotApplied``; else goes on until the deadline.

        Raises:
            OutcomeUnknown: it may have been applied, or may still be; send it again. If
                :attr:`is_decided` is then true its session is gone, and nobody will ever tell.
            NotApplied: it was definitely not applied, and is decided.
            Refused: the cluster refused it, and it is decided.
        """
        whole = Deadline(self._deadline if deadline is None else deadline)
        return task.start(self._send_within(budget, whole))

    def give_up(self) -> None:
        """Gives its number back; an unknown outcome stays unknown."""
        self._seq.give_up()

    async def _send_within(self, budget: float | None, deadline: Deadline) -> Res:
        try:
            if budget is not None and not self._may_have_left:
                try:
                    return await self.run(Run.FIRST, deadline.at_most(budget))
                except OutcomeUnknown:
                    if self.is_decided:
                        raise
            return await self.run(Run.ONLY, deadline)
        finally:
            # Also when the future was cancelled: an open write's number would hold up the 256th
            # one after it.
            if not self.is_decided:
                self._runtime.sessions.leave(self._seq.session)

    async def run(self, nth: Run, deadline: Deadline) -> Res:
        """Sends it until it is answered or the deadline passes; raises as :meth:`send`."""
        if self.is_decided:
            raise ValueError("a decided write is not sent again")
        if os.getpid() != self._runtime.pid:
            raise ValueError("a write is sent again only by the process that began it")
        nth = Run.FURTHER if self._may_have_left else nth
        # Should this be cancelled.
        self._may_have_left = True
        session = self._seq.session
        deadline = deadline.at_most(session.call_seconds_max)
        try:
            response = await self._runtime.write_copies(
                self._call, self._request, self._seq, nth, deadline
            )
        except HoldfastError as error:
            if error.applied == Applied.NO:
                self._seq.decide(was_carried_out=False)
                if error.is_session_gone:
                    session.mark_gone()
                    raise _expired(session.id, error) from error
            elif answer.tells_of_lost_session(error):
                self._seq.give_up()
            raise
        self._seq.decide(was_carried_out=True)
        return response


def _expired(session_id: int, error: HoldfastError) -> SessionExpired:
    message = f"session {session_id} has expired; the write was not applied, send it again"
    return SessionExpired("SESSION_EXPIRED", message, {"session": str(session_id)}, error.header)
