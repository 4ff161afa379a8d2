"""GC3Pie's stores on clusters."""

from __future__ import annotations

import os
import shutil

import pytest
from gc3libs.persistence.store import make_store

import holdfast.gc3  # noqa: F401 # it registers the stores


def url_of(cluster, namespace, **parameters):
    """The URL of a store as GC3Pie can read it: one host, the others as peers."""
    first, *others = cluster.endpoints
    query = {"peers": ",".join(others), **parameters}
    text = "&".join(f"{name}={value}" for name, value in query.items())
    return f"holdfast://{first}/{namespace}?{text}"


@pytest.fixture
def local_backend():
    """What GC3Pie needs to run tasks on this machine."""
    if shutil.which("ps") is None or not os.access("/usr/bin/time", os.X_OK):
        pytest.skip("GC3Pie's local backend needs ps and GNU time, which are not here")


@pytest.fixture
def url(cluster, namespace):
    return url_of(cluster, namespace)


@pytest.fixture
def store(url):
    return make_store(url)
