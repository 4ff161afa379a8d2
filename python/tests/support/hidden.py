"""A cluster whose nodes clients can reach only where a test wants them to: through its proxies.

``hidden_cluster`` is one that all tests of a run share, mended before each test; whoever needs one
of another kind starts it with :func:`run_hidden_cluster`.
What nodes say of the leader's address leads nowhere, so that a client cannot go around a proxy.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Client
from holdfast.cluster import Member
from holdfast.errors import HoldfastError
from tests.support.cluster import binary, wait_until
from tests.support.proxy import Flow, Proxy

_START_SECONDS = 60.0
"""How long a node may take to start and to get its vote: a starved machine is no fault."""
_STARTS_MAX = 5
"""How often a cluster is started whose ports were taken before its nodes had them."""


class _EndedError(Exception):
    """A node has ended."""


class HiddenCluster:
    """Nodes that each run as a process of the test's own, with a proxy before each."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self.directory = directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ports = _free_ports(3 * nodes)
        # Where the nodes are reached without the proxies.
        self.direct = [f"127.0.0.1:{self._ports[3 * i]}" for i in range(nodes)]
        self.proxies = [Proxy(address, seed=i) for i, address in enumerate(self.direct)]

    @property
    def endpoints(self) -> list[str]:
        """The proxies' addresses, node by node."""
        return [proxy.address for proxy in self.proxies]

    def client(self, **options: object) -> Client:
        """A client that goes through the proxies."""
        return Client(self.endpoints, **options)

    def direct_client(self, **options: object) -> Client:
        """A client that goes around the proxies."""
        return Client(self.direct, **options)

    def start(self) -> None:
        """Starts the nodes; returns when all have a vote."""
        for node in range(len(self.direct)):
            self.start_node(node)
            self._wait_for_voters(node + 1)

    def start_node(self, node: int) -> None:
        """Starts a node, or starts it again with its data."""
        client, peer, closed = self._ports[3 * node : 3 * node + 3]
        command = [
            *(binary(), "serve", "--data-dir", str(self.directory / f"n{node}")),
            *("--client-addr", f"127.0.0.1:{client}", "--peer-addr", f"127.0.0.1:{peer}"),
            *("--advertise-client", f"127.0.0.1:{closed}", "--node-id", str(node + 1)),
            *(("--form",) if node == 0 else ("--join", self.direct[0])),
        ]
        with open(self.directory / f"n{node}.log", "ab") as log:
            self._processes[node] = subprocess.Popen(command, stdout=log, stderr=log)

    def signal(self, node: int, number: signal.Signals) -> None:
        """Sends a node a signal; after SIGKILL or SIGTERM returns when it is gone."""
        self._processes[node].send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._processes[node].wait(20)

    def leader(self) -> int:
        """Which node leads; waits until one does."""

        def found() -> int | None:
            return next((member.node_id for member in self._members() if member.leader), None)

        return wait_until(found, "there is a leader") - 1

    def mend(self) -> None:
        """The proxies pass everything on, and nodes that have ended are started again."""
        for proxy in self.proxies:
            proxy.up = proxy.down = Flow.PASS
            proxy.loss = proxy.delay = 0.0
            proxy.listen()
            proxy.cut()
        for node, process in list(self._processes.items()):
            if process.poll() is not None:
                self.start_node(node)

    def stop(self) -> None:
        """Ends all of it."""
        for proxy in self.proxies:
            proxy.close()
        for process in self._processes.values():
            process.kill()
            process.wait(20)

    def _wait_for_voters(self, voters: int) -> None:
        def are_there() -> bool:
            if any(process.poll() is not None for process in self._processes.values()):
                raise _EndedError
            return sum(member.voter for member in self._members()) == voters

        wait_until(are_there, f"there are {voters} voters", _START_SECONDS)

    def _members(self) -> list[Member]:
        """None while there is no leader."""
        with contextlib.suppress(HoldfastError), Client(self.direct, deadline=1.0) as client:
            return client.cluster.members().members
        return []


@contextlib.contextmanager
def run_hidden_cluster(nodes: int = 3) -> Iterator[HiddenCluster]:
    """A hidden cluster, ended in the end."""
    with contextlib.ExitStack() as stack:
        for _ in range(_STARTS_MAX):
            directory = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            cluster = HiddenCluster(directory, nodes)
            stack.callback(cluster.stop)
            try:
                cluster.start()
            except _EndedError:
                continue  # Somebody else has taken a port meanwhile.
            yield cluster
            return
        raise AssertionError("no cluster could be started")


@pytest.fixture(scope="session")
def _shared_hidden_cluster() -> Iterator[HiddenCluster]:
    with run_hidden_cluster() as cluster:
        yield cluster


@pytest.fixture
def hidden_cluster(_shared_hidden_cluster: HiddenCluster) -> HiddenCluster:
    """A cluster behind proxies that pass everything on when the test begins."""
    _shared_hidden_cluster.mend()
    return _shared_hidden_cluster


def _free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens on.

    Below those that connections get, which come and go all the time.
    """
    while True:
        ports = range(base := random.randrange(10_000, 32_000 - count), base + count)
        with contextlib.ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return list(ports)
