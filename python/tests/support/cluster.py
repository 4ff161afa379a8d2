"""Real clusters for tests: processes on loopback, on free ports, gone when the test is.

``cluster`` is one healthy cluster of three nodes that all tests of a run share, each in a
``namespace`` of its own. Whoever breaks nodes uses ``faulty_cluster``, which is mended before each
test, or starts one with :func:`run_cluster`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Client

_COMMAND_SECONDS = 60
_numbers = itertools.count(1)


def binary() -> str:
    """The server and command line program: ``HOLDFAST_BINARY``, else the checkout's own."""
    checkout = Path(__file__).parents[3]
    return os.environ.get("HOLDFAST_BINARY") or str(checkout / "target/release/holdfast")


class Cluster:
    """A local cluster, as ``holdfast up`` starts it."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self.name = f"t{os.getpid()}-{next(_numbers)}"
        self._directory = directory
        # Programs of a test that name no endpoints must not meet a cluster of the user's.
        self.environment = {
            **os.environ,
            "HOLDFAST_NAME": self.name,
            "XDG_STATE_HOME": str(directory / "state"),
            "XDG_DATA_HOME": str(directory / "data"),
        }
        self.environment.pop("HOLDFAST_ENDPOINTS", None)
        self._nodes = nodes
        self.nodes: dict[str, dict[str, Any]] = {}

    def up(self) -> None:
        """Starts it, or its stopped nodes."""
        arguments = [] if self.nodes else ["--nodes", str(self._nodes), "--base-port", "0"]
        started = json.loads(self.run("up", *arguments, "--output", "json"))
        self.nodes = {node["node"]: node for node in started["nodes"]}

    def down(self) -> None:
        """Stops all nodes; their data stays."""
        self.run("down")

    @property
    def endpoints(self) -> list[str]:
        """Where clients reach the nodes, in their order."""
        return [self.nodes[node]["endpoint"] for node in sorted(self.nodes)]

    @property
    def text(self) -> str:
        """The endpoints as ``HOLDFAST_ENDPOINTS`` has them."""
        return ",".join(self.endpoints)

    def leader(self) -> str:
        """The leader's name, such as ``n2``; waits until there is one."""

        def found() -> str | None:
            # Also of a cluster that is not healthy, which the exit code then says.
            status = json.loads(self._run("status", "--output", "json").stdout)
            leader: str | None = status["leader"]
            return leader

        return wait_until(found, "there is one leader")

    def followers(self) -> list[str]:
        """The names of the other nodes."""
        leader = self.leader()
        return [node for node in sorted(self.nodes) if node != leader]

    def local(self, verb: str, *arguments: str) -> None:
        """Breaks or mends something: kill, stop, start, pause, resume, partition, slow, heal."""
        self.run("local", verb, *arguments)

    def mend(self) -> None:
        """Everything runs and reaches everything."""
        for verb in ("resume", "heal"):
            self.local(verb)
        nodes = json.loads(self.run("ps", "--output", "json"))["nodes"]
        if any(node["state"] == "stopped" for node in nodes):
            self.up()

    def client(self, **options: Any) -> Client:
        """A client of all nodes."""
        return Client(self.endpoints, **options)

    def run(self, *arguments: str) -> str:
        """What a command of the program says; it must succeed."""
        done = self._run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary(), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )


@contextlib.contextmanager
def run_cluster(nodes: int = 3) -> Iterator[Cluster]:
    """A cluster of one's own, stopped and deleted in the end, also when a test fails."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    cluster = Cluster(directory, nodes)
    try:
        cluster.up()
        yield cluster
    finally:
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            cluster.run("local", "resume")
        try:
            cluster.down()
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Waits until a condition gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A healthy cluster that all tests share; they leave it healthy."""
    with run_cluster() as shared:
        yield shared


@pytest.fixture(scope="session")
def _shared_faulty_cluster() -> Iterator[Cluster]:
    with run_cluster() as shared:
        yield shared


@pytest.fixture
def faulty_cluster(_shared_faulty_cluster: Cluster) -> Cluster:
    """A cluster to break; whole when the test begins."""
    _shared_faulty_cluster.mend()
    return _shared_faulty_cluster


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own (G10)."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def client(cluster: Cluster, namespace: str) -> Iterator[Client]:
    """A client of the shared cluster, in the test's namespace."""
    client = cluster.client(namespace=namespace)
    yield client
    client.close()
