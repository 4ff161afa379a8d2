"""The engine: reads, exactly-once writes and streams, as futures that any flavour can wait for.

Nothing here blocks, connects in a constructor, or runs on the caller's thread for longer than it
takes to hand a request over. A future's callbacks run on the engine's own thread, which carries
every call, renewal and timer of the process: they must be short, and never wait.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast._engine.calls import Call, ExchangeCall, StreamCall

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)


class Engine:
    """What all facades of one client share: connections, session, deadline.

    Args:
        endpoints: nodes to begin with, as ``host:port``; others are learned from their answers.
        deadline: how long a call may take, in seconds, if it does not say otherwise.
        session_idle: how long the cluster keeps the session without a write, in seconds: 10 to
            86,400. A write never takes longer than half of it.
    """

    def __init__(self, endpoints: Sequence[str], *, deadline: float, session_idle: float) -> None:
        self.endpoints = tuple(endpoints)
        self.deadline = deadline
        self.session_idle = session_idle

    def read(
        self, call: Call[Req, Res], request: Req, *, deadline: float | None = None
    ) -> Future[Res]:
        """Makes a call that may be repeated at will.

        Raises:
            Unavailable: no node answered in time.
            Refused: the cluster refused it.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    def begin(
        self, call: Call[Req, Res], request: Req, *, deadline: float | None = None
    ) -> Future[Pending[Req, Res]]:
        """Gives a write a number and sends nothing yet; see :class:`Pending`.

        Raises:
            NotApplied: there is no session by the deadline, or too many writes are undecided.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    def exchange(
        self, call: ExchangeCall[Req, Res], *, avoid: str | None = None
    ) -> Future[Exchange[Req, Res]]:
        """Opens a stream of requests and responses at a node, one at ``avoid`` only if need be.

        Raises:
            Unavailable: there is no connection to any node within the engine's deadline.
        """
        raise NotImplementedError


class Pending(Generic[Req, Res]):
    """A write that has a number and, until it is decided, can be sent again under it.

    Its number is kept until the write is decided or :meth:`give_up` is called, so the cluster
    keeps its outcome for as long. Sent again, whatever became of the first copies, it is carried
    out once.
    """

    @property
    def is_decided(self) -> bool:
        """Whether it was answered, was definitely not applied, or was given up."""
        raise NotImplementedError

    def send(self, *, deadline: float | None = None, budget: float | None = None) -> Future[Res]:
        """Sends it until it is answered or the deadline passes; again and again until decided.

        Args:
            deadline: how long this attempt may take, in seconds.
            budget: after so many seconds, if nothing was handed to a connection by then, give up
                with ``NotApplied`` instead of going on until the deadline.

        Raises:
            OutcomeUnknown: it may have been applied, or may still be; send it again. If
                :attr:`is_decided` is then true its session is gone, and nobody will ever tell.
            NotApplied: it was definitely not applied, and is decided.
            Refused: the cluster refused it, and it is decided.
        """
        raise NotImplementedError

    def give_up(self) -> None:
        """Gives its number back; an unknown outcome stays unknown."""
        raise NotImplementedError


class Stream(Generic[Res]):
    """Responses as they come. Iterating blocks; :meth:`receive` does not."""

    first: Res
    """The first response, which the iteration begins with."""
    endpoint: str
    """The node that answers, as ``host:port``."""

    def receive(self) -> Future[Res | None]:
        """The next response; None behind the last one. One at a time.

        Raises:
            Unavailable: the stream broke.
            Refused: the node ended it.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[Res]:
        raise NotImplementedError

    def __next__(self) -> Res:
        raise NotImplementedError

    def cancel(self) -> None:
        """Ends it. Whoever waits gets ``CancelledError``."""
        raise NotImplementedError


class Exchange(Stream[Res], Generic[Req, Res]):
    """A stream of requests and responses."""

    def send(self, request: Req) -> Future[None]:
        """Hands a request over; done when the connection has taken it.

        So whoever waits for that never queues more than the node takes.

        Raises:
            Unavailable: the stream has ended.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """There are no more requests."""
        raise NotImplementedError
