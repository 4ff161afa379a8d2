"""Stores to test: ``open_store(place, **options)`` opens the store of a place.

The same place twice is the same objects, as two processes would see them; another place is empty.
"""

from __future__ import annotations

import pytest

from holdfast.persistence import ClusterStore, FilesystemStore


@pytest.fixture(params=["files", "cluster"])
def open_store(request):
    return request.getfixturevalue(f"open_{request.param}")


@pytest.fixture
def open_files(tmp_path):
    def open_store(place="store", **options):
        return FilesystemStore(tmp_path / place, **options)

    return open_store


@pytest.fixture
def open_cluster(cluster, namespace):
    def open_store(place="store", **options):
        return ClusterStore(f"holdfast://{cluster.text}/{namespace}-{place}", **options)

    return open_store
