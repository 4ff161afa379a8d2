"""Two living programs never hold the same secret (M3)."""

from __future__ import annotations

import os
import shutil

import pytest

from holdfast.instance import SECRET_BYTES, Instance, Origin, from_file_on, parse


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "instance")


def test_restart_keeps_the_secret(path, tmp_path):
    first = Instance.from_file(path)
    assert first.origin == Origin.CREATED
    secret = first.secret
    del first
    second = Instance.from_file(path)
    assert (second.origin, second.secret) == (Origin.KEPT, secret)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["instance"]


def test_second_holder_gets_another_secret(path):
    first = Instance.from_file(path)
    second = Instance.from_file(path)
    assert second.origin == Origin.UNLOCKED
    assert second.secret != first.secret


def test_copy_gets_another_secret(path, tmp_path):
    first = Instance.from_file(path)
    copy = str(tmp_path / "copy")
    shutil.copy(path, copy)
    second = Instance.from_file(copy)
    assert second.origin == Origin.COPIED
    assert second.secret != first.secret
    own = second.secret
    del second
    third = Instance.from_file(copy)
    assert (third.origin, third.secret) == (Origin.KEPT, own)


def test_renamed_file_keeps_its_secret_and_a_copy_in_its_place_does_not(path, tmp_path):
    secret = Instance.from_file(path).secret
    moved = str(tmp_path / "moved")
    os.rename(path, moved)
    assert Instance.from_file(moved).secret == secret
    shutil.copy(moved, path)
    restored = Instance.from_file(path)
    assert restored.origin == Origin.COPIED
    assert restored.secret != secret


def test_other_machine_gets_another_secret(path):
    here = from_file_on(path, "here").secret
    there = from_file_on(path, "there")
    assert there.origin == Origin.COPIED
    assert there.secret != here


def test_any_damaged_byte_gives_a_new_secret(path):
    Instance.from_file(path)
    with open(path, "rb") as file:
        sound = file.read()
    assert parse(sound) is not None
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1
        assert parse(bytes(damaged)) is None, f"damage at byte {at} went unnoticed"
    with open(path, "wb") as file:
        file.write(sound[:-1])
    assert Instance.from_file(path).origin == Origin.DAMAGED


# The lock is the parent's alone: its successor gets it while children of it live on.
def test_child_does_not_keep_the_lock(path):
    parent = Instance.from_file(path)
    secret = parent.secret
    told, tell = os.pipe()
    stopped, stop = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"x")
        os.close(stop)
        os.read(stopped, 1)  # lives until its parent says so, or is gone
        os._exit(0)
    try:
        os.read(told, 1)
        del parent
        successor = Instance.from_file(path)
        assert (successor.origin, successor.secret) == (Origin.KEPT, secret)
    finally:
        os.close(stop)
        os.waitpid(pid, 0)
        for descriptor in (told, tell, stopped):
            os.close(descriptor)


def test_text_hides_the_secret():
    assert "ab" not in repr(Instance.from_bytes(b"\xab" * SECRET_BYTES))
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Instance.from_bytes(b"x" * (SECRET_BYTES - 1))


def test_missing_directory_is_named():
    with pytest.raises(FileNotFoundError, match="/nonexistent/instance"):
        Instance.from_file("/nonexistent/instance")
