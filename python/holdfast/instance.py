"""The secret of one running installation, by which the cluster tells a restart from a rival (M3).

A master that restarts gets its name's lease at once, because it shows the secret of the lease that
still runs; another installation with the same name has to wait. So two living programs must never
hold the same secret, also not after somebody copied a directory or started a second program in it.

The secret file records where it was made: machine id, device and inode. Its user holds an exclusive
lock (``flock(2)``) on it for life. A file that is locked by another, or that finds itself somewhere
else than it was made, gives a new secret. A child process that was forked has its parent's secret
in memory, but gives up the lock at once: the lock is the parent's alone.

The file is text, for people who wonder what it is, and the same as the Rust client's: magic and
version, four fields, and a checksum over what comes before it. It is never changed in place: a new
one is written aside, locked, synced and renamed over the old one.

It does not notice two machines that share machine id, device number and inode number, as a virtual
machine and its running clone do: give a clone its own ``/etc/machine-id``.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import secrets
import weakref
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET_BYTES = 32
_FILE_BYTES_MAX = 4096
"""Longest file that is read, in bytes; a sound one has about 250."""
_TRIES_MAX = 16
"""How often a file that is replaced under our hands is looked at again."""
_MAGIC = "holdfast-instance 1"


class Origin(enum.Enum):
    """Whether a lease of an earlier run can be taken over at once, or has to run out."""

    RANDOM = "random"
    """Random, and kept nowhere."""
    GIVEN = "given"
    """Given by the program."""
    KEPT = "kept"
    """From the file: the same as in the run before."""
    CREATED = "created"
    """New, because there was no file."""
    COPIED = "copied"
    """New, because the file was made elsewhere: it was copied, restored, or moved to other
    storage."""
    DAMAGED = "damaged"
    """New, because the file was damaged."""
    UNLOCKED = "unlocked"
    """Random, and kept nowhere, because another living program holds the file, or because the file
    system cannot lock files."""


class Instance:
    """The secret of one running installation, and the lock on its file for as long as it lives."""

    def __init__(self, secret: bytes, origin: Origin, lock: _Lock | None = None) -> None:
        self.secret = secret
        self.origin = origin
        self._lock = lock

    def __repr__(self) -> str:
        return f"Instance(origin={self.origin.value})"  # without the secret

    @classmethod
    def random(cls) -> Instance:
        """A secret of this moment, kept nowhere: after a restart the old lease has to run out."""
        return cls(secrets.token_bytes(SECRET_BYTES), Origin.RANDOM)

    @classmethod
    def from_bytes(cls, secret: bytes) -> Instance:
        """A secret that the program keeps by itself: 32 bytes.

        It must make sure that no two living programs use the same one.

        Raises:
            ValueError: it has another length.
        """
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
        return cls(secret, Origin.GIVEN)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Instance:
        """The secret in this file, which is made if need be (its directory is not).

        See :attr:`origin` for what was found. Blocks on the file system for a moment, and never
        waits for another program's lock.

        Raises:
            OSError: the file cannot be read or replaced.
        """
        return from_file_on(os.fspath(path), _machine_id())


def from_file_on(path: str, machine: str) -> Instance:
    """As :meth:`Instance.from_file`, on the machine with this id."""
    for _ in range(_TRIES_MAX):
        lock = _Lock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not lock.take():
            lock.release()
            return Instance(secrets.token_bytes(SECRET_BYTES), Origin.UNLOCKED)
        place = _Place.of(lock.descriptor, machine)
        # Whoever had the lock before may have put another file in this one's place.
        if not place.is_at(path):
            lock.release()
            continue
        found = _read(lock.descriptor)
        if isinstance(found, tuple):
            if found[0] == place:
                return Instance(found[1], Origin.KEPT, lock)
            origin = Origin.COPIED
        else:
            origin = found
        secret = secrets.token_bytes(SECRET_BYTES)
        # The old file stays locked until the new one has replaced it.
        try:
            replacement = _replace(path, machine, secret)
        finally:
            lock.release()
        return Instance(secret, origin, replacement)
    raise OSError(f"{path} is being replaced over and over by other programs")


class _Lock:
    """An open file with an exclusive lock on it, which ends with it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        _locks.add(self)

    def __del__(self) -> None:
        self.release()

    def take(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


# `flock` belongs to the open file, which a forked child shares: without this the child would hold
# the lock after its parent has died, and the parent's successor would not get it.
_locks: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _leave_locks_to_parent() -> None:
    for lock in list(_locks):
        lock.release()


os.register_at_fork(after_in_child=_leave_locks_to_parent)


@dataclass(frozen=True)
class _Place:
    """Where a file is; differs from any copy of it."""

    machine: str
    device: int
    inode: int

    @classmethod
    def of(cls, descriptor: int, machine: str) -> _Place:
        status = os.fstat(descriptor)
        return cls(machine, status.st_dev, status.st_ino)

    def is_at(self, path: str) -> bool:
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)


def _read(descriptor: int) -> tuple[_Place, bytes] | Origin:
    content = os.pread(descriptor, _FILE_BYTES_MAX, 0)
    if not content:
        return Origin.CREATED
    return parse(content) or Origin.DAMAGED


def _format(place: _Place, secret: bytes) -> bytes:
    body = (
        f"{_MAGIC}\nmachine {place.machine}\ndevice {place.device}\ninode {place.inode}\n"
        f"secret {secret.hex()}\n"
    ).encode()
    return body + f"crc32 {zlib.crc32(body):08x}\n".encode()


def parse(content: bytes) -> tuple[_Place, bytes] | None:
    """None if the content is not exactly what is written."""
    try:
        magic, machine, device, inode, secret, *_ = content.decode().split("\n")
        fields = dict(line.split(" ", 1) for line in (machine, device, inode, secret))
        place = _Place(fields["machine"], int(fields["device"]), int(fields["inode"]))
        found = bytes.fromhex(fields["secret"])
    except (KeyError, ValueError):
        return None
    is_sound = magic == _MAGIC and len(found) == SECRET_BYTES
    return (place, found) if is_sound and _format(place, found) == content else None


def _replace(path: str, machine: str, secret: bytes) -> _Lock:
    """Puts a new file at the path; returns it, locked."""
    aside = f"{path}.new-{secrets.token_hex(8)}"
    with _removed_on_failure(aside):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        lock = _Lock(os.open(aside, flags, 0o600))
        fcntl.flock(lock.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        content = _format(_Place.of(lock.descriptor, machine), secret)
        if os.write(lock.descriptor, content) != len(content):
            raise OSError(f"write {aside}: cut short")
        os.fsync(lock.descriptor)
        os.rename(aside, path)
        _sync_directory(os.path.dirname(path) or ".")
    return lock


@contextlib.contextmanager
def _removed_on_failure(path: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # What is left behind does no harm, and the first error is the one to tell.
        with contextlib.suppress(OSError):
            os.remove(path)
        raise


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _machine_id() -> str:
    """Identifies this machine.

    Without a machine id (see ``machine-id(5)``) this boot has to do, and without that this very
    moment: a secret that cannot be placed is never used again.
    """
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            found = file.read().strip()
            if found:
                return found
    return f"unknown-{secrets.token_hex(8)}"
