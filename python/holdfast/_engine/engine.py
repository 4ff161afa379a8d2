"""The engine: reads, exactly-once writes and streams, as futures that any flavour can wait for.

Nothing here blocks, connects in a constructor, or runs on the caller's thread for longer than it
takes to hand a request over. A future's callbacks run on the engine's own thread, which carries
every call, renewal and timer of the process: they must be short, and never wait.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast._engine import calls, task
from holdfast._engine.calls import Req, Res
from holdfast._engine.deadline import Deadline
from holdfast._engine.pending import Pending
from holdfast._engine.runtime import Runtime
from holdfast._engine.stream import Exchange, Stream
from holdfast._wire.cluster_pb2 import CloseSessionRequest
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from holdfast._engine.calls import Call, ExchangeCall, StreamCall

__all__ = ["Engine", "Exchange", "Pending", "Stream"]


class Engine:
    """What all facades of one client share: connections, session, deadline.

    Any thread may use it, and so may a child process that was forked: it gets connections and a
    session of its own.

    Args:
        endpoints: nodes to begin with, as ``host:port``; others are learned from their answers.
        deadline: how long a call may take, in seconds, if it does not say otherwise.
        session_idle: how long the cluster keeps the session without a write, in seconds: 10 to
            86,400. A write never takes longer than half of it.
        connected_as: an engine whose connections it shares.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        deadline: float,
        session_idle: float,
        connected_as: Engine | None = None,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.deadline = deadline
        self.session_idle = session_idle
        self._connected_as = connected_as
        # By process id, so that a fork needs no lock. A parent's runtime is kept in its child, and
        # never touched: its end would take locks that threads may have held which are not here.
        self._runtimes: dict[int, Runtime] = {}

    def read(
        self, call: Call[Req, Res], request: Req, *, deadline: float | None = None
    ) -> Future[Res]:
        """Makes a call that may be repeated at will.

        Raises:
            Unavailable: no node answered in time.
            Refused: the cluster refused it.
        """
        return task.start(self.runtime.read(call, request, self.until(deadline)))

    def write(
        self, call: Call[Req, Res], request: Req, *, deadline: float | None = None
    ) -> Future[Res]:
        """Makes a write, exactly once (G4); fills ``request.context``.

        Cancelling the future gives the write up: nothing more is sent, and if something was, its
        outcome is unknown. Until the future is done the request must not be changed.

        Raises:
            NotApplied: it was definitely not carried out, and nobody refused it.
            OutcomeUnknown: it was sent, and got no answer by the deadline.
            Refused: the cluster refused it; ``SessionExpired`` if its session was gone.
        """
        return task.start(self.runtime.write(call, request, self.until(deadline)))

    def begin(
        self, call: Call[Req, Res], request: Req, *, deadline: float | None = None
    ) -> Future[Pending[Req, Res]]:
        """Gives a write a number and sends nothing yet; see :class:`Pending`.

        Raises:
            NotApplied: there is no session by the deadline, or too many writes are undecided.
        """
        return task.start(self.runtime.begin(call, request, self.until(deadline)))

    def stream(
        self, call: StreamCall[Req, Res], request: Req, *, deadline: float | None = None
    ) -> Future[Stream[Res]]:
        """Opens a stream of responses at any node; done when the first one has come.

        The stream does not go on at another node when it breaks: another one is at another
        revision. The deadline is for the first response.

        Raises:
            Unavailable: no node answered in time.
            Refused: the cluster refused it.
        """
        return task.start(self.runtime.stream(call, request, self.until(deadline)))

    def exchange(
        self,
        call: ExchangeCall[Req, Res],
        *,
        avoid: str | None = None,
        deadline: float | None = None,
    ) -> Future[Exchange[Req, Res]]:
        """Opens a stream of requests and responses at a node, one at ``avoid`` only if need be.

        Raises:
            Unavailable: there is no connection to any node.
        """
        return task.start(self.runtime.exchange(call, self.until(deadline), avoid))

    def ask(
        self, address: str, call: Call[Req, Res], request: Req, *, deadline: float | None = None
    ) -> Future[Res]:
        """Asks the node at this address, once and nobody else.

        Raises:
            Unavailable: it did not answer.
            Refused: it refused.
        """
        return task.start(self.runtime.ask(address, call, request, self.until(deadline)))

    def close(self, *, deadline: float | None = None) -> Future[None]:
        """Ends the session, so that the cluster need not keep it until it lapses; then connections.

        Calls that are under way end. A call after it begins anew.

        Raises:
            Unavailable: no node answered in time; the session then lapses by itself.
        """
        return task.start(self._close(self.until(deadline)))

    def with_own_session(self) -> Engine:
        """An engine with the same connections, and a session that it shares with nobody."""
        return Engine(
            self.endpoints,
            deadline=self.deadline,
            session_idle=self.session_idle,
            connected_as=self,
        )

    def until(self, deadline: float | None) -> Deadline:
        """When a call must be over that begins now and has so many seconds."""
        return Deadline(self.deadline if deadline is None else deadline)

    @property
    def runtime(self) -> Runtime:
        """What it has in this process."""
        pid = os.getpid()
        runtime = self._runtimes.get(pid)
        if runtime is None:
            other = None if self._connected_as is None else self._connected_as.runtime
            made = Runtime(self.endpoints, self.session_idle, other)
            runtime = self._runtimes.setdefault(pid, made)
        return runtime

    async def _close(self, deadline: Deadline) -> None:
        runtime = self._runtimes.get(os.getpid())
        if runtime is None:
            return
        session = runtime.sessions.take()
        try:
            if session is not None:
                request = CloseSessionRequest(session_id=session.id)
                await runtime.read(calls.CLOSE_SESSION, request, deadline)
        except HoldfastError as error:
            if not error.is_session_gone:
                raise
        finally:
            if self._connected_as is None:
                runtime.pool.close()
