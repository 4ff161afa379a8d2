"""Calls to the cluster for code that runs on a reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message
from twisted.internet.defer import CancelledError, Deferred

if TYPE_CHECKING:
    from concurrent.futures import Future

    from holdfast._engine.calls import Call
    from holdfast.client import Client

T = TypeVar("T")
Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)


class Calls:
    """Calls of one client, each with the same deadline, as Deferreds of one reactor.

    Args:
        client: makes the calls; belongs to the caller.
        reactor: fires the Deferreds, on its own thread.
        deadline: how long a call may take, in seconds.
    """

    def __init__(self, client: Client, reactor: Any, deadline: float) -> None:
        self.namespace = client.namespace
        self._engine = client.engine
        self._reactor = reactor
        self._deadline = deadline

    def read(self, call: Call[Req, Res], request: Req) -> Deferred[Res]:
        """A call that changes nothing; see ``Engine.read``."""
        return self._deferred(self.start_read(call, request))

    def write(self, call: Call[Req, Res], request: Req) -> Deferred[Res]:
        """A call that is carried out once; see ``Engine.write``."""
        return self._deferred(self.start_write(call, request))

    def start_read(self, call: Call[Req, Res], request: Req) -> Future[Res]:
        """As :meth:`read`, for threads that wait."""
        return self._engine.read(call, request, deadline=self._deadline)

    def start_write(self, call: Call[Req, Res], request: Req) -> Future[Res]:
        """As :meth:`write`, for threads that wait."""
        return self._engine.write(call, request, deadline=self._deadline)

    def _deferred(self, future: Future[T]) -> Deferred[T]:
        def cancel(_deferred: Deferred[T]) -> None:
            future.cancel()

        deferred: Deferred[T] = Deferred(cancel)

        def fire() -> None:
            if deferred.called:
                return  # It was cancelled as the answer came.
            if future.cancelled():
                deferred.errback(CancelledError())
                return
            error = future.exception()
            if error is None:
                deferred.callback(future.result())
            else:
                deferred.errback(error)

        future.add_done_callback(lambda _future: self._reactor.callFromThread(fire))
        return deferred
