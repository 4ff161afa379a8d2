"""Where a cluster is, as a URI says it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.persistence.uri import Uri

WAIT = 60.0
"""How long a store waits for its cluster unless it is told otherwise, in seconds: longer than an
election, a restart or a short failure of a network, so that those who save jobs need not notice."""
_WAIT_MAX = 43_200.0
"""Longest wait, in seconds: half of the longest time that a session may be idle (G4)."""
_PORT = 7480
"""The port of a node that is named without one."""
_SESSION_IDLE = 600.0


@dataclass(frozen=True)
class Location:
    """A cluster, and a namespace in it."""

    endpoints: tuple[str, ...]
    """Nodes to begin with, as ``host:port``."""
    namespace: str = "default"
    wait: float = WAIT
    """How long calls wait for the cluster, in seconds."""

    @classmethod
    def of(cls, uri: Uri) -> Location:
        """Where ``holdfast://HOST:PORT[,HOST:PORT…]/NAMESPACE`` is.

        Raises:
            BadUri: It says what is wrong.
        """
        endpoints = _hosts(uri, uri.authority)
        if not endpoints:
            raise uri.bad("it names no node: holdfast://HOST:PORT/NAMESPACE")
        wait = WAIT
        for name, value in uri.query:
            if name == "peers":
                endpoints += _hosts(uri, value)
            elif name == "timeout_s":
                wait = _seconds(uri, value)
            else:
                known = "there are peers and timeout_s"
                raise uri.bad(f"there is no parameter {name!r}; {known}")
        namespace = uri.path[1:] or "default"
        return cls(tuple(endpoints), namespace, wait)

    @property
    def name(self) -> str:
        """The URI, without its parameters."""
        return f"holdfast://{','.join(self.endpoints)}/{self.namespace}"

    @property
    def session_idle(self) -> float:
        """How long the session may be idle, in seconds: a write may take half of it."""
        return max(_SESSION_IDLE, 2 * self.wait)


def _hosts(uri: Uri, text: str) -> list[str]:
    return [_with_port(uri, host) for host in text.split(",") if host]


def _with_port(uri: Uri, host: str) -> str:
    """``host:port``, if it is something like that."""
    # An address of IPv6 has colons of its own, and brackets around it.
    behind = host.rfind("]") + 1
    name, colon, digits = host[behind:].partition(":")
    name = host[:behind] + name
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 5
    port = _PORT if not colon else int(digits) if is_number else 0
    is_bracketed = behind == 0 or (name.startswith("[") and behind == len(name))
    if not name or any(c in name for c in "@/ ") or not is_bracketed or not 0 < port < 65_536:
        raise uri.bad(f"{host!r} is no node")
    return f"{name}:{port}"


def _seconds(uri: Uri, text: str) -> float:
    try:
        wait = float(text)
    except ValueError:
        wait = math.nan
    if not 0.001 <= wait <= _WAIT_MAX:
        most = f"{_WAIT_MAX:.0f}"
        raise uri.bad(f"timeout_s is a number of seconds, 0.001 to {most}, and not {text!r}")
    return wait
