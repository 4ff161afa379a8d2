"""Where ours differs from GC3Pie's own stores, on purpose."""

from __future__ import annotations

import os
import sys

import daemon
import gc3libs
import pytest
import sqlalchemy
from gc3libs.persistence.store import make_store
from gc3libs.session import Session

import holdfast.persistence
from holdfast.gc3 import HoldfastStore, LoadError, StoreUnavailable, UnusableKey
from holdfast.persistence import BadUri, UnloadableObject, UntrustedObject
from tests.gc3.tasks import Echo, Job, collection, nested
from tests.support.cluster import wait_until
from tests.support.scale import scale


# P1
def test_ids_are_texts_of_constant_width(store):
    ids = [store.save(Job(str(nth))) for nth in range(3)]
    assert ids == sorted(ids)
    for id_ in ids:
        name, _, number = id_.rpartition(".")
        assert (name, len(number)) == ("Job", 16)
        # Found where only their text is known: in an index, or on a command line.
        assert {id_: 1}[f"Job.{number}"] == 1
    assert store.save(Echo("x")).startswith("Echo.")
    assert store.list(class_name="Job") == ids


# P2
def test_unknown_ids_are_load_errors_of_both(store):
    id_ = store.save(Job("x"))
    number = id_.rpartition(".")[2]
    for unknown in ("Job.1000000000000000", "Job.1", "Job", "", f"Other.{number}"):
        with pytest.raises(LoadError) as error:
            store.load(unknown)
        assert f"has no object {unknown}" in str(error.value)
        assert isinstance(error.value, gc3libs.exceptions.LoadError)
        assert isinstance(error.value, holdfast.persistence.LoadError)
    store.remove("Job.1")
    store.remove(id_)
    store.remove(id_)


# P2: the copy carries the id that it was stored under.
def test_replace_by_an_object_of_another_class(store, url):
    id_ = store.save(Job("x"))
    echo = Echo("instead")
    own = store.save(echo)
    store.replace(id_, echo)
    assert echo.persistent_id == own
    found = make_store(url).load(id_)
    assert (found.jobname, found.persistent_id) == ("echo-instead", id_)
    assert store.list(class_name="Job") == [id_]


# P2: filtered on the cluster.
def test_tasks_are_found_by_their_state_and_by_extra_fields(url):
    # As SqlStore takes them: SQLAlchemy's columns.
    column = sqlalchemy.Column("name", sqlalchemy.String(64))
    sqlalchemy.Table("store", sqlalchemy.MetaData(), column)
    store = make_store(url, extra_fields={column: lambda task: task.jobname})
    tasks = collection(3)
    tasks.tasks[0].execution.state = "SUBMITTED"
    tasks.tasks[2].execution.state = "SUBMITTED"
    store.save(tasks)
    ids = [task.persistent_id for task in tasks.tasks]
    assert store.list(state="SUBMITTED") == [ids[0], ids[2]]
    assert store.list(name="echo-1") == [ids[1]]
    assert len(store.list()) == 4


# P3: GC3Pie's own stores recurse, and end at a hundred levels or two.
def test_deep_collections(store, url):
    depth = 400
    id_ = store.save(nested(depth))
    task, steps = make_store(url).load(id_), 0
    while hasattr(task, "tasks"):
        task, steps = task.tasks[0], steps + 1
    assert (task.jobname, steps) == ("echo-innermost", depth)


# P3
def test_deep_tree_needs_no_deep_stack(store, url):
    depth = scale(5_000, 1_200)
    job = Job("0")
    for nth in range(1, depth):
        job = Job(str(nth), job)
    job, steps = make_store(url).load(store.save(job)), 1
    while job.children:
        job, steps = job.children[0], steps + 1
    assert (job.command, steps) == ("0", depth)


# P5
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("holdfast://127.0.0.1:7480/n?time=3", "no parameter 'time'"),
        ("holdfast:///n", "names no node"),
        ("holdfast://127.0.0.1:7480/%zz", "stands for no text"),
    ],
)
def test_constructor_does_not_raise(url, said):
    store = make_store(url, idfactory=None, create=True, table_name="x")
    assert isinstance(store, HoldfastStore)
    for act in (
        store.list,
        lambda: store.save(Job("x")),
        lambda: store.load("Job.1000000000000000"),
    ):
        with pytest.raises(BadUri, match=said):
            act()


# P5 P6
def test_cluster_that_is_not_there_is_never_a_load_error():
    store = make_store("holdfast://127.0.0.1:1/jobs?timeout_s=0.3")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1") as error:
        store.load("Job.1000000000000000")
    assert not isinstance(error.value, gc3libs.exceptions.LoadError)
    with pytest.raises(StoreUnavailable):
        store.idfactory.reserve(3)


# P6: a session that cannot load a task does not forget it.
def test_session_of_an_unreachable_cluster_keeps_its_index(tmp_path, url):
    session = Session(str(tmp_path / "s"), store_or_url=url)
    for nth in range(3):
        session.add(Echo(str(nth)))
    index = (tmp_path / "s/session_ids.txt").read_text()
    assert (tmp_path / "s/store.url").read_text() == url
    (tmp_path / "s/store.url").write_text("holdfast://127.0.0.1:1/jobs?timeout_s=0.3")
    with pytest.raises(StoreUnavailable):
        Session(str(tmp_path / "s"))
    assert (tmp_path / "s/session_ids.txt").read_text() == index
    (tmp_path / "s/store.url").write_text(url)
    assert len(Session(str(tmp_path / "s"))) == 3


# P6: nor does one that does not find the class of a task.
def test_session_that_cannot_make_a_task_keeps_its_index(tmp_path, url, monkeypatch):
    session = Session(str(tmp_path / "s"), store_or_url=url)
    kept, lost = session.add(Echo("x")), session.add(Job("y"))
    with monkeypatch.context() as patched:
        patched.delattr("tests.gc3.tasks.Job")
        with pytest.raises(UnloadableObject, match="Job"):
            Session(str(tmp_path / "s"))
    assert (tmp_path / "s/session_ids.txt").read_text().split() == [kept, lost]
    # What is not there any more is skipped, as ever.
    session.store.remove(lost)
    assert list(Session(str(tmp_path / "s")).tasks) == [kept]


def test_session_tells_ids_from_texts(tmp_path, url):
    session = Session(str(tmp_path / "s"), store_or_url=url)
    id_ = session.add(Echo("x"))
    again = Session(str(tmp_path / "s"))
    assert list(again.tasks) == [id_]
    again.remove(str(id_))
    assert len(again) == 0
    assert again.store.list() == []


# Pickles are programs: what is not signed, or not allowed, is not run.
def test_signed_and_allowed(url, tmp_path, monkeypatch):
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef\n")
    plain = make_store(url)
    unsigned = plain.save(Echo("unsigned"))
    monkeypatch.setenv("HOLDFAST_PICKLE_KEY_FILE", str(key))
    monkeypatch.setenv("HOLDFAST_PICKLE_ALLOW", "gc3libs.*, tests.gc3.tasks.*")
    session = Session(str(tmp_path / "s"), store_or_url=url)
    id_ = session.add(collection(3))
    # White space around it, as editors leave it, is not part of a key.
    key.write_bytes(b"0123456789abcdef")
    assert len(make_store(url).load(id_).tasks) == 3
    with pytest.raises(UntrustedObject, match="not signed"):
        make_store(url).load(unsigned)
    monkeypatch.setenv("HOLDFAST_PICKLE_ALLOW", "gc3libs.*")
    with pytest.raises(UntrustedObject, match=r"tests\.gc3\.tasks"):
        make_store(url).load(id_)
    # A session with another key says so, and forgets nothing.
    monkeypatch.delenv("HOLDFAST_PICKLE_ALLOW")
    key.write_bytes(b"another key, as long")
    with pytest.raises(UntrustedObject, match="wrong"):
        Session(str(tmp_path / "s"))
    assert "0123456789" not in (tmp_path / "s/store.url").read_text()


@pytest.mark.parametrize(("content", "said"), [(b"short", "5 bytes"), (None, "No such file")])
def test_key_that_cannot_be_used_stops_the_first_call(url, tmp_path, monkeypatch, content, said):
    monkeypatch.setenv("HOLDFAST_PICKLE_KEY_FILE", str(tmp_path / "key"))
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    store = make_store(url)
    with pytest.raises(UnusableKey, match=said):
        store.save(Job("x"))
    with pytest.raises(UnusableKey, match=said):
        store.list()


# P1 P4
def test_ids_over_a_fork(store):
    mine = [store.save(Job("before"))]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            theirs = [store.save(Job(str(nth))) for nth in range(100)]
            os.write(writing, "\n".join([*theirs, store.load(mine[0]).command]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    mine += [store.save(Job(str(nth))) for nth in range(100)]
    with open(reading) as answer:
        *theirs, command = answer.read().split("\n")
    os.waitpid(child, 0)
    assert (command, len(theirs)) == ("before", 100)
    assert store.list() == sorted({*mine, *theirs})
    assert len(store.list()) == 201


# P4: as GC3Pie's daemons do it: two forks, and all files closed.
def test_daemon_goes_on_with_the_store_of_its_parent(store, tmp_path):
    mine = store.save(Job("parent"))
    store.pre_fork()
    child = os.fork()
    if child == 0:
        # Those of pytest are no files.
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        try:
            with daemon.DaemonContext(working_directory=str(tmp_path)):
                store.post_fork()
                store.save(Job("daemon", store.load(mine)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    wait_until(lambda: len(store.list()) == 2, "the daemon has saved its job")
    assert store.load(store.list()[-1]).children == [store.load(mine)]
