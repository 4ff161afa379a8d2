"""Calls to the cluster for code that runs on a reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from holdfast.twisted import deferred_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from twisted.internet.defer import Deferred

    from holdfast._engine.calls import Call
    from holdfast.client import Client

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)


class Calls:
    """Calls of one client, each with the same deadline, as Deferreds.

    Twisted's reactor fires them, on its own thread, whatever its master takes for the reactor: the
    one that Buildbot's tests give a master would fire them on the client's thread.

    Args:
        client: makes the calls; belongs to the caller.
        deadline: how long a call may take, in seconds.
    """

    def __init__(self, client: Client, deadline: float) -> None:
        self.namespace = client.namespace
        self._engine = client.engine
        self._deadline = deadline

    def read(self, call: Call[Req, Res], request: Req) -> Deferred[Res]:
        """A call that changes nothing; see ``Engine.read``."""
        return deferred_of(self.start_read(call, request))

    def write(self, call: Call[Req, Res], request: Req) -> Deferred[Res]:
        """A call that is carried out once; see ``Engine.write``."""
        return deferred_of(self.start_write(call, request))

    def start_read(self, call: Call[Req, Res], request: Req) -> Future[Res]:
        """As :meth:`read`, for threads that wait."""
        return self._engine.read(call, request, deadline=self._deadline)

    def start_write(self, call: Call[Req, Res], request: Req) -> Future[Res]:
        """As :meth:`write`, for threads that wait."""
        return self._engine.write(call, request, deadline=self._deadline)
