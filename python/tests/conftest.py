"""What all tests find at hand."""

from __future__ import annotations

from tests.support.cluster import (  # noqa: F401 - fixtures
    _shared_faulty_cluster,
    client,
    cluster,
    faulty_cluster,
    namespace,
)
