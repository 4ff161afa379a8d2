"""State moves between Buildbot's SQL database and exports, losslessly and under its ids (S7)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from buildbot.db.model import Model

from holdfast.buildbot import sql
from holdfast.buildbot.export_file import Head, Writer
from holdfast.transfer import ChangeSourceRow, MasterRow, ObjectRow, Row, ValueRow
from tests.buildbot.connectors.sql_database import VALUES, Database
from tests.support.scale import report, scale


def exported(database: Database) -> bytes:
    out = io.BytesIO()
    sql.read(database.url, out)
    return out.getvalue()


def export_of(*rows: Row) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, Head("c", "default", 1))
    for row in rows:
        writer.row(row)
    writer.end()
    return out.getvalue()


def write(database: Database, export: bytes, *, overwrite: bool = False) -> sql.RowWriter:
    return sql.write(database.url, io.BytesIO(export), overwrite=overwrite)


def refused(database: Database, export: bytes, *, overwrite: bool = False) -> sql.SqlError:
    before = database.rows()
    with pytest.raises(sql.SqlError) as raised:
        write(database, export, overwrite=overwrite)
    assert database.rows() == before, "a refused export has changed something"
    return raised.value


def run(*arguments: str, source: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    python = [sys.executable, "-m", "holdfast.buildbot.sql", *arguments]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(python, input=source, capture_output=True, env=environment, check=False)


# S7
def test_rows_go_out_and_in_under_their_ids(full: Database, empty: Database) -> None:
    export = exported(full)
    done = write(empty, export)
    assert (done.written, done.ungrouped) == (2 + 2 + 3 + len(VALUES) + 1, 0)
    before, after = full.rows(), empty.rows()
    # Who is active is not moved: that is a right of those who live.
    assert [row[3] for row in after["masters"]] == [0, 0]
    before["masters"] = [(*row[:3], 0, row[4]) for row in before["masters"]]
    assert after == before
    assert exported(empty) == export


# S7
def test_what_is_there_is_passed_over(full: Database) -> None:
    before = full.rows()
    assert write(full, exported(full)).written == 0
    assert full.rows() == before


# S7
def test_an_export_goes_on_where_rows_are_missing(full: Database) -> None:
    export = exported(full)
    before = full.rows()
    gone = Model.object_state.delete().where(Model.object_state.c.name == "nan")
    with full.engine.begin() as connection:
        connection.execute(gone)
    assert write(full, export).written == 2
    assert full.rows() == before


# S7
@pytest.mark.parametrize(
    ("row", "mine", "found"),
    [
        (MasterRow(7, "other", 0), "masters 7 other", "masters 7 host:/srv/m\u00fcller"),
        (MasterRow(8, "b", 0), "masters 8 b", "masters 9 b"),
        (ChangeSourceRow(3, "other", None), "changesources 3 other", "changesources 3 git://"),
        (ObjectRow(5, "poller", "Other"), "objects 5 Other/poller", "objects 5 GitPoller/poller"),
        (
            ObjectRow(6, "poller", "HgPoller"),
            "objects 6 HgPoller/poller",
            "objects 2 HgPoller/poller",
        ),
        (ValueRow(2, "nan", b"2"), "value nan of object 2 = 2", "value nan of object 2 = 1"),
        (
            ValueRow(2, "new", b"\xff"),
            "value new of object 2, which is no text",
            "a column for texts",
        ),
        (ValueRow(99, "nan", b"2"), "value nan of object 99", "no object 99"),
    ],
)
def test_a_row_that_contradicts_is_refused(full: Database, row: Row, mine: str, found: str) -> None:
    error = refused(full, export_of(MasterRow(100, "new", 0), row))
    assert error.code == "import-conflict"
    assert "line 3 " in error.what
    assert f"the export has {mine}" in error.cause
    assert f"the database has {found}" in error.cause


# S7 G11
def test_an_error_is_three_lines_whatever_is_in_it(full: Database) -> None:
    error = refused(full, export_of(ValueRow(5, "no json", b"two\r\nlines")))
    assert error.text().splitlines() == [
        "error[import-conflict]: line 2 of the export contradicts what is in the database",
        "  cause: the export has value no json of object 5 = two lines, the database has value no "
        "json of object 5 = ff[1 \U0001f600",
        "   help: mend one of both; nothing was written; or let the values of the cluster win: "
        "--overwrite",
    ]


# S7
def test_values_are_overwritten_if_that_is_asked_for(full: Database) -> None:
    rows = full.rows()["object_state"]
    assert write(full, export_of(ValueRow(2, "nan", b"2")), overwrite=True).written == 1
    assert set(full.rows()["object_state"]) ^ set(rows) == {(2, "nan", "1"), (2, "nan", "2")}
    refused(full, export_of(ObjectRow(5, "poller", "Other")), overwrite=True)


# S7
def test_ids_that_buildbot_gives_out_later_are_higher(full: Database) -> None:
    write(full, export_of(ObjectRow(1 << 40, "high", "c")))
    full.insert(Model.objects, {"name": "next", "class_name": "c"})
    assert max(row[0] for row in full.rows()["objects"]) == (1 << 40) + 1


# S7 G11
def test_a_damaged_export_changes_nothing(full: Database, empty: Database) -> None:
    export = exported(full)
    error = refused(empty, export[:-20])
    assert (error.code, error.help.startswith("nothing was written")) == ("bad-export", True)


# S7
def test_groups_have_no_place_there_and_are_counted(empty: Database) -> None:
    done = write(empty, export_of(ChangeSourceRow(1, "a", "g"), ChangeSourceRow(2, "b", None)))
    assert (done.written, done.ungrouped) == (2, 1)


# S7 G11
def test_state_of_no_object_is_not_left_behind_in_silence(full: Database) -> None:
    full.insert(Model.object_state, {"objectid": 77, "name": "x", "value_json": "1"})
    with pytest.raises(sql.SqlError, match="it is of object 77") as raised:
        exported(full)
    assert raised.value.code == "buildbot-database"


# G11
def test_what_is_no_database_is_refused_and_none_is_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing.sqlite"
    with pytest.raises(sql.SqlError, match="is no file"):
        sql.read(f"sqlite:///{missing}", io.BytesIO())
    assert not missing.exists()
    other = tmp_path / "other.sqlite"
    sa.create_engine(f"sqlite:///{other}").connect().close()
    with pytest.raises(sql.SqlError, match="no such table: masters") as raised:
        sql.read(f"sqlite:///{other}", io.BytesIO())
    assert "buildbot upgrade-master" in raised.value.help
    for url in ("nonsense", "oracle://host/db", "postgresql+nothing://host/db"):
        with pytest.raises(sql.SqlError, match="cannot open the database"):
            sql.read(url, io.BytesIO())


# S7
def test_a_database_is_read_as_of_one_moment(full: Database) -> None:
    before = exported(full)
    with sql.connect(full.url, to_write=False) as connection:
        rows = sql.read_rows(connection)
        first = next(rows)
        full.insert(Model.object_state, {"objectid": 11, "name": "late", "value_json": "1"})
        seen = [first, *rows]
    assert export_of(*seen).splitlines()[1:-1] == before.splitlines()[1:-1]
    assert b'"late"' in exported(full)


# S7
def test_the_program_reads_and_writes(full: Database, empty: Database) -> None:
    read = run("read", full.url)
    assert (read.returncode, read.stdout) == (0, exported(full)), read.stderr
    written = run("write", empty.url, source=read.stdout)
    assert json.loads(written.stdout) == {"written": 15, "ungrouped": 0}, written.stderr
    refusal = run("write", empty.url, source=export_of(ValueRow(2, "nan", b"2")))
    assert (refusal.returncode, refusal.stdout) == (1, b"")
    assert refusal.stderr.decode().splitlines() == [
        "error[import-conflict]: line 2 of the export contradicts what is in the database",
        "  cause: the export has value nan of object 2 = 2, the database has value nan of "
        "object 2 = 1",
        "   help: mend one of both; nothing was written; or let the values of the cluster win: "
        "--overwrite",
    ]
    overwritten = run("write", empty.url, "--overwrite", source=export_of(ValueRow(2, "nan", b"2")))
    assert json.loads(overwritten.stdout) == {"written": 1, "ungrouped": 0}


# S7
def test_many_rows_are_not_all_in_memory(full: Database, empty: Database) -> None:
    count = scale(100_000, 5_000)
    objects = [{"id": 100 + i, "name": f"o{i}", "class_name": "c"} for i in range(count // 10)]
    full.insert(Model.objects, *objects)
    values = [
        {"objectid": 100 + i // 10, "name": f"k{i % 10}", "value_json": json.dumps("v" * 100)}
        for i in range(count)
    ]
    full.insert(Model.object_state, *values)
    export = exported(full)
    write(empty, export)
    assert exported(empty) == export
    report("rows moved out of and into a Buildbot database, equal", len(export.splitlines()) - 2)
