"""Objects in files: the bytes, saves that ended midway, damage, ids, many processes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zlib

import pytest

from holdfast.persistence import DamagedObject, FilesystemStore, Object
from holdfast.persistence.files import next_id
from holdfast.persistence.files.directory import Directory
from holdfast.persistence.ids import HIGHEST, LOWEST
from holdfast.persistence.record import Record
from tests.persistence.classes import Job
from tests.support.scale import scale


@pytest.fixture
def directory(tmp_path):
    return Directory(tmp_path / "a" / "b")


def records(body, count):
    return [(LOWEST + nth, Record("Task", {}, body.encode())) for nth in range(count)]


def put(directory, body, count):
    with directory.staged(records(body, count)) as staged, directory.writing() as locked:
        locked.commit(staged, LOWEST if count == 1 else None)


def bodies(directory):
    with directory.reading() as locked:
        if locked is None:
            return []
        return [locked.object(id_).body.decode() for id_ in locked.ids()]


# The bytes, as docs/formats.md has them: the Rust client writes and reads the same.
def test_file_is_as_documented(tmp_path):
    store = FilesystemStore(tmp_path)
    child = store.save(Object("Child"))
    body = b"body\0\xff"
    id_ = store.save(Object("Täsk", body, metadata={"state": "NEW", "ö": ""}))

    def text(text):
        return len(text.encode()).to_bytes(4, "big") + text.encode()

    head = (
        text("Täsk") + (2).to_bytes(4, "big") + text("state") + text("NEW") + text("ö") + text("")
    )
    frame = b"hfobject" + (1).to_bytes(4, "big") + len(head).to_bytes(4, "big")
    frame += int(id_).to_bytes(8, "big") + len(body).to_bytes(8, "big")
    frame += zlib.crc32(body).to_bytes(4, "big")
    frame += zlib.crc32(frame + head).to_bytes(4, "big")
    assert (tmp_path / id_).read_bytes() == frame + head + body
    # References stand in front of the body.
    parent = store.save(Object("Parent", b"x", children=[store.load(child)]))
    assert (tmp_path / parent).read_bytes().endswith(int(child).to_bytes(8, "big") + b"x")
    upcoming = f"holdfast-ids 1\nnext {int(child) + 64}\n"
    checksum = zlib.crc32(upcoming.encode())
    assert (tmp_path / "next-id").read_text() == f"{upcoming}crc32 {checksum:08x}\n"


# P3
def test_all_or_none_of_several_objects_are_in(directory):
    assert bodies(directory) == []
    assert not directory.path.exists(), "it is not made by looking"
    for count, body in [(3, "one"), (20, "many"), (1, "alone")]:
        put(directory, body, count)
        assert bodies(directory).count(body) == count
    with pytest.raises(KeyboardInterrupt), directory.staged(records("lost", 3)):
        raise KeyboardInterrupt
    assert "lost" not in bodies(directory)
    assert os.listdir(directory.path / "aside") == []


# P3: a process that ends at any step of a commit.
def test_whoever_comes_next_finishes_what_is_in(directory):
    put(directory, "old", 3)
    for moved in range(4):
        body = f"new {moved}"
        commit = directory.path / "commit"
        with directory.staged(records(body, 3)) as staged:
            staged.rename(commit)
        for nth in range(moved):
            (commit / str(LOWEST + nth)).rename(directory.path / str(LOWEST + nth))
        assert bodies(directory) == [body] * 3
        assert not commit.exists()


def test_only_what_belongs_to_nobody_is_swept_away(directory):
    with directory.staged(records("alive", 2)) as staged:
        dead = directory.path / "aside" / "dead"
        dead.mkdir()
        (dead / str(LOWEST)).write_text("half")
        with directory.writing() as locked:
            locked.sweep()
            assert not dead.exists()
            locked.commit(staged, None)
    assert bodies(directory) == ["alive"] * 2


def test_damage_anywhere_is_seen_and_named(tmp_path):
    store = FilesystemStore(tmp_path)
    id_ = store.save(Object("Task", b"body\0\xff", metadata={"state": "NEW"}))
    path = tmp_path / id_
    sound = path.read_bytes()
    damaged = [sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :] for at in range(len(sound))]
    damaged += [sound[:at] for at in range(len(sound))]
    damaged.append(sound + b"x")
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DamagedObject, match=id_):
            FilesystemStore(tmp_path).load(id_)
    path.rename(tmp_path / str(HIGHEST))
    (tmp_path / str(HIGHEST)).write_bytes(sound)
    with pytest.raises(DamagedObject, match=f"it holds the object {id_}"):
        store.load(str(HIGHEST))


# P1
def test_blocks_of_ids_follow_each_other_and_the_clock(directory):
    with directory.writing() as locked:
        assert next_id.lease(locked, 64, 0) == range(LOWEST, LOWEST + 64)
        assert next_id.lease(locked, 1, 0) == range(LOWEST + 64, LOWEST + 65)
        later = LOWEST + 10 * 2_000_000
        assert next_id.lease(locked, 5, 10) == range(later, later + 5)
        # A clock that is put back gives nothing out twice.
        assert next_id.lease(locked, 5, 3) == range(later + 5, later + 10)
        with pytest.raises(DamagedObject, match="would end above"):
            next_id.lease(locked, 1, 2**40)


# P1: an older copy of the directory was put in its place.
def test_restored_directory_gives_no_id_out_again(tmp_path):
    store = FilesystemStore(tmp_path / "now")
    first = store.save(Job("first"))
    shutil.copytree(tmp_path / "now", tmp_path / "backup")
    since = [FilesystemStore(tmp_path / "now").save(Job("since")) for _ in range(3)]
    shutil.rmtree(tmp_path / "now")
    (tmp_path / "backup").rename(tmp_path / "now")
    with Directory(tmp_path / "now").writing() as locked:
        seconds = (int(max(since)) - LOWEST) // 2_000_000 + 1
        assert next_id.lease(locked, 1, seconds).start > int(max(since))
    assert FilesystemStore(tmp_path / "now").load(first).command == "first"


# P1
def test_damage_of_the_next_id_is_told_and_its_loss_made_good(directory):
    path = directory.path / "next-id"
    with directory.writing() as locked:
        next_id.lease(locked, 64, 0)
        sound = path.read_bytes()
        for at in range(len(sound)):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            with pytest.raises(DamagedObject, match="next-id"):
                next_id.lease(locked, 1, 0)
        path.unlink()
        (directory.path / str(LOWEST + 99)).write_text("an object")
        assert next_id.lease(locked, 1, 0).start == LOWEST + 100


# P4 P1: what a process has in hand is never used by one that it forks.
def test_ids_over_a_fork(tmp_path):
    store = FilesystemStore(tmp_path / "store")
    store.save(Job("parent"))
    per_process = scale(200, 20)

    def save():
        return [store.save(Object("Job")) for _ in range(per_process)]

    children = [forked(tmp_path / str(nth), save) for nth in range(3)]
    ids = save()
    for path, pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        ids += json.loads(path.read_text())
    assert len(set(ids)) == 4 * per_process


# Many writers at once: none fails, nothing is lost.
def test_many_writing_processes(tmp_path):
    per_process = scale(50, 5)

    def save():
        store = FilesystemStore(tmp_path / "store")
        return [store.save(Job("root", Job("child"))) for _ in range(per_process)]

    children = [forked(tmp_path / str(nth), save) for nth in range(scale(32, 8))]
    ids = []
    for path, pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        ids += json.loads(path.read_text())
    store = FilesystemStore(tmp_path / "store")
    assert len(set(ids)) == len(children) * per_process
    assert len(store.list()) == 2 * len(ids)
    assert all(store.load(id_).children[0].command == "child" for id_ in ids)


def test_readers_wait_for_who_changes_something(directory):
    put(directory, "one", 1)
    with directory.writing():
        lock = os.open(directory.path / "lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with directory.reading():
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(lock)


def forked(path, work):
    """Forks a process that writes what came of its work to a file."""
    pid = os.fork()
    if pid == 0:
        try:
            path.write_text(json.dumps(work()))
        except BaseException:
            os._exit(1)
        os._exit(0)
    return path, pid
