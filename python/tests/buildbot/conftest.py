"""One installation of Buildbot for all tests here."""

from __future__ import annotations

import pytest

from .masters import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Where masters live."""
    return Site(tmp_path_factory.mktemp("site"))
