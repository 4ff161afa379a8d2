"""What one engine has in one process: its connections and its session.

A child process that was forked makes its own when it first calls, and never touches its parent's.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Callable

from holdfast._engine import copies, loop, rpc, task
from holdfast._engine.copies import Kind, Plan, Run
from holdfast._engine.endpoint import ConnectError
from holdfast._engine.pending import Pending
from holdfast._engine.pool import Pool
from holdfast._engine.session import Sessions
from holdfast._engine.stream import Exchange, Stream
from holdfast.errors import Attempt, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from google.protobuf.message import Message

    from holdfast._engine.calls import Call, ExchangeCall, Req, Res, StreamCall
    from holdfast._engine.deadline import Deadline
    from holdfast._engine.endpoint import Link
    from holdfast._engine.session import Seq
    from holdfast._wire.common_pb2 import ResponseHeader

Encode = Callable[[bool], bytes]
"""Makes the bytes of a copy, marked as resent or not."""


class Runtime:
    """See the module.

    Whatever is under way refers to it; when nothing does any more, and the engine is gone too, its
    connections are closed.
    """

    def __init__(
        self, endpoints: Sequence[str], session_idle: float, connected_as: Runtime | None
    ) -> None:
        self.pid = os.getpid()
        # Kept, as long as this is, for its connections.
        self._connected_as = connected_as
        if connected_as is not None:
            self.pool: Pool = connected_as.pool
        else:
            self.pool = Pool(loop.here(), endpoints)
            # Not at the end of the process, which closes them anyway.
            weakref.finalize(self, _close_unless_inherited, self.pool, self.pid).atexit = False
        self.sessions = Sessions(self, session_idle)

    async def read(self, call: Call[Req, Res], request: Req, deadline: Deadline) -> Res:
        """Makes a call that may be repeated at will."""
        encoded = request.SerializeToString()
        plan = _plan(call, Kind.READ, lambda _: encoded)
        return await copies.run(self.pool, plan, deadline)

    async def ask(
        self, address: str, call: Call[Req, Res], request: Req, deadline: Deadline
    ) -> Res:
        """Asks one node, once."""
        encoded = request.SerializeToString()
        plan = _plan(call, Kind.READ, lambda _: encoded)
        return await copies.run_at(self.pool, plan, self.pool.at(address), deadline)

    async def write(self, call: Call[Req, Res], request: Req, deadline: Deadline) -> Res:
        """Makes a write, exactly once."""
        pending = await self.begin(call, request, deadline)
        try:
            return await pending.run(Run.ONLY, deadline)
        finally:
            # With an unknown outcome, or cancelled: the caller has no way to send it again.
            pending.give_up()

    async def begin(
        self, call: Call[Req, Res], request: Req, deadline: Deadline
    ) -> Pending[Req, Res]:
        """Gives a write a number; sends nothing but what opens a session."""
        session = await self.sessions.current(deadline)
        seq = await session.allot(deadline.at_most(session.call_seconds_max))
        return Pending(self, call, request, seq, deadline.remaining())

    async def write_copies(
        self, call: Call[Req, Res], request: Req, seq: Seq, nth: Run, deadline: Deadline
    ) -> Res:
        """Sends copies of a write under its number."""

        def encode(is_resent: bool) -> bytes:
            seq.stamp(request, is_resent=is_resent)
            return request.SerializeToString()

        return await copies.run(self.pool, _plan(call, Kind.WRITE, encode), deadline, nth)

    async def stream(
        self, call: StreamCall[Req, Res], request: Req, deadline: Deadline
    ) -> Stream[Res]:
        """Opens a stream of responses at any node."""
        encoded = request.SerializeToString()

        async def open_at(link: Link) -> Stream[Res]:
            # Without a time-out: the deadline is for the first response.
            stream = Stream(call, link, encoded, self)
            await stream.begin()
            return stream

        plan: Plan[Stream[Res]] = Plan(
            f"{call.service}.{call.name}",
            Kind.READ,
            lambda link, _resent, _seconds: task.start(open_at(link)),
            lambda stream: stream,
            lambda stream: header_of(stream.first),
        )
        return await copies.run(self.pool, plan, deadline)

    async def exchange(
        self, call: ExchangeCall[Req, Res], deadline: Deadline, avoid: str | None
    ) -> Exchange[Req, Res]:
        """Opens a stream of requests and responses at a node, one at `avoid` only if need be."""
        attempts = {}
        endpoints = sorted(self.pool.in_order(), key=lambda endpoint: endpoint.address == avoid)
        for endpoint in endpoints:
            if deadline.has_passed():
                break
            try:
                link = endpoint.link or await endpoint.connect()
                return Exchange(call, link, self)
            except (ConnectError, rpc.Status) as error:
                endpoint.mark_bad()
                attempts[endpoint.address] = Attempt(endpoint.address, None, str(error))
        summary = f"{call.service}.{call.name} found no connection"
        raise Unavailable(summary, [attempts[address] for address in sorted(attempts)])


def _plan(call: Call[Req, Res], kind: Kind, encode: Encode) -> Plan[Res]:
    def send(link: Link, is_resent: bool, seconds: float) -> Future[bytes]:
        request = encode(is_resent)
        answered = None
        if not call.by_itself:
            answered = link.pipeline.call(call.path, seconds, request)
        if answered is None:
            headers = link.headers.block(call.path, seconds)
            answered = rpc.unary(link.connection, headers, request)
        return answered

    return Plan(f"{call.service}.{call.name}", kind, send, call.response.FromString, header_of)


def _close_unless_inherited(pool: Pool, pid: int) -> None:
    if os.getpid() == pid:
        pool.close()


def header_of(response: Message) -> ResponseHeader:
    """The header of a response, all of which begin with one."""
    header: ResponseHeader = response.header  # type: ignore[attr-defined]
    return header
