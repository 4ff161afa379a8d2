"""What all tests of the connectors find at hand."""

from __future__ import annotations

from tests.buildbot.connectors.databases import template  # noqa: F401 - fixtures
from tests.buildbot.connectors.sql_database import empty, full  # noqa: F401 - fixtures
