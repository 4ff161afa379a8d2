"""What GC3Pie's own stores do, where they are right: the same tests run on them and on ours."""

from __future__ import annotations

import gc3libs.exceptions
import pytest
from gc3libs import Run
from gc3libs.persistence.store import Store, make_store

from tests.gc3.tasks import Echo, Job, collection

UNKNOWN = {"file": "Job.1", "sqlite": "1", "holdfast": "Job.1000000000000000"}


@pytest.fixture(params=["file", "sqlite", "holdfast"])
def kind(request):
    return request.param


@pytest.fixture
def open_store(kind, request, tmp_path):
    urls = {"file": f"file://{tmp_path}/jobs", "sqlite": f"sqlite:///{tmp_path}/jobs.db"}
    url = urls.get(kind) or request.getfixturevalue("url")
    return lambda: make_store(url)


# P2 P5
def test_store_is_made_by_its_url(open_store):
    store = open_store()
    assert isinstance(store, Store)
    again = make_store(str(store.url))
    id_ = store.save(Job("x"))
    assert again.load(id_).command == "x"


# P1 P2
def test_objects_come_back_under_their_ids(open_store):
    store = open_store()
    job = Job("one")
    assert job.changed
    id_ = store.save(job)
    assert (job.persistent_id, job.changed) == (id_, False)
    found = open_store().load(id_)
    assert (found.command, found.persistent_id) == ("one", id_)
    assert found == job
    job.command = "two"
    assert store.save(job) == id_
    assert open_store().load(id_).command == "two"


# P2
def test_unknown_id_is_a_load_error(open_store, kind):
    store = open_store()
    with pytest.raises(gc3libs.exceptions.LoadError):
        store.load(UNKNOWN[kind])


# P2
def test_replace_keeps_the_id(open_store):
    store = open_store()
    job = Job("one")
    id_ = store.save(job)
    job.command = "two"
    store.replace(id_, job)
    found = open_store().load(id_)
    assert (found.command, found.persistent_id) == ("two", id_)


# P2
def test_removed_is_gone(open_store):
    store = open_store()
    ids = [store.save(Job(str(nth))) for nth in range(3)]
    store.remove(ids[1])
    with pytest.raises(gc3libs.exceptions.LoadError):
        store.load(ids[1])
    assert sorted(store.list()) == [ids[0], ids[2]]


# P3
def test_children_are_stored_on_their_own(open_store):
    store = open_store()
    shared = Job("shared")
    root = Job("root", Job("left", shared), Job("right", shared))
    id_ = store.save(root)
    assert len(store.list()) == 4
    found = open_store().load(id_)
    left, right = found.children
    assert left.children[0] is right.children[0]
    assert left.children[0].persistent_id == shared.persistent_id
    assert open_store().load(shared.persistent_id).command == "shared"


# P3
def test_children_that_have_not_changed_are_not_saved_again(open_store):
    store = open_store()
    child = Job("one")
    root = Job("root", child)
    id_ = store.save(root)
    child.command = "two"
    store.save(root)
    assert open_store().load(id_).children[0].command == "one"
    child.changed = True
    store.save(root)
    assert open_store().load(id_).children[0].command == "two"


# P4
def test_cache_gives_the_same_object_until_it_is_invalidated(open_store):
    store = open_store()
    id_ = store.save(Job("one"))
    found = store.load(id_)
    assert store.load(id_) is found
    store.invalidate_cache()
    assert store.load(id_) is not found


def test_collections_of_applications(open_store):
    store = open_store()
    tasks = collection(3)
    tasks.tasks[1].execution.state = Run.State.SUBMITTED
    id_ = store.save(tasks)
    found = open_store().load(id_)
    assert [task.jobname for task in found.tasks] == ["echo-0", "echo-1", "echo-2"]
    assert [task.execution.state for task in found.tasks] == ["NEW", "SUBMITTED", "NEW"]
    assert found.jobname == "collection"
    # What it was given lives on: its own state, and the listener for changes of it.
    found.tasks[0].execution.state = Run.State.SUBMITTED
    assert found.tasks[0].changed


def test_fork_is_announced_and_the_store_goes_on(open_store):
    store = open_store()
    id_ = store.save(Echo("x"))
    store.pre_fork()
    store.post_fork()
    assert store.load(id_).jobname == "echo-x"
