"""Buildbot databases, as files, for tests of what is moved out of and into them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buildbot.db import enginestrategy
from buildbot.db.model import Model
from buildbot.util.sautils import hash_columns

TABLES = (Model.masters, Model.changesources, Model.objects, Model.object_state)
VALUES = {
    "empty": "",
    "nan": json.dumps(float("nan")),
    "large": json.dumps(2**200),
    "surrogate": json.dumps("\ud800"),
    "nul": json.dumps("\0"),
    "no json": "ff[1 \U0001f600\n",
    "a MiB": json.dumps("x" * ((1 << 20) - 2)),
}


class Database:
    """A database of Buildbot in a file."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.engine = enginestrategy.create_engine(self.url, basedir=str(path.parent))

    def insert(self, table: Any, *rows: dict[str, Any]) -> None:
        with self.engine.begin() as connection:
            connection.execute(table.insert(), list(rows))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        with self.engine.connect() as connection:
            return {
                table.name: sorted(tuple(row) for row in connection.execute(table.select()))
                for table in TABLES
            }

    def fill(self) -> None:
        """Ids with gaps, names of all kinds, and values that others get wrong."""
        masters = {7: "host:/srv/m\u00fcller", 9: "b"}
        self.insert(
            Model.masters,
            *(
                {"id": i, "name": n, "name_hash": hash_columns(n), "active": 1, "last_active": i}
                for i, n in masters.items()
            ),
        )
        sources = {3: "git://\U0001f600", 1 << 31: "x" * 1000}
        self.insert(
            Model.changesources,
            *({"id": i, "name": n, "name_hash": hash_columns(n)} for i, n in sources.items()),
        )
        self.insert(Model.changesource_masters, {"changesourceid": 3, "masterid": 7})
        self.insert(
            Model.objects,
            {"id": 5, "name": "poller", "class_name": "GitPoller"},
            {"id": 2, "name": "poller", "class_name": "HgPoller"},
            {"id": 11, "name": "no values", "class_name": "GitPoller"},
        )
        self.insert(
            Model.object_state,
            *({"objectid": 5, "name": key, "value_json": text} for key, text in VALUES.items()),
            {"objectid": 2, "name": "nan", "value_json": "1"},
        )


@pytest.fixture
def empty(template: Path, tmp_path: Path) -> Iterator[Database]:
    database = Database(shutil.copy(template, tmp_path / "empty.sqlite"))
    yield database
    database.engine.dispose()


@pytest.fixture
def full(template: Path, tmp_path: Path) -> Iterator[Database]:
    database = Database(shutil.copy(template, tmp_path / "full.sqlite"))
    database.fill()
    yield database
    database.engine.dispose()
