"""What keeps bytes of others from running here: signatures and lists of names."""

from __future__ import annotations

import importlib
import operator
import os
import pickle

import pytest

from holdfast.persistence import FilesystemStore, Object, UntrustedObject
from holdfast.persistence.files.directory import Directory
from holdfast.persistence.record import CODEC, Record
from holdfast.persistence.trust import Allowed
from tests.persistence import classes
from tests.persistence.classes import Job

KEY = b"secret"
ran = []


def run(what):
    ran.append(what)
    return Job(what)


class Attack:
    def __reduce__(self):
        return run, ("attack",)


def smuggle(path, id_, body):
    """Writes a pickle in place of an object, as somebody would who can write to the store."""
    directory = Directory(path)
    records = [(int(id_), Record("Job", {CODEC: "pickle"}, body))]
    with directory.staged(records) as staged, directory.writing() as locked:
        locked.commit(staged, int(id_))


@pytest.fixture
def attack(tmp_path):
    ran.clear()
    id_ = FilesystemStore(tmp_path).save(Job("good"))
    smuggle(tmp_path, id_, pickle.dumps((run, ("attack",))) + pickle.dumps((None,) * 4))
    return id_


def test_without_guards_pickles_run(tmp_path, attack):
    FilesystemStore(tmp_path).load(attack)
    assert ran == ["attack"]


def test_what_is_not_signed_does_not_run(tmp_path, attack):
    with pytest.raises(UntrustedObject, match=f"{attack}.*not signed"):
        FilesystemStore(tmp_path, key=KEY).load(attack)
    assert ran == []


def test_what_is_not_allowed_does_not_run(tmp_path, attack):
    with pytest.raises(UntrustedObject, match=r"tests\.persistence\.test_trust\.run"):
        FilesystemStore(tmp_path, allow=["tests.persistence.*"]).load(attack)
    assert ran == []
    FilesystemStore(tmp_path, allow=[f"{__name__}.run", f"{classes.__name__}.*"]).load(attack)
    assert ran == ["attack"]


# The child comes before its parent: nothing of a tree runs unless all of it is signed.
def test_one_bad_object_spoils_its_tree(tmp_path):
    ran.clear()
    store = FilesystemStore(tmp_path, key=KEY)
    child, bad = Job("child", Attack()), Job("bad")
    root = store.save(Job("root", child, bad))
    smuggle(tmp_path, bad.persistent_id, b"")
    with pytest.raises(UntrustedObject, match=bad.persistent_id):
        FilesystemStore(tmp_path, key=KEY).load(root)
    assert ran == []


def test_signature_covers_all_of_an_object(tmp_path):
    store = FilesystemStore(tmp_path, key=KEY)
    child = Object("Child")
    plain = Object("Task", b"body", metadata={"state": "NEW"}, children=[child])
    id_ = store.save(plain)
    assert FilesystemStore(tmp_path, key=KEY).load(id_).body == b"body"
    directory = Directory(tmp_path)
    with directory.reading() as locked:
        sound = locked.object(int(id_))
    signature = {"_signature": sound.metadata["_signature"]}
    shifted = {"_children": "1", "stateN": "EW", **signature}
    other = int(child.persistent_id).to_bytes(8, "big")
    for number, record in [
        (int(child.persistent_id), sound),
        (int(id_), Record("Other", sound.metadata, sound.body)),
        (int(id_), Record("Task", {**sound.metadata, "state": "OLD"}, sound.body)),
        (int(id_), Record("Task", {**sound.metadata, CODEC: "pickle"}, sound.body)),
        (int(id_), Record("Task", shifted, sound.body)),
        (int(id_), Record("Task", {"state": "NEW", **signature}, sound.body)),
        (int(id_), Record("Task", sound.metadata, other + b"bodY")),
        (int(id_), Record("Task", sound.metadata, int(id_).to_bytes(8, "big") + b"body")),
    ]:
        with directory.staged([(number, record)]) as staged, directory.writing() as locked:
            locked.commit(staged, number)
        with pytest.raises(UntrustedObject, match="its signature is wrong"):
            FilesystemStore(tmp_path, key=KEY).load(str(number))
    with pytest.raises(UntrustedObject):
        FilesystemStore(tmp_path, key=b"other").load(id_)


def test_signed_objects_are_read_without_the_key(tmp_path):
    id_ = FilesystemStore(tmp_path, key=KEY).save(Job("x", Job("y")))
    assert FilesystemStore(tmp_path).load(id_).children[0].command == "y"


@pytest.mark.parametrize(
    ("module", "name", "is_allowed"),
    [
        ("tests.persistence.classes", "Job", True),
        ("builtins", "set", True),
        ("builtins", "eval", False),
        ("builtins", "getattr", False),
        ("os", "system", False),
        # What a module of ours has imported is not its own.
        ("tests.persistence.test_trust", "os.system", False),
        ("tests.persistence.test_trust", "run", False),
        ("tests.persistence.test_trust", "Attack", True),
        ("tests.persistence.test_trust", "Job", True),
        ("tests.persistence.test_trust", "FilesystemStore", False),
        ("tests.persistencex", "Job", False),
    ],
)
def test_list_of_names(module, name, is_allowed):
    allowed = Allowed(["tests.persistence.*"])
    found = os.system
    if allowed.may_import(module):
        found = operator.attrgetter(name)(importlib.import_module(module))
    assert allowed.may_import(module) or not is_allowed
    assert allowed.allows(module, name, found) == is_allowed
