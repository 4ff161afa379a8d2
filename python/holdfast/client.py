"""The synchronous client. Thread-safe and fork-safe; nothing connects before the first call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast._engine.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_ENDPOINT = "127.0.0.1:7480"


def endpoints_of(endpoints: str | Sequence[str] | None) -> list[str]:
    """The endpoints to begin with; see :class:`Client`."""
    if endpoints is None:
        endpoints = os.environ.get("HOLDFAST_ENDPOINTS", "").strip() or DEFAULT_ENDPOINT
    if isinstance(endpoints, str):
        endpoints = endpoints.split(",")
    return [endpoint.strip() for endpoint in endpoints if endpoint.strip()]


class Client:
    """A client of one cluster, for programs that block.

    Threads share it; a child process that was forked goes on with connections and a session of its
    own. Nothing connects before the first call, and nothing here can fail: what is wrong with an
    address comes out of the first call.

    Args:
        endpoints: nodes to begin with, as ``"host:port,host:port"`` or a sequence. None: those in
            ``HOLDFAST_ENDPOINTS``, else ``127.0.0.1:7480``. One that answers is enough.
        namespace: of every call, 1 to 1,024 bytes; empty means ``default`` (G10).
        deadline: how long a call may take, in seconds: retries, elections, queueing included.
        session_idle: how long the cluster keeps the session without a sign of life, in seconds.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] | None = None,
        *,
        namespace: str = "default",
        deadline: float = 10.0,
        session_idle: float = 600.0,
    ) -> None:
        self.namespace = namespace
        self.engine = Engine(endpoints_of(endpoints), deadline=deadline, session_idle=session_idle)
