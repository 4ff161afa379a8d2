"""A cluster behind proxies, which the tests of this directory share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hidden import HiddenCluster, run_hidden_cluster


@pytest.fixture(scope="session")
def _shared_hidden_cluster() -> Iterator[HiddenCluster]:
    with run_hidden_cluster() as cluster:
        yield cluster


@pytest.fixture
def hidden_cluster(_shared_hidden_cluster: HiddenCluster) -> HiddenCluster:
    """A cluster behind proxies that pass everything on when the test begins."""
    _shared_hidden_cluster.mend()
    return _shared_hidden_cluster
