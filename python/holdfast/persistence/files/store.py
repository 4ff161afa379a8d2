"""The store in a directory."""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from holdfast.persistence.backend import Absent, Filter, Head
from holdfast.persistence.errors import UnissuedId
from holdfast.persistence.files import next_id
from holdfast.persistence.files.directory import Directory
from holdfast.persistence.ids import IdBlocks
from holdfast.persistence.objects import ObjectStore
from holdfast.persistence.per_process import PerProcess
from holdfast.persistence.record import Record, Stored, own_metadata, split
from holdfast.persistence.tree import Growing
from holdfast.persistence.uri import Uri

_BLOCK = 64
"""How many ids are taken from the directory at a time, which costs two syncs."""


class FilesystemStore(ObjectStore):
    """Objects as files of a directory, which is made by the first save.

    Each object is a file of its own, named by its id, written aside, synced and renamed. A save is
    atomic, however many objects it writes: it is done when it has returned, or when the next caller
    finds it, and nobody ever sees a part of it. Loads and lists show what is there at one moment;
    while one goes on, saves wait, and the other way round.

    Where an older copy of the directory is restored, ids are still not given out twice as long as
    the wall clock was not put back meanwhile.

    Args:
        directory: Its path, or a URI such as ``file:///var/lib/jobs``.
        options: As of :class:`~holdfast.persistence.objects.ObjectStore`.

    Raises:
        BadUri: The URI names no directory here.
    """

    def __init__(self, directory: str | os.PathLike[str] | Uri, **options: Any) -> None:
        uri = directory if isinstance(directory, Uri) else None
        path = Path(_path_of(uri) if uri else os.fspath(directory))  # type: ignore[arg-type]
        super().__init__(_Files(path), **options)
        self.path = path
        self.url = uri or Uri.parse(self.name)


class _Files:
    """The backend in a directory."""

    def __init__(self, path: Path) -> None:
        self.name = f"file://{path}"
        self._directory = Directory(path)
        self._blocks = PerProcess(_Blocks)
        self._has_swept = False

    def lease(self, count: int) -> builtins.list[int]:
        blocks = self._blocks.get()
        with blocks.lock:
            taken = blocks.ids.take(count)
            if taken is None:
                with self._directory.writing() as directory:
                    leased = next_id.lease(directory, max(count, _BLOCK))
                taken = list(leased[:count])
                blocks.ids.keep(leased[count:])
            return taken

    def reserve(self, count: int) -> None:
        blocks = self._blocks.get()
        with blocks.lock, self._directory.writing() as directory:
            blocks.ids.keep(next_id.lease(directory, count))

    def put(self, records: builtins.list[tuple[int, Record]]) -> None:
        with self._directory.staged(records) as staged, self._directory.writing() as directory:
            upcoming = next_id.upcoming(directory)
            for id_, _ in records:
                if id_ >= upcoming:
                    raise UnissuedId(str(id_), self.name)
            directory.commit(staged, records[0][0] if len(records) == 1 else None)
            if not self._has_swept:
                self._has_swept = True
                directory.sweep()

    def fetch(self, root: int, is_here: Callable[[int], bool]) -> dict[int, Stored]:
        tree = Growing(root, is_here)
        with self._directory.reading() as directory:
            while tree.wanted:
                level = []
                for id_ in tree.wanted:
                    record = directory.object(id_) if directory else None
                    if record is None:
                        raise Absent(id_, tree.parent(id_))
                    level.append(split(id_, record))
                tree.grow(level)
        return tree.objects

    def remove(self, id_: int) -> None:
        # A directory that is not there is not made for this.
        with self._directory.reading() as directory:
            is_there = directory is not None
        if is_there:
            with self._directory.writing() as locked:
                locked.remove(id_)

    def list(self, wanted: Filter) -> builtins.list[Head]:
        found = []
        with self._directory.reading() as directory:
            for id_ in directory.ids() if directory else ():
                head = directory.head(id_) if directory else None
                if head and wanted.passes(head.class_name, own_metadata(head.metadata)):
                    found.append(head)
        return found

    def heads(self, wanted: Filter) -> Iterator[Head]:
        return iter(self.list(wanted))


class _Blocks:
    """The ids that one process has in hand."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ids = IdBlocks()


def _path_of(uri: Uri) -> str:
    if uri.authority not in ("", "localhost"):
        host = uri.authority
        raise uri.bad(f"{host!r} stands where a host would, and files are here: file:///PATH")
    for name, _ in uri.query:
        raise uri.bad(f"there is no parameter {name!r}")
    if not uri.path:
        raise uri.bad("it names no directory: file:///PATH")
    return uri.path
