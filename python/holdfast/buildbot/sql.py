"""Moving state between Buildbot's SQL database and a cluster (S7).

``python -m holdfast.buildbot.sql read URL`` writes the rows of a database to stdout, in the format
of ``holdfast state export``; ``write URL`` takes such a file in from stdin. ``holdfast state
import --from-buildbot-sql URL`` and ``holdfast state export --to-buildbot-sql URL`` run this.

Moved are masters, change sources, objects and their state, each under its id. Who runs, and who has
claimed what, is not: those are rights of those who live. What else the database holds (builds,
changes) stays there.

Errors are printed as the command ``holdfast`` prints them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import sqlalchemy as sa
from buildbot.db import enginestrategy
from buildbot.db.model import Model
from buildbot.util.sautils import hash_columns

from holdfast.buildbot.export_file import BadExportError, Head, Reader, Writer
from holdfast.transfer import ChangeSourceRow, MasterRow, ObjectRow, Row, ValueRow

CLUSTER_ID = "buildbot-sql"
"""What stands for the cluster in an export that is from a database."""

_ROWS_AT_ONCE = 1000
"""How many rows of a result are in memory."""


class SqlError(Exception):
    """Rows cannot be moved: ``code`` names a section of the runbook."""

    def __init__(self, code: str, what: str, cause: str, help: str) -> None:  # noqa: A002
        super().__init__(f"{what}: {cause}")
        self.code = code
        self.what = what
        self.cause = cause
        self.help = help

    def text(self) -> str:
        """As the command prints it: three lines, whatever the values in them hold."""
        parts = {f"error[{self.code}]": self.what, "  cause": self.cause, "   help": self.help}
        return "\n".join(f"{name}: {' '.join(part.split())}" for name, part in parts.items())


def read_rows(connection: sa.Connection) -> Iterator[Row]:
    """All rows that are moved, an object's state behind it.

    They are of one moment if the connection is in a transaction that sees one. Blocks.
    """
    masters, sources = Model.masters.c, Model.changesources.c
    for row in _select(connection, sa.select(masters.id, masters.name, masters.last_active)):
        yield MasterRow(row.id, row.name, row.last_active * 1000)
    for row in _select(connection, sa.select(sources.id, sources.name)):
        yield ChangeSourceRow(row.id, row.name, None)
    _refuse_orphans(connection)
    objects, state = Model.objects.c, Model.object_state.c
    columns = (objects.id, objects.name, objects.class_name, state.name, state.value_json)
    joined = Model.objects.outerjoin(Model.object_state, state.objectid == objects.id)
    last = None
    for row in _select(connection, sa.select(*columns).select_from(joined), state.name):
        id_, name, class_name, key, value = row
        if id_ != last:
            yield ObjectRow(id_, name, class_name)
            last = id_
        if key is not None:
            yield ValueRow(id_, key, value.encode("utf-8"))


def _select(connection: sa.Connection, query: sa.Select[Any], *then: Any) -> Any:
    """The rows in the order of their first column; no more than a part of them is in memory."""
    first, *_ = query.selected_columns
    ordered = query.order_by(first, *then).execution_options(yield_per=_ROWS_AT_ONCE)
    return connection.execute(ordered)


def _refuse_orphans(connection: sa.Connection) -> None:
    state = Model.object_state.c
    known = sa.select(Model.objects.c.id)
    orphans = sa.select(state.objectid, state.name).where(state.objectid.not_in(known))
    row = connection.execute(orphans.limit(1)).first()
    if row is not None:
        raise SqlError(
            "buildbot-database",
            f"the value {row.name} cannot be moved",
            f"it is of object {row.objectid}, and the table objects has no such row",
            "delete what nothing refers to: DELETE FROM object_state WHERE objectid NOT IN "
            "(SELECT id FROM objects)",
        )


class RowWriter:
    """Writes rows into a database; what is there already is passed over.

    A row that contradicts what is there raises ``SqlError``; of values, ``overwrite`` makes the
    row's one win. Nothing is committed here. Blocks.
    """

    def __init__(self, connection: sa.Connection, *, overwrite: bool) -> None:
        self._connection = connection
        self._overwrite = overwrite
        self._masters = _Named(connection, Model.masters)
        self._sources = _Named(connection, Model.changesources)
        self._objects = _Named(connection, Model.objects, Model.objects.c.class_name)
        self._values: tuple[int, dict[str, str]] = (0, {})
        self.written = 0
        self.ungrouped = 0

    def write(self, line: int, row: Row) -> None:
        """Writes a row; ``line`` says in errors where it stands."""
        try:
            self.written += self._write(row)
        except _Clash as clash:
            help_ = "mend one of both; nothing was written"
            if isinstance(row, ValueRow):
                help_ += "; or let the values of the cluster win: --overwrite"
            what = f"line {line} of the export contradicts what is in the database"
            cause = f"the export has {clash.row}, the database has {clash.found}"
            raise SqlError("import-conflict", what, cause, help_) from None

    def _write(self, row: Row) -> bool:
        if isinstance(row, MasterRow):
            active = {"active": 0, "last_active": row.last_active_ms // 1000}
            return self._masters.add(
                row.id, (row.name,), name_hash=hash_columns(row.name), **active
            )
        if isinstance(row, ChangeSourceRow):
            self.ungrouped += row.group is not None
            return self._sources.add(row.id, (row.name,), name_hash=hash_columns(row.name))
        if isinstance(row, ObjectRow):
            return self._objects.add(row.id, (row.name, row.class_name))
        return self._write_value(row)

    def _write_value(self, row: ValueRow) -> bool:
        if not self._objects.has(row.object_id):
            what = f"value {row.name} of object {row.object_id}"
            raise _Clash(what, f"no object {row.object_id}")
        text = _text(row)
        if self._values[0] != row.object_id:
            self._values = (row.object_id, self._values_of(row.object_id))
        values = self._values[1]
        found = values.get(row.name)
        if found == text:
            return False
        if found is not None and not self._overwrite:
            value = f"value {row.name} of object {row.object_id}"
            raise _Clash(f"{value} = {_shown(text)}", f"{value} = {_shown(found)}")
        table = Model.object_state
        if found is None:
            key = {"objectid": row.object_id, "name": row.name}
            self._connection.execute(table.insert().values(value_json=text, **key))
        else:
            here = sa.and_(table.c.objectid == row.object_id, table.c.name == row.name)
            self._connection.execute(table.update().where(here).values(value_json=text))
        values[row.name] = text
        return True

    def _values_of(self, object_id: int) -> dict[str, str]:
        state = Model.object_state.c
        query = sa.select(state.name, state.value_json).where(state.objectid == object_id)
        return {row.name: row.value_json for row in self._connection.execute(query)}

    def end(self) -> None:
        """Makes ids that the database gives out later higher than those written."""
        if self._connection.dialect.name != "postgresql":
            return  # SQLite and MySQL take the highest id there is.
        for table in (Model.masters, Model.changesources, Model.objects):
            sequence = sa.func.pg_get_serial_sequence(table.name, "id")
            highest = sa.select(sa.func.max(table.c.id)).scalar_subquery()
            setval = sa.func.setval(sequence, sa.func.coalesce(highest, 1), highest.is_not(None))
            self._connection.execute(sa.select(setval))


class _Clash(Exception):
    def __init__(self, row: str, found: str) -> None:
        super().__init__(row, found)
        self.row = row
        self.found = found


class _Named:
    """A table of rows that have an id and a name, each unique."""

    def __init__(self, connection: sa.Connection, table: Any, *more: Any) -> None:
        self._connection = connection
        self._table = table
        self._columns = (table.c.name, *more)
        rows = connection.execute(sa.select(table.c.id, *self._columns))
        self._names: dict[int, tuple[str, ...]] = {id_: tuple(name) for id_, *name in rows}
        self._ids = {name: id_ for id_, name in self._names.items()}

    def add(self, id_: int, name: tuple[str, ...], **more: object) -> bool:
        """Whether the row was not there; raises ``_Clash`` if another one is in its place."""
        if self._names.get(id_) == name:
            return False
        row = self._row(id_, name)
        if id_ in self._names:
            raise _Clash(row, self._row(id_, self._names[id_]))
        if name in self._ids:
            raise _Clash(row, self._row(self._ids[name], name))
        members = {column.name: part for column, part in zip(self._columns, name)}
        self._connection.execute(self._table.insert().values(id=id_, **members, **more))
        self._names[id_] = name
        self._ids[name] = id_
        return True

    def has(self, id_: int) -> bool:
        return id_ in self._names

    def _row(self, id_: int, name: tuple[str, ...]) -> str:
        return f"{self._table.name} {id_} {'/'.join(reversed(name))}"


def _text(row: ValueRow) -> str:
    try:
        return row.value.decode("utf-8")
    except UnicodeDecodeError:
        raise _Clash(
            f"value {row.name} of object {row.object_id}, which is no text",
            "a column for texts",
        ) from None


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


@contextmanager
def connect(url: str, *, to_write: bool) -> Iterator[sa.Connection]:
    """A connection to Buildbot's database, in a transaction that sees it as of one moment.

    The transaction is committed at the end, and rolled back if there is an exception. ``url`` is
    what ``c['db']['db_url']`` says; paths are relative to the current directory. Raises
    ``SqlError`` for whatever the database says.
    """
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            _begin(connection, to_write=to_write)
            yield connection
            connection.commit()
    except sa.exc.SQLAlchemyError as error:
        raise _unusable(f"{'write' if to_write else 'read'} the database", error) from error
    finally:
        engine.dispose()


def _engine(url: str) -> sa.Engine:
    try:
        _refuse_missing(sa.engine.make_url(url))
        return enginestrategy.create_engine(url, basedir=os.getcwd())
    except (sa.exc.SQLAlchemyError, ImportError, TypeError) as error:
        # Not a URL; a driver that is not installed; an argument that Buildbot does not take.
        raise _unusable("open the database", error) from error


def _unusable(act: str, error: Exception) -> SqlError:
    return SqlError(
        "buildbot-database",
        f"cannot {act}",
        str(error).splitlines()[0],
        "give what c['db']['db_url'] says, and bring the tables up to date: buildbot "
        "upgrade-master",
    )


def _refuse_missing(url: sa.URL) -> None:
    """SQLite would make an empty one."""
    if not url.drivername.startswith("sqlite"):
        return
    path = os.path.join(os.getcwd(), (url.database or "") % {"basedir": os.getcwd()})
    if not os.path.isfile(path):
        raise SqlError(
            "buildbot-database",
            "there is no database",
            f"{path} is no file",
            "run it in the master's directory, or give an absolute path (sqlite:////srv/…)",
        )


def _begin(connection: sa.Connection, *, to_write: bool) -> None:
    if connection.dialect.name == "sqlite":
        # Python's driver begins a transaction at the first change only, not for reading.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if to_write else "BEGIN")
    else:
        connection.execution_options(isolation_level="REPEATABLE READ")


def read(url: str, out: BinaryIO) -> None:
    """Writes the rows of a database as an export; raises ``SqlError``. Blocks."""
    writer = Writer(out, Head(CLUSTER_ID, "default", 0))
    with connect(url, to_write=False) as connection:
        for row in read_rows(connection):
            writer.row(row)
    writer.end()


def write(url: str, source: BinaryIO, *, overwrite: bool) -> RowWriter:
    """Takes an export into a database, all of it or nothing; raises ``SqlError``. Blocks."""
    try:
        with connect(url, to_write=True) as connection:
            writer = RowWriter(connection, overwrite=overwrite)
            for line, row in Reader(source):
                writer.write(line, row)
            writer.end()
    except BadExportError as bad:
        raise SqlError(
            "bad-export",
            f"line {bad.line} of the export cannot be used",
            bad.what,
            "nothing was written; export again, or restore the file",
        ) from None
    return writer


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.buildbot.sql", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("read", "write"):
        verbs.add_parser(verb).add_argument("url")
    verbs.choices["write"].add_argument("--overwrite", action="store_true")
    args = parser.parse_args(arguments)
    try:
        if args.verb == "read":
            read(args.url, sys.stdout.buffer)
        else:
            done = write(args.url, sys.stdin.buffer, overwrite=args.overwrite)
            print(json.dumps({"written": done.written, "ungrouped": done.ungrouped}))
    except SqlError as error:
        print(error.text(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
