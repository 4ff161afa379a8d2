"""Rows on their way from one cluster to another, with their ids (S7).

An export is a stream of rows as they were at one revision. It does not go on at another node when
it breaks: another one is at another revision. An import takes rows in under the ids that they have;
it can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from holdfast._engine import calls
from holdfast._engine.task import wait
from holdfast._wire import state_pb2
from holdfast.errors import Header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._engine.context import Context
    from holdfast._engine.stream import Stream


@dataclass(frozen=True)
class MasterRow:
    """A master; it comes in inactive."""

    id: int
    """1 to 2^53, as all ids here."""
    name: str
    last_active_ms: int
    """When it was last heard of: wall clock, in milliseconds since 1970. For display."""


@dataclass(frozen=True)
class ChangeSourceRow:
    """A change source; it comes in unowned."""

    id: int
    name: str
    group: str | None
    """The group it is in."""


@dataclass(frozen=True)
class ObjectRow:
    """An object; it comes before its values."""

    id: int
    name: str
    class_name: str


@dataclass(frozen=True)
class ValueRow:
    """A value of an object."""

    object_id: int
    name: str
    value: bytes


Row = Union[MasterRow, ChangeSourceRow, ObjectRow, ValueRow]


class Export:
    """All rows of a namespace, at one revision."""

    def __init__(self, stream: Stream[state_pb2.ExportResponse]) -> None:
        self._stream = stream
        self.header = Header.of(stream.first.header)
        """The cluster that the rows come from, and the revision that they are of."""

    async def next(self) -> list[Row] | None:
        """The next rows; None when there are no more. All together they are complete.

        Raises:
            Unavailable: the stream broke. The rows are to be read anew.
            LimitReached: as ``SLOW_READER`` if it was not read for 10 s; likewise.
        """
        part = await wait(self._stream.receive())
        if part is None:
            return None
        return [row for row in map(_from_wire, part.rows) if row is not None]

    def close(self) -> None:
        """Ends it."""
        self._stream.cancel()


async def export(context: Context) -> Export:
    """Opens an export."""
    request = state_pb2.ExportRequest(namespace=context.namespace)
    deadline = context.deadline()
    return Export(await context.engine.runtime.stream(calls.EXPORT, request, deadline))


async def import_rows(context: Context, rows: Sequence[Row]) -> int:
    """Takes rows in; says how many were not there yet."""
    request = state_pb2.ImportRequest(namespace=context.namespace, rows=map(_to_wire, rows))
    return (await context.write(calls.IMPORT, request)).written


def _to_wire(row: Row) -> state_pb2.Row:
    if isinstance(row, MasterRow):
        master = state_pb2.MasterRow(
            master_id=row.id, name=row.name, last_active_ms=row.last_active_ms
        )
        return state_pb2.Row(master=master)
    if isinstance(row, ChangeSourceRow):
        source = state_pb2.ChangeSourceRow(changesource_id=row.id, name=row.name, group=row.group)
        return state_pb2.Row(changesource=source)
    if isinstance(row, ObjectRow):
        item = state_pb2.ObjectItem(object_id=row.id, name=row.name, class_name=row.class_name)
        return state_pb2.Row(object=item)
    value = state_pb2.StateRow(object_id=row.object_id, name=row.name, value=row.value)
    return state_pb2.Row(state=value)


def _from_wire(row: state_pb2.Row) -> Row | None:
    """None for a row of a kind that this release does not know."""
    kind = row.WhichOneof("row")
    if kind == "master":
        return MasterRow(row.master.master_id, row.master.name, row.master.last_active_ms)
    if kind == "changesource":
        source = row.changesource
        group = source.group if source.HasField("group") else None
        return ChangeSourceRow(source.changesource_id, source.name, group)
    if kind == "object":
        return ObjectRow(row.object.object_id, row.object.name, row.object.class_name)
    if kind == "state":
        return ValueRow(row.state.object_id, row.state.name, row.state.value)
    return None
