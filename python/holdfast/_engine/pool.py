"""The endpoints of one cluster, and which of them to ask next.

Invariants:
- A hint of an older term never replaces one of a newer term.
- Answers of another cluster than the first that answered are thrown away: sessions, ids and
  revisions of two clusters mean nothing to each other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast._engine.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._engine.loop import Loop
    from holdfast.errors import Header

_ENDPOINTS_MAX = 64
"""Most endpoints that are remembered. A cluster has a handful of nodes; more means that nodes come
and go, and the learned ones that no longer answer are replaced."""


class ForeignClusterError(Exception):
    """An answer came from a node of another cluster."""


class Pool:
    """See the module. Any thread may use it."""

    def __init__(self, loop: Loop, addresses: Sequence[str]) -> None:
        self.loop = loop
        # Held for a walk over a few endpoints, never while anything waits.
        self._lock = threading.Lock()
        self._endpoints: list[Endpoint] = []
        self._leader: str | None = None
        self._leader_term = 0
        self._last_good: str | None = None
        self._cluster_id = ""
        for address in addresses:
            self._add(address, is_learned=False)

    def in_order(self) -> list[Endpoint]:
        """All endpoints, the one to ask first in front.

        The leader, then who last carried out a call, then the others as configured; those that
        failed lately behind all others.
        """
        with self._lock:
            endpoints = list(self._endpoints)
            leader, last_good = self._leader, self._last_good
        endpoints.sort(
            key=lambda endpoint: (
                endpoint.is_avoided,
                endpoint.address != leader,
                endpoint.address != last_good,
            )
        )
        return endpoints

    def best(self) -> Endpoint | None:
        """The leader, if that is known, connected, and behaves: then there is nothing to sort."""
        leader = self._leader
        for endpoint in self._endpoints:
            if endpoint.address == leader:
                return endpoint if endpoint.link is not None and not endpoint.is_avoided else None
        return None

    def faults(self) -> dict[str, str] | None:
        """What is wrong with each endpoint, if there is no way to use any of them."""
        with self._lock:
            faults = {e.address: e.fault for e in self._endpoints if e.fault is not None}
            return faults if len(faults) == len(self._endpoints) else None

    def at(self, address: str) -> Endpoint:
        """The endpoint of this address, known or not."""
        with self._lock:
            for endpoint in self._endpoints:
                if endpoint.address == address:
                    return endpoint
        return Endpoint(self.loop, address, is_learned=True)

    def observe(self, source: Endpoint, header: Header, *, has_answered: bool) -> None:
        """Takes in what a node says about the cluster, and whether it carried the call out.

        Raises:
            ForeignClusterError: it is a node of another cluster.
        """
        with self._lock:
            if header.cluster_id and header.cluster_id != self._cluster_id:
                if self._cluster_id:
                    raise ForeignClusterError(
                        f"belongs to cluster {header.cluster_id}, and this client talks to "
                        f"cluster {self._cluster_id}; make a new client to change over"
                    )
                self._cluster_id = header.cluster_id
            if has_answered:
                self._last_good = source.address
            if header.term >= self._leader_term and header.leader_endpoint:
                self._add(header.leader_endpoint, is_learned=True)
                self._leader = header.leader_endpoint
                self._leader_term = header.term

    def close(self) -> None:
        """Closes all connections; later calls make new ones."""
        with self._lock:
            endpoints = list(self._endpoints)
        for endpoint in endpoints:
            endpoint.close()

    def _add(self, address: str, *, is_learned: bool) -> None:
        if any(endpoint.address == address for endpoint in self._endpoints):
            return
        if len(self._endpoints) >= _ENDPOINTS_MAX:
            learned = [endpoint for endpoint in self._endpoints if endpoint.is_learned]
            if not learned and is_learned:
                return
            # Without a stale one the oldest learned one goes; the configured ones always stay.
            stale = [endpoint for endpoint in learned if endpoint.is_avoided] or learned
            for endpoint in stale[:1]:
                self._endpoints.remove(endpoint)
                endpoint.close()
        self._endpoints.append(Endpoint(self.loop, address, is_learned=is_learned))
