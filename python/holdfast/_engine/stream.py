"""Responses that come in parts, and requests that go out in parts.

A stream does not go on at another node when it breaks: another one is at another revision. Watches
do, by beginning a new one (``watch``).
"""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Generic

from holdfast._engine import answer, rpc, task
from holdfast._engine.answer import Answer, Fate
from holdfast._engine.calls import Req, Res
from holdfast._engine.task import wait
from holdfast.errors import Attempt, HoldfastError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._engine.calls import ExchangeCall, StreamCall
    from holdfast._engine.endpoint import Link

SILENCE_SECONDS = 30.0
"""Silence after which a stream counts as broken."""


class Stream(Generic[Res]):
    """Responses as they come. Iterating blocks; :meth:`receive` does not.

    One of a kind whose last response says so is complete only with that one.
    """

    first: Res
    """The first response, which the iteration begins with."""

    def __init__(
        self,
        call: StreamCall[Req, Res] | ExchangeCall[Req, Res],
        link: Link,
        request: bytes | None,
        owner: object,
    ) -> None:
        self._owner = owner  # of the connection, which is open for as long as it is there
        self.endpoint = link.authority
        """The node that answers, as ``host:port``."""
        self._response = call.response
        self._name = f"{call.service}.{call.name}"
        self._says_last = "is_last" in call.response.DESCRIPTOR.fields_by_name
        # Without a time-out, which would be for all of it.
        self._messages = rpc.stream(link.connection, link.headers.block(call.path, None), request)
        self._is_first_due = False
        self._is_over = False

    def receive(self, *, silence: float = SILENCE_SECONDS) -> Future[Res | None]:
        """The next response; None behind the last one. One at a time.

        Args:
            silence: after so many seconds without one the stream counts as broken.

        Raises:
            Unavailable: the stream broke.
            Refused: the node ended it.
        """
        return task.start(self._receive(silence))

    def __iter__(self) -> Iterator[Res]:
        return self

    def __next__(self) -> Res:
        received = self.receive()
        try:
            response = received.result()
        except BaseException:
            self.cancel()
            raise
        if response is None:
            raise StopIteration
        return response

    def cancel(self) -> None:
        """Ends it. Whoever waits gets ``CancelledError``."""
        self._is_over = True
        self._messages.cancel()

    async def begin(self) -> None:
        """Waits for the first response.

        Raises:
            Status: there is none.
        """
        try:
            message = await wait(self._messages.receive())
        except CancelledError:
            self.cancel()
            raise
        if message is None:
            raise rpc.Status(rpc.ABORTED, "the stream was cut short")
        self.first = self._decode(message)
        self._is_first_due = True

    async def _receive(self, silence: float) -> Res | None:
        if self._is_first_due:
            self._is_first_due = False
            return self._note(self.first)
        if self._is_over:
            return None
        try:
            message = await task.within(silence, self._messages.receive())
        except TimeoutError:
            self.cancel()
            raise self._broke_off(Answer(Fate.UNKNOWN, answer.SILENCE)) from None
        except rpc.Status as status:
            self._is_over = True
            raise self._broke_off(answer.read(status)) from None
        if message is not None:
            return self._note(self._decode(message))
        self._is_over = True
        if self._says_last:
            raise self._broke_off(Answer(Fate.UNKNOWN, "the stream was cut short"))
        return None

    def _decode(self, message: bytes) -> Res:
        response = self._response()
        response.ParseFromString(message)
        return response

    def _note(self, response: Res) -> Res:
        if self._says_last and response.is_last:  # type: ignore[attr-defined]
            self._is_over = True
        return response

    def _broke_off(self, said: Answer) -> HoldfastError:
        if said.fate == Fate.REFUSED:
            return said.error()
        attempt = Attempt(self.endpoint, said.reason, said.message)
        return Unavailable(f"{self._name} broke off", [attempt], said.header)


class Exchange(Stream[Res], Generic[Req, Res]):
    """A stream of requests and responses."""

    def __init__(self, call: ExchangeCall[Req, Res], link: Link, owner: object) -> None:
        super().__init__(call, link, None, owner)

    def send(self, request: Req) -> Future[None]:
        """Hands a request over; done when the connection has taken it.

        So whoever waits for that never queues more than the node takes.

        Raises:
            Unavailable: the stream has ended.
        """
        return task.start(self._send(request.SerializeToString(), is_last=False))

    def finish(self) -> Future[None]:
        """There are no more requests."""
        return task.start(self._send(None, is_last=True))

    async def _send(self, request: bytes | None, *, is_last: bool) -> None:
        stream = self._messages.stream
        if stream is None or self._messages.has_ended or self._is_over:
            raise self._broke_off(Answer(Fate.UNKNOWN, "the stream has ended"))
        taken: Future[None] = Future()
        data = b"" if request is None else rpc.enveloped(request)
        stream.send(data, is_last=is_last, taken=lambda: task.settle(taken, None))
        await wait(taken)
