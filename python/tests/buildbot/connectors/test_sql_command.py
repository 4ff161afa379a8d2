"""The command moves state from a Buildbot database into a cluster and back, losslessly (S7)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from buildbot.db.model import Model

from holdfast import Client
from holdfast.buildbot.connectors import StateConnector
from tests.buildbot.connectors.databases import (
    Reactor,
    running_master,
)
from tests.buildbot.connectors.sql_database import VALUES, Database
from tests.support.cluster import Cluster, binary

ROWS = 2 + 2 + 3 + len(VALUES) + 1


class Command:
    """``holdfast state`` in the namespace of a test."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.tail = ["--namespace", namespace, "-o", "jsonl"]
        self.environment = {
            **cluster.environment,
            "HOLDFAST_ENDPOINTS": cluster.text,
            "HOLDFAST_PYTHON": sys.executable,
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }

    def run(self, *arguments: str, source: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [binary(), "state", *arguments, *self.tail],
            input=source,
            env=self.environment,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: str, source: bytes = b"") -> dict[str, Any]:
        done = self.run(*arguments, source=source)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def refused(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        done = self.run(*arguments)
        error: dict[str, Any] = json.loads(done.stderr)
        assert (done.stdout, error["exit"]) == (b"", done.returncode)
        return done.returncode, error


@pytest.fixture
def command(cluster: Cluster, namespace: str) -> Command:
    return Command(cluster, namespace)


# S7
def test_a_database_goes_through_a_cluster(
    command: Command,
    full: Database,
    empty: Database,
) -> None:
    imported = command.ok("import", "--from-buildbot-sql", full.url)
    assert (imported["rows"], imported["written"]) == (str(ROWS), str(ROWS))
    assert command.ok("import", "--from-buildbot-sql", full.url)["written"] == "0"

    exported = command.ok("export", "--to-buildbot-sql", empty.url)
    assert (exported["rows"], exported["written"]) == (str(ROWS), str(ROWS))
    before, after = full.rows(), empty.rows()
    before["masters"] = [(*row[:3], 0, row[4]) for row in before["masters"]]
    assert after == before
    assert command.ok("export", "--to-buildbot-sql", empty.url)["written"] == "0"


# S7 B4
def test_masters_find_what_was_moved_in(
    command: Command,
    full: Database,
    client: Client,
    tmp_path: Path,
    template: Path,
) -> None:
    command.ok("import", "--from-buildbot-sql", full.url)
    with running_master(tmp_path, template) as master:
        state = StateConnector(master.db.state, client)
        objectid = Reactor.wait(state.getObjectId, "poller", "GitPoller")
        for key in VALUES.keys() - {"empty", "no json"}:
            found = Reactor.wait(state.getState, objectid, key)
            assert json.dumps(found) == VALUES[key]
        with pytest.raises(TypeError):
            Reactor.wait(state.getState, objectid, "no json")


# S7 G11
def test_contradictions_are_refused_on_both_ways(
    command: Command,
    full: Database,
    empty: Database,
) -> None:
    command.ok("import", "--from-buildbot-sql", full.url)
    command.ok("set", "HgPoller/poller", "nan", "2")
    exit_code, error = command.refused("import", "--from-buildbot-sql", full.url)
    assert (exit_code, error["code"]) == (5, "import-conflict")
    assert "nan of object 2 = 2" in error["cause"]

    exit_code, error = command.refused("export", "--to-buildbot-sql", full.url)
    assert (exit_code, error["code"]) == (5, "import-conflict")
    expected = (
        "the export has value nan of object 2 = 2, the database has value nan of object 2 = 1"
    )
    assert error["cause"] == expected
    answer = command.ok("export", "--to-buildbot-sql", full.url, "--overwrite")
    assert answer["written"] == "1"
    assert (2, "nan", "2") in full.rows()["object_state"]

    command.ok("set", "HgPoller/poller", "bytes", "-", "--raw", source=b"\xff")
    exit_code, error = command.refused("export", "--to-buildbot-sql", empty.url)
    assert (exit_code, "which is no text" in error["cause"]) == (5, True)
    assert all(not rows for rows in empty.rows().values())


# S7 G9
def test_what_the_cluster_does_not_take_is_named(
    command: Command,
    full: Database,
) -> None:
    full.insert(Model.object_state, {"objectid": 2, "name": "", "value_json": "1"})
    exit_code, error = command.refused("import", "--from-buildbot-sql", full.url)
    assert (exit_code, error["code"]) == (2, "bad-request")
    assert "name" in error["what"]


# G11
def test_what_cannot_be_run_or_read_is_told_apart(
    command: Command,
    full: Database,
    tmp_path: Path,
) -> None:
    missing = f"sqlite:///{tmp_path}/missing.sqlite"
    exit_code, error = command.refused("import", "--from-buildbot-sql", missing)
    assert (exit_code, error["code"]) == (8, "buildbot-database")
    assert "missing.sqlite is no file" in error["cause"]

    command.environment["HOLDFAST_PYTHON"] = str(tmp_path / "no-python")
    exit_code, error = command.refused("import", "--from-buildbot-sql", full.url)
    assert (exit_code, error["code"]) == (2, "no-python")

    # An interpreter that has not got the package.
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    os.chmod(bare, 0o755)
    command.environment["HOLDFAST_PYTHON"] = str(bare)
    exit_code, error = command.refused("export", "--to-buildbot-sql", full.url)
    assert (exit_code, error["code"]) == (2, "no-python")
    assert "No module named" in error["cause"]
    assert "HOLDFAST_PYTHON=" in error["help"]
