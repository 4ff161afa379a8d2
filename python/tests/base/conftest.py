"""A cluster behind proxies, which the tests of this directory share, and connections to no node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast._engine import http2
from tests.support.hidden import HiddenCluster, run_hidden_cluster
from tests.support.peer import Pair, connected


@pytest.fixture(scope="session")
def _shared_hidden_cluster() -> Iterator[HiddenCluster]:
    with run_hidden_cluster() as cluster:
        yield cluster


@pytest.fixture
def hidden_cluster(_shared_hidden_cluster: HiddenCluster) -> HiddenCluster:
    """A cluster behind proxies that pass everything on when the test begins."""
    _shared_hidden_cluster.mend()
    return _shared_hidden_cluster


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A connection whose other end the test is; it is not probed, so that nothing comes unasked."""
    monkeypatch.setattr(http2, "PROBE_SECONDS", 3600.0)
    pair = connected()
    yield pair
    pair.close()
