"""What one process has of a store on a cluster: an engine, and the ids that were leased with it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NoReturn

from holdfast._engine.calls import Req, Res
from holdfast._engine.engine import Engine
from holdfast.errors import HoldfastError, NotApplied, OutcomeUnknown, Refused, SessionExpired
from holdfast.persistence.errors import StoreRefused, StoreUnavailable, UnissuedId
from holdfast.persistence.ids import IdBlocks

if TYPE_CHECKING:
    from collections.abc import Generator

    from holdfast._engine.calls import Call, StreamCall
    from holdfast.persistence.cluster.location import Location


class Link:
    """A cluster's engine, and what is to be said when a call fails."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.engine = Engine(
            location.endpoints, deadline=location.wait, session_idle=location.session_idle
        )
        self.lock = threading.Lock()
        """Of the ids."""
        self.ids = IdBlocks()

    def write(self, call: Call[Req, Res], request: Req, deadline: float | None = None) -> Res:
        """Makes a write, exactly once.

        One that was definitely not carried out because its session had expired is made anew.

        Raises:
            HoldfastError: As the engine raises it.
        """
        try:
            return self.engine.write(call, request, deadline=deadline).result()
        except SessionExpired:
            return self.engine.write(call, request, deadline=deadline).result()

    def prepare(self, call: Call[Req, Res], request: Req) -> Res:
        """Makes a write that comes before all that is saved: whatever becomes of it, nothing is.

        Raises:
            HoldfastError: As the engine raises it, but never that the outcome is unknown.
        """
        try:
            return self.write(call, request)
        except OutcomeUnknown as error:
            raise NotApplied(error.summary, error.attempts, error.header) from error

    def parts(self, call: StreamCall[Req, Res], request: Req) -> Generator[Res, None, None]:
        """The responses of a stream, which any node may answer, all of them at one revision.

        Raises:
            Unavailable: No node answered, or the stream broke, was cut short, or fell silent.
            Refused: The node refused it, or ended it.
        """
        stream = self.engine.stream(call, request).result()
        try:
            yield from stream
        finally:
            stream.cancel()

    def explain(self, began: float, error: HoldfastError) -> NoReturn:
        """Raises an error of the engine as that of a store.

        Args:
            began: When the call began, by ``time.monotonic``.
            error: What came of it.
        """
        name = self.location.name
        if isinstance(error, Refused):
            if error.reason == "UNISSUED_ID" and "object_id" in error.fields:
                raise UnissuedId(error.fields["object_id"], name) from error
            raise StoreRefused(name, error.reason, error.message) from error
        waited = time.monotonic() - began
        raise StoreUnavailable(name, waited, str(error), error.applied) from error


def is_worth_another(error: HoldfastError) -> bool:
    """Whether a stream broke, or was not read in time, rather than a refusal."""
    return not isinstance(error, Refused) or error.reason == "SLOW_READER"
