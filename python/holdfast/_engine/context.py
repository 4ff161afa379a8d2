"""Where the calls of one client go: which cluster, which namespace, and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast._engine.deadline import Deadline

if TYPE_CHECKING:
    from holdfast._engine.calls import Call, Req, Res
    from holdfast._engine.engine import Engine


@dataclass(frozen=True)
class Context:
    """What every facade of a client is made with."""

    engine: Engine
    namespace: str = ""
    seconds: float | None = None
    """How long a call may take; None: as long as the engine says."""

    @property
    def call_seconds(self) -> float:
        """How long a call may take, in seconds."""
        return self.engine.deadline if self.seconds is None else self.seconds

    def at_most(self, seconds: float) -> Context:
        """The same with no more time for a call than this, in seconds."""
        return replace(self, seconds=max(0.0, min(self.call_seconds, seconds)))

    def deadline(self) -> Deadline:
        """When a call must be over that begins now."""
        return Deadline(self.call_seconds)

    async def read(self, call: Call[Req, Res], request: Req) -> Res:
        """Makes a call that may be repeated at will.

        Raises:
            Unavailable: no node answered in time.
            Refused: the cluster refused it.
        """
        return await self.engine.runtime.read(call, request, self.deadline())

    async def write(self, call: Call[Req, Res], request: Req) -> Res:
        """Makes a write, exactly once.

        Raises:
            NotApplied: it was definitely not carried out, and nobody refused it.
            OutcomeUnknown: it was sent, and got no answer in time.
            Refused: the cluster refused it.
        """
        return await self.engine.runtime.write(call, request, self.deadline())
