"""What the flavours of client share: everything that does not wait.

Operations are written once, as coroutines. A flavour says what a caller gets for one (a result, an
awaitable, a Deferred), and where the caller's own functions run that it hands to an operation.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar

from holdfast import lease, watch
from holdfast._engine.context import Context
from holdfast._engine.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from typing_extensions import Concatenate, ParamSpec

    from holdfast.lease import Loss
    from holdfast.masters import Lease

    P = ParamSpec("P")

Core = TypeVar("Core")
T = TypeVar("T")
Self = TypeVar("Self", bound="ClientFacade")

DEFAULT_ENDPOINT = "127.0.0.1:7480"
CLOSE_SECONDS = 2.0
"""How long the end of a ``with`` block may take to end the session, in seconds."""


class Facade(Generic[Core]):
    """An object of a flavour, over the one that has the coroutines."""

    def __init__(self, core: Core) -> None:
        self._core = core


def documented(
    method: Callable[..., Any], operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]
) -> None:
    """Gives a flavour's method the name, the signature and the text of what it offers."""
    functools.update_wrapper(method, operation)


class LeaseFacade(Facade[lease.LeaseHolder]):
    """What can be asked of a lease without waiting."""

    @property
    def lease(self) -> Lease:
        """The lease."""
        return self._core.lease

    @property
    def master_id(self) -> int:
        """The master that the lease makes active."""
        return self._core.lease.master_id

    @property
    def is_live(self) -> bool:
        """Whether the lease still holds at this moment. Looks at the clock; waits for nothing."""
        return self._core.is_live

    @property
    def remaining(self) -> float:
        """How long the lease lasts from here if it is not renewed any more, in seconds."""
        return self._core.life.remaining()

    def check(self) -> None:
        """As :attr:`is_live`.

        Raises:
            LeaseLost: it does not hold any more.
        """
        self._core.check()

    def on_lost(self, callback: Callable[[Loss], object]) -> None:
        """Calls back, on a thread of its own, once the lease is lost; at once if it is.

        So it is told also while the program's event loop is held up.
        """
        self._core.on_lost(callback)


class WatchFacade(Facade[watch.Watch]):
    """What can be asked of a watch without waiting."""

    @property
    def revision(self) -> int:
        """Everything up to this revision was handed out.

        A watch that begins behind it goes on where this one is.
        """
        return self._core.revision

    def close(self) -> None:
        """Ends it. Whoever waits for a change gets ``CancelledError``."""
        self._core.close()


class ClientFacade:
    """A client, whatever its flavour.

    Nothing connects before the first call, and nothing here can fail: what is wrong with an address
    comes out of the first call.

    Args:
        endpoints: nodes to begin with, as ``"host:port,host:port"`` or a sequence. None: those in
            ``HOLDFAST_ENDPOINTS``, else ``127.0.0.1:7480``. One that answers is enough.
        namespace: of every call, 1 to 1,024 bytes (G10). None: ``HOLDFAST_NAMESPACE``, else
            ``default``.
        deadline: how long a call may take, in seconds: retries, elections, queueing included.
        session_idle: how long the cluster keeps the session without a sign of life, in seconds.

    Attributes:
        engine: what carries calls, shared by all namespaces.
        context: the engine with this client's namespace, which each kind of operation is made on.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] | None = None,
        *,
        namespace: str | None = None,
        deadline: float = 10.0,
        session_idle: float = 600.0,
    ) -> None:
        self.namespace = namespace or os.environ.get("HOLDFAST_NAMESPACE") or "default"
        self.engine = Engine(endpoints_of(endpoints), deadline=deadline, session_idle=session_idle)
        self.context = Context(self.engine, self.namespace)

    def in_namespace(self: Self, namespace: str) -> Self:
        """The same client, with the same connections and session, in another namespace."""
        other = type(self).__new__(type(self))
        other.namespace = namespace
        other.engine = self.engine
        other.context = Context(self.engine, namespace)
        return other


def endpoints_of(endpoints: str | Sequence[str] | None) -> list[str]:
    """The endpoints to begin with; see :class:`ClientFacade`."""
    if endpoints is None:
        endpoints = os.environ.get("HOLDFAST_ENDPOINTS", "").strip() or DEFAULT_ENDPOINT
    if isinstance(endpoints, str):
        endpoints = endpoints.split(",")
    return [endpoint.strip() for endpoint in endpoints if endpoint.strip()]
