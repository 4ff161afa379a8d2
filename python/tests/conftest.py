"""What all tests find at hand."""

from __future__ import annotations

from tests.support.cluster import (  # noqa: F401 - fixtures
    _shared_faulty_cluster,
    client,
    cluster,
    faulty_cluster,
    namespace,
)
from tests.support.hidden import _shared_hidden_cluster, hidden_cluster  # noqa: F401 - fixtures
