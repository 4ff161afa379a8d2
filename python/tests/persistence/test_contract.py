"""What every store promises, whatever it keeps its objects in."""

from __future__ import annotations

import gc
import threading

import pytest

from holdfast.persistence import (
    LoadError,
    Object,
    ObjectTooLarge,
    Store,
    StoreUnavailable,
    UnissuedId,
    UnloadableObject,
    UnstorableObject,
)
from holdfast.persistence.record import BODY_BYTES_MAX
from tests.persistence import classes
from tests.persistence.classes import Job
from tests.support.scale import scale

LOWEST = "1000000000000000"


# P1 P2
def test_objects_come_back_as_they_were(open_store):
    store = open_store()
    job = Job("sleep 1")
    id_ = store.save(job)
    assert (len(id_), job.persistent_id, job._id) == (16, id_, id_)
    assert not job.changed
    for again in (store, open_store()):
        found = again.load(id_)
        assert (found.command, found.persistent_id, found._id) == ("sleep 1", id_, id_)
        assert found is not job
        assert not found.changed


# P2
def test_unknown_ids_are_load_errors(open_store):
    store = open_store()
    for unknown in (LOWEST, "", "1", "job.1", "../lock", "\uff11" * 16):
        with pytest.raises(LoadError) as error:
            store.load(unknown)
        assert unknown in str(error.value)
        assert store.name in str(error.value)
        assert not isinstance(error.value, StoreUnavailable)


# P1
def test_object_keeps_its_id(open_store):
    store = open_store()
    job = Job("one")
    id_ = store.save(job)
    job.command = "two"
    assert store.save(job) == id_
    assert open_store().load(id_).command == "two"
    assert store.list() == [id_]
    # Also one that was loaded, elsewhere.
    other = open_store()
    copy = other.load(id_)
    copy.command = "three"
    assert other.save(copy) == id_
    assert open_store().load(id_).command == "three"


# P1
def test_ids_can_be_reserved(open_store):
    store = open_store()
    store.reserve(100)
    ids = [store.save(Job(str(nth))) for nth in range(100)]
    assert [int(id_) - int(ids[0]) for id_ in ids] == list(range(100))
    other = open_store()
    other.reserve(1)
    assert other.save(Job("x")) not in ids
    assert other.save(Job("y")) not in ids


# P2
def test_replace_stores_a_copy(open_store):
    store = open_store()
    first, second = store.save(Job("first")), Job("second")
    own = store.save(second)
    old = store.load(first)
    store.replace(first, second)
    found = store.load(first)
    assert found is not old
    assert (found.command, found.persistent_id) == ("second", first)
    assert second.persistent_id == own
    # An object without an id gets none by this; what it refers to does.
    child = Job("child")
    nameless = Job("nameless", child)
    store.replace(first, nameless)
    assert not hasattr(nameless, "persistent_id")
    assert nameless.changed
    found = open_store().load(first)
    assert found.children[0].persistent_id == child.persistent_id
    # Also where there is nothing any more.
    store.remove(first)
    store.replace(first, second)
    assert open_store().load(first).command == "second"


# P2 P1
def test_remove_is_silent_and_its_ids_are_gone(open_store):
    store = open_store()
    store.remove(LOWEST)
    store.remove("no id")
    ids = [store.save(Job(str(nth))) for nth in range(3)]
    for id_ in ids:
        store.remove(id_)
        store.remove(id_)
        with pytest.raises(LoadError):
            store.load(id_)
    assert store.list() == []
    assert store.save(Job("new")) > max(ids)


# P1
def test_ids_that_were_not_given_out_are_refused(open_store):
    store = open_store()
    store.save(Job("first"))
    for foreign in ("9999999999999999", "Job.7", "7"):
        job = Job("foreign")
        job.persistent_id = foreign
        with pytest.raises(UnissuedId, match=foreign):
            store.save(job)
        with pytest.raises(UnissuedId, match=foreign):
            store.save(Job("parent", job))
        with pytest.raises(UnissuedId, match=foreign):
            store.replace(foreign, Job("x"))
    assert len(store.list()) == 1


# P3
def test_children_are_stored_on_their_own_and_once(open_store):
    store = open_store()
    shared = Job("shared")
    left, right = Job("left", shared), Job("right", shared, {"deep": [shared]})
    id_ = store.save(Job("root", left, right))
    assert len(store.list()) == 4
    root = open_store().load(id_)
    commands = [child.command for child in root.children]
    assert commands == ["left", "right"]
    found = root.children[0].children[0]
    assert found is root.children[1].children[0]
    assert found is root.children[1].children[1]["deep"][0]
    assert found.persistent_id == shared.persistent_id
    assert open_store().load(shared.persistent_id).command == "shared"


# P3
def test_children_in_sets_and_as_keys(open_store):
    store = open_store()
    first, second = Job("first"), Job("second")
    root = Job("root", {first, second}, {first: 1, second: 2})
    id_ = store.save(root)
    # Their ids were given to them while they were in there.
    assert first in root.children[0]
    copy = open_store().load(first.persistent_id)
    assert copy.persistent_id == first.persistent_id
    assert copy != first
    group, results = open_store().load(id_).children
    assert group == set(results)
    assert {job.command: result for job, result in results.items()} == {"first": 1, "second": 2}


# P5
def test_arguments_that_a_store_does_not_take_are_refused(open_store):
    with pytest.raises(TypeError, match="alow"):
        open_store(alow=["json.*"])


# P3
def test_missing_child_is_a_load_error_that_names_both(open_store):
    store = open_store()
    child = Job("child")
    id_ = store.save(Job("root", child))
    store.remove(child.persistent_id)
    with pytest.raises(LoadError, match=f"{child.persistent_id}, to which {id_} refers"):
        open_store().load(id_)


# P3
def test_children_that_have_not_changed_are_not_saved_again(open_store):
    store = open_store()
    child = Job("one")
    root = Job("root", child)
    id_ = store.save(root)
    # Somebody else changes the child.
    other = open_store()
    theirs = other.load(child.persistent_id)
    theirs.command = "theirs"
    other.save(theirs)
    root.command = "changed"
    store.save(root)
    assert open_store().load(id_).children[0].command == "theirs"
    child.command, child.changed = "mine", True
    store.save(root)
    assert open_store().load(id_).children[0].command == "mine"


# P3: what another store saved under such an id says nothing about this one.
def test_children_that_this_store_does_not_know_are_saved(open_store):
    child = Job("child")
    open_store("other").save(child)
    del child.persistent_id
    store = open_store()
    id_ = store.save(Job("root", child))
    assert open_store().load(id_).children[0].command == "child"


# P3
def test_circles(open_store):
    store = open_store()
    parent, child = Job("parent"), Job("child")
    parent.children = [child, parent]
    child.children = [parent, child]
    id_ = store.save(parent)
    found = open_store().load(id_)
    other = found.children[0]
    assert (found.command, other.command) == ("parent", "child")
    assert found.children[1] is found
    assert other.children[0] is found
    assert other.children[1] is other
    # Also one that was closed only later, through a child that is not saved again.
    first = Job("first")
    second = Job("second", first)
    store.save(second)
    first.children = [second]
    store.save(first)
    found = open_store().load(first.persistent_id)
    assert found.children[0].children[0] is found


# P3
def test_deep_tree_needs_no_deep_stack(open_store):
    depth = scale(5_000, 1_050)
    chain = Job("0")
    for nth in range(1, depth):
        chain = Job(str(nth), chain)
    # Also a circle of that length.
    last = chain
    while last.children:
        last = last.children[0]
    last.children = [chain]
    id_ = open_store().save(chain)
    found = open_store().load(id_)
    steps, at = 1, found.children[0]
    while at is not found:
        steps, at = steps + 1, at.children[0]
    assert steps == depth


# P3
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_objects_of_all_kinds(open_store, protocol):
    store = open_store(protocol=protocol)
    slotted = classes.Slotted(1)
    slotted.b = Job("in a slot")
    named = classes.Named(key=Job("in a dict"))
    named.self = named
    numbers = classes.Numbers([1, Job("in a list")])
    numbers.append(numbers)
    pair = classes.Pair(Job("left"), [Job("right")])
    bare = classes.Bare({"x": 1})
    stateful = classes.Stateful(Job("child"))
    root = Job("root", slotted, pair, stateful)
    ids = [store.save(obj) for obj in (root, named, numbers, bare)]
    store = open_store()
    root, named, numbers, bare = map(store.load, ids)
    slotted, pair, stateful = root.children
    assert (slotted.a, slotted.b.command) == (1, "in a slot")
    assert (named["key"].command, named.self is named) == ("in a dict", True)
    assert (numbers[0], numbers[1].command, numbers[2] is numbers) == (1, "in a list", True)
    assert (pair.left.command, pair.right[0].command) == ("left", "right")
    assert (bare.x, bare.persistent_id) == ({"x": 1}, ids[3])
    # What its child was when it got its state.
    assert stateful.seen == ("child", stateful.child.persistent_id)


# Else the collector walks all that is being made, again and again.
def test_cyclic_collector_rests_while_objects_are_made(open_store):
    id_ = open_store().save(classes.Watchful())
    assert gc.isenabled()
    assert not open_store().load(id_).was_collecting
    assert gc.isenabled()


# P3 G9
def test_nothing_is_stored_if_one_object_cannot_be(open_store):
    store = open_store()
    loop = classes.Pair(None, None)
    loop.left = loop
    for wrong in (Job("", classes.Unpicklable()), classes.Nameless(), len, [], loop):
        with pytest.raises(UnstorableObject):
            store.save(wrong)
    root = Job("root", Job("child"), Object("Large", bytes(BODY_BYTES_MAX + 1)))
    with pytest.raises(ObjectTooLarge, match=r"67108865.* 67108864"):
        store.save(root)
    assert not hasattr(root, "persistent_id")
    assert store.list() == []


# P1
def test_two_objects_of_one_id_are_refused(open_store):
    store = open_store()
    id_ = store.save(Job("one"))
    twins = open_store().load(id_), open_store().load(id_)
    for twin in twins:
        twin.changed = True
    with pytest.raises(UnstorableObject, match=id_):
        store.save(Job("root", *twins))


# P2
def test_lists_are_filtered_and_in_order(open_store):
    store = open_store(extra_fields={"first": lambda job: job.command[0]})
    ids = [store.save(Job(command)) for command in ("alpha", "beta", "apple")]
    plain = store.save(Object("Other", metadata={"first": "b", "ö": ""}))
    store.save(Job(""))  # the function fails for it, and the entry is left out
    assert store.list(first="a") == [ids[0], ids[2]]
    assert store.list(class_name="Job", first="b") == [ids[1]]
    assert list(store.ids(first="b")) == [ids[1], plain]
    assert store.list(class_name="") == []
    assert store.list(first="a", second="b") == []
    assert len(store.list()) == 5
    (listed,) = store.records(class_name="Other")
    assert (listed.id, listed.metadata, listed.body_bytes) == (plain, {"first": "b", "ö": ""}, 0)


# P2
def test_base_class_cannot_list():
    class Minimal(Store):
        load = remove = replace = save = None

    with pytest.raises(NotImplementedError, match="Minimal"):
        Minimal().list()


# P3
@pytest.mark.parametrize("size", [0, 1, 524_288, 524_289, 3_000_000])
def test_plain_objects_of_all_sizes(open_store, size):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    child = Object("Child", b"child")
    plain = Object("Bytes", body, metadata={"state": "NEW"}, children=[child, child])
    id_ = open_store().save(plain)
    found = open_store().load(id_)
    assert type(found) is Object
    assert (found.class_name, found.metadata, found.body) == ("Bytes", {"state": "NEW"}, body)
    assert [found.children[0].body, found.children[0] is found.children[1]] == [b"child", True]


# P1
def test_ids_of_stores_that_save_together_differ(open_store):
    found: list[str] = []
    per_thread = scale(500, 50)

    def save(store):
        found.extend([store.save(Object("Job")) for _ in range(per_thread)])

    stores = [open_store(), open_store()]
    threads = [threading.Thread(target=save, args=(store,)) for store in stores * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4 * per_thread


# P3: a load never shows a part of a save.
def test_tree_is_seen_whole(open_store):
    writer = open_store()
    children = [Job("0") for _ in range(3)]
    root = Job("0", *children)
    id_ = writer.save(root)
    torn = []
    done = threading.Event()

    def look():
        store = open_store()
        while not done.is_set():
            store.invalidate_cache()
            found = store.load(id_)
            seen = {found.command, *(child.command for child in found.children)}
            if len(seen) != 1:
                torn.append(seen)

    reader = threading.Thread(target=look)
    reader.start()
    for nth in range(scale(200, 20)):
        for job in (root, *children):
            job.command, job.changed = str(nth), True
        writer.save(root)
    done.set()
    reader.join()
    assert torn == []


# P4
def test_what_is_loaded_is_the_same_until_it_is_forgotten(open_store):
    store = open_store()
    child = Job("child")
    root_id = store.save(Job("root", child))
    found = store.load(child.persistent_id)
    found.command = "not saved"
    assert store.load(child.persistent_id) is found
    assert store.load(root_id).children[0] is found
    store.invalidate_cache()
    assert store.load(child.persistent_id).command == "child"


# Upstream's stores give the object that was saved last, once an older one was loaded.
def test_save_takes_the_place_of_what_was_loaded(open_store):
    store = open_store()
    job = Job("one")
    id_ = store.save(job)
    assert store.load(id_) is not job
    old = store.load(id_)
    job.command = "two"
    store.save(job)
    assert store.load(id_) is job
    assert old.command == "one"


def test_class_that_is_gone_is_named(open_store, monkeypatch):
    store = open_store()
    id_ = store.save(Job("x"))
    monkeypatch.delattr(classes, "Job")
    with pytest.raises(UnloadableObject, match=f"{id_}.*Job"):
        open_store().load(id_)
