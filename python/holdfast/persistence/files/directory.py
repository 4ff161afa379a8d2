"""A directory of objects: what is in it, and how it changes, also under many processes.

::

    lock                    held by flock: shared by readers, exclusively by who changes something
    next-id                 the first id that was not given out yet
    1000000000000000        an object
    aside/<random>/<id>     objects on their way in; the directory is locked by who writes it
    commit/<id>             objects that are in, and have not been moved to their places yet

# Invariants
- An object is written and synced aside. One alone is renamed to its place; several are renamed to
  ``commit`` together, as one directory, and that is when all of them are in.
- Whoever has the lock sees no ``commit``: whoever found it has moved it to its places first.
- What lies aside and is not locked belongs to nobody, and is swept away.
- All that was acknowledged survives a power cut: files are synced before they are renamed, and the
  directory is synced after.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.persistence import ids
from holdfast.persistence.backend import Head
from holdfast.persistence.files.format import encode_head, read_head, read_object
from holdfast.persistence.record import Record

_LOCK = "lock"
_ASIDE = "aside"
_COMMIT = "commit"
_SYNCED_ONE_BY_ONE = 16
"""More files than these are synced all at once, with whatever else the file system has to write."""


class Directory:
    """A directory of objects, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def reading(self) -> Iterator[Locked | None]:
        """The right to read; none if there is no such directory, and so nothing in it.

        Waits for those who change something; a process that is stopped with the lock holds up the
        others.
        """
        if not self.path.exists():
            yield None
            return
        with self._lock(fcntl.LOCK_SH):
            has_commit = self._has_commit()
            if not has_commit:
                yield Locked(self.path)
        if has_commit:
            # Whoever began it is gone. A lock that is turned into a stronger one may be lost in
            # between, so it is taken anew.
            with self.writing() as locked:
                yield locked

    @contextmanager
    def writing(self) -> Iterator[Locked]:
        """The right to change; makes the directory if need be."""
        _make_directories(self.path)
        with self._lock(fcntl.LOCK_EX):
            locked = Locked(self.path)
            if self._has_commit():
                locked.settle()
            yield locked

    @contextmanager
    def staged(self, records: list[tuple[int, Record]]) -> Iterator[Path]:
        """Objects aside, synced; what is still there at the end is thrown away. Takes no lock."""
        aside = self.path / _ASIDE
        _make_directories(aside)
        path, lock = _reserve(aside)
        try:
            one_by_one = len(records) <= _SYNCED_ONE_BY_ONE
            for id_, record in records:
                _write(path / str(id_), encode_head(id_, record), record.body, sync=one_by_one)
            if not one_by_one:
                _sync_all_of(path)
            _sync_directory(path)
            yield path
        finally:
            # Gone already if they are in; else what stays behind is swept away later.
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)

    def _has_commit(self) -> bool:
        return (self.path / _COMMIT).exists()


class Locked:
    """The right to read what is in a directory, or to change it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def object(self, id_: int) -> Record | None:
        """An object; none if it is not there.

        Raises:
            DamagedObject: Its file is.
        """
        path = self._path / str(id_)
        try:
            with path.open("rb") as file:
                return read_object(file, id_, str(path))
        except FileNotFoundError:
            return None

    def head(self, id_: int) -> Head | None:
        """What is known of an object without its body; none if it is not there.

        Raises:
            DamagedObject: Its file is.
        """
        path = self._path / str(id_)
        try:
            with path.open("rb") as file:
                return read_head(file, id_, str(path))[0]
        except FileNotFoundError:
            return None

    def ids(self) -> list[int]:
        """The ids of all objects, in order. What is not named like an object is passed over."""
        return _ids_in(self._path)

    def commit(self, staged: Path, only: int | None) -> None:
        """Puts staged objects in their places: all of them, also if this process ends midway.

        Args:
            staged: Where they lie.
            only: The only one, if there is no other.
        """
        if only is not None:
            (staged / str(only)).rename(self._path / str(only))
            self._sync()
            return
        staged.rename(self._path / _COMMIT)
        # From here on they are in.
        self._sync()
        self.settle()

    def remove(self, id_: int) -> None:
        """Removes an object, if there is one."""
        try:
            (self._path / str(id_)).unlink()
        except FileNotFoundError:
            return
        self._sync()

    def sweep(self) -> None:
        """Throws away what lies aside and belongs to nobody; what cannot go is left to the next."""
        try:
            entries = list((self._path / _ASIDE).iterdir())
        except FileNotFoundError:
            return
        for entry in entries:
            with suppress(OSError):
                lock = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry, ignore_errors=True)
                finally:
                    os.close(lock)

    def replace_file(self, name: str, data: bytes) -> None:
        """Replaces a small file of the directory's own, and syncs it."""
        # The lock is ours, so that nobody else writes there.
        aside = self._path / f"{name}.new"
        _write(aside, data, sync=True)
        aside.rename(self._path / name)
        self._sync()

    def file(self, name: str) -> bytes | None:
        """A small file of the directory's own; none if it is not there."""
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def path_of(self, name: str) -> str:
        """Where a file of the directory's own is, for messages."""
        return str(self._path / name)

    def settle(self) -> None:
        """Moves what is in to its places."""
        commit = self._path / _COMMIT
        for id_ in _ids_in(commit):
            (commit / str(id_)).rename(self._path / str(id_))
        self._sync()
        commit.rmdir()

    def _sync(self) -> None:
        _sync_directory(self._path)


def _reserve(aside: Path) -> tuple[Path, int]:
    """Makes a directory of a random name and locks it."""
    while True:
        path = aside / secrets.token_hex(8)
        path.mkdir()
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            # Whoever sweeps may have been faster, before we had the lock.
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return path, lock
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(lock)


def _ids_in(path: Path) -> list[int]:
    numbers = (ids.parse(name) for name in os.listdir(path))
    return sorted(number for number in numbers if number is not None)


def _make_directories(path: Path) -> None:
    """Makes a directory, and those above it that are missing, so that they survive a power cut."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        _sync_directory(directory.parent)


def _write(path: Path, *parts: bytes, sync: bool) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _sync_all_of(path: Path) -> None:
    """Syncs all files of a directory.

    On Linux one call for the whole file system is much cheaper than one for each of thousands of
    files, and since Linux 5.8 it reports what could not be written (``syncfs(2)``).
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is not None:
            if syncfs(directory) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
            return
    finally:
        os.close(directory)
    for entry in path.iterdir():
        with entry.open("rb") as file:
            os.fsync(file.fileno())
