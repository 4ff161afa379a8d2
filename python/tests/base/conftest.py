"""Connections to no node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast._engine import http2
from tests.support.peer import Pair, connected


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A connection whose other end the test is; it is not probed, so that nothing comes unasked."""
    monkeypatch.setattr(http2, "PROBE_SECONDS", 3600.0)
    pair = connected()
    yield pair
    pair.close()
