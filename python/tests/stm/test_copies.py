"""Copies of variables on a cluster: what they follow, and what they are refused for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast import BadRequest, Refused
from holdfast.stm import (
    Codec,
    CodecError,
    Collection,
    ConcurrentUpdate,
    Content,
    Plan,
    RawKey,
    Store,
    Variable,
    Writes,
)
from tests.stm.conftest import Stores
from tests.support.cluster import Cluster


def put(store: Store, key: Any, value: Any) -> None:
    store.prepare(Plan().put(key, Content.of(value))).commit()


def set_all(copies: Collection, value: Any) -> None:
    for copy in copies.values():
        copy.set(value)


# T1
def test_reading_is_no_write(store: Store) -> None:
    revision = store.read().revision
    absent = store.usevar("x")
    assert (absent.version, absent.mod_revision, absent.value) == (0, 0, None)
    assert absent.content is None
    store.using("x", "y")
    assert store.read().revision == revision


# T2
def test_copy_follows_what_was_committed_of_it(store: Store) -> None:
    copy = store.usevar("x")
    copy.set(1)
    copy.commit()
    assert copy.version == 1
    first = copy.mod_revision
    copy.commit()
    assert copy.version == 2, "the same value once more is another version"
    assert copy.mod_revision > first


# T3
def test_conflict_says_what_is_there(stores: Stores) -> None:
    copy, theirs = stores().usevar("x"), stores().usevar("x")
    theirs.set("theirs")
    theirs.commit()
    copy.set("mine")
    with pytest.raises(ConcurrentUpdate, match="others have changed 'x'") as caught:
        copy.commit()
    (found,) = caught.value.variables
    assert (found.key, found.version, found.value) == ("x", 1, "theirs")
    assert found.mod_revision == theirs.mod_revision
    assert caught.value.total == 1
    # The copy stays as it was, and out of date.
    assert (copy.version, copy.value) == (0, "mine")
    with pytest.raises(ConcurrentUpdate):
        copy.commit()


# T2: on modification revisions, which never come back.
def test_variable_that_was_deleted_and_created_again_is_another_one(store: Store) -> None:
    put(store, "x", 1)
    stale, copy = store.usevar("x"), store.usevar("x")
    copy.clear()
    copy.commit()
    assert (copy.version, copy.mod_revision, copy.value) == (0, 0, None)
    copy.set(2)
    copy.commit()
    assert copy.version == stale.version
    with pytest.raises(ConcurrentUpdate):
        stale.commit()


def test_clone_is_a_copy_of_its_own(store: Store) -> None:
    put(store, "x", [1])
    copy = store.usevar("x")
    copy.value.append(2)
    clone = copy.clone()
    copy.value.append(3)
    clone.commit()
    assert (clone.version, store.usevar("x").value) == (2, [1, 2])
    with pytest.raises(ConcurrentUpdate):
        copy.commit()


# T2
def test_version_from_the_future_is_refused(store: Store) -> None:
    copy = store.usevar("x")
    copy.version = 7
    with pytest.raises(Refused, match="that never was") as caught:
        copy.commit()
    assert caught.value.reason == "VERSION_FROM_FUTURE"
    assert store.keys() == []


# T2: as programs do that want to overwrite whatever is there.
def test_version_that_is_set_is_what_is_compared(store: Store) -> None:
    copy = store.usevar("x")
    put(store, "x", 1)
    copy.version = store.usevar("x").version
    copy.set(2)
    copy.commit()
    assert (copy.version, store.usevar("x").value) == (2, 2)


# T2
def test_collection_is_written_whole_or_not(store: Store) -> None:
    one, two = store.using("a", "b", "c"), store.using("a", "b", "c")
    set_all(one, 1)
    set_all(two, 2)
    one.commit()
    assert {copy.version for copy in one.values()} == {1}
    assert len({copy.mod_revision for copy in one.values()}) == 1
    with pytest.raises(ConcurrentUpdate, match="'a', 'b', 'c'"):
        two.commit()
    put(store, "b", 3)
    set_all(one, 4)
    with pytest.raises(ConcurrentUpdate) as caught:
        one.commit()
    assert [found.key for found in caught.value.variables] == ["b"]
    assert store.snapshot().values() == {"a": 1, "b": 3, "c": 1}


# T1: one consistent snapshot, in which one key has one copy.
def test_keys_that_are_equal_have_one_copy(store: Store) -> None:
    copies = store.using(1, "a", 1.0, True, b"a")
    assert list(copies) == [1, "a", b"a"]
    set_all(copies, 1)
    copies.commit()
    assert store.keys() == [1, "a", b"a"]


# T4
def test_only_what_has_changed_is_written_if_asked(stores: Stores) -> None:
    put(stores(), "common", {"spelt": "by others"})
    store = stores(writes=Writes.CHANGED)
    copies, others = store.using("common", "a"), store.using("common", "b", "absent")
    assert copies["common"].value == {"spelt": "by others"}
    copies["a"].set(None)
    copies.commit()
    others["b"].set(2)
    others.commit()
    assert [(copy.key, copy.version) for copy in others.values()] == [
        ("common", 1),
        ("b", 1),
        ("absent", 0),
    ]
    assert store.keys() == ["a", "b", "common"]
    # What is only read is still compared.
    stale = store.using("common", "c")
    stale["c"].set(3)
    put(store, "common", 2)
    with pytest.raises(ConcurrentUpdate):
        stale.commit()


# T2: and a change that was made in place is one.
def test_value_that_is_worked_on_has_changed(stores: Stores) -> None:
    store = stores(writes=Writes.CHANGED)
    # As another language may spell it.
    store.prepare(Plan().put("x", Content(Codec.JSON, b"[ 1, 2 ]"))).commit()
    copy = store.usevar("x")
    assert copy.value == [1, 2]
    assert not copy.is_changed
    copy.commit()
    assert copy.version == 1
    copy.value.append(3)
    assert copy.is_changed
    copy.commit()
    assert (copy.version, store.usevar("x").value) == (2, [1, 2, 3])


# G9
def test_largest_value_is_kept_and_a_larger_one_refused(store: Store) -> None:
    copy = store.usevar("x")
    copy.set(bytes(1 << 20))
    copy.commit()
    assert store.usevar("x").value == bytes(1 << 20)
    copy.set(bytes((1 << 20) + 1))
    with pytest.raises(BadRequest, match="1048577 bytes, and at most 1048576 are allowed"):
        copy.commit()
    assert copy.version == 1


def test_pickles_go_through_a_store_that_loads_none(stores: Stores) -> None:
    put(stores(), "x", (1, 2))
    careful = stores(allow_pickle=False)
    copy = careful.usevar("x")
    assert repr(copy) == f"Value(1, {careful.read('x').variables[0].content})"
    with pytest.raises(CodecError, match="those are not loaded"):
        copy.value  # noqa: B018
    copy.commit()
    assert (copy.version, stores().usevar("x").value) == (2, (1, 2))
    copy.set((3,))
    with pytest.raises(CodecError, match="pickles are not allowed"):
        copy.commit()


# T1: whatever the bytes of a key are.
def test_key_that_is_no_encoding_is_a_key(store: Store) -> None:
    key = RawKey(b"\xff made elsewhere")
    put(store, key, 1)
    assert store.keys() == [key]
    assert store.usevar(key).value == 1


# T5
def test_listings_are_of_what_begins_so_in_order(store: Store) -> None:
    for number, key in enumerate([("b", 1), "b", ("a",), ("a", 2), ("a", 10), 5, None]):
        put(store, key, number)
    assert store.keys() == [None, 5, "b", ("a",), ("a", 2), ("a", 10), ("b", 1)]
    assert store.keys(("a",)) == [("a",), ("a", 2), ("a", 10)]
    snapshot = store.snapshot(("a",))
    assert snapshot.values() == {("a",): 2, ("a", 2): 3, ("a", 10): 4}
    assert list(store.listing(("a",))) == list(snapshot.variables)
    versions = store.versions(("a",))
    assert [found.content for found in versions.variables] == [None, None, None]
    assert [found.version for found in versions.variables] == [1, 1, 1]
    assert store.snapshot("none so").variables == ()


# T1
def test_reads_are_in_the_order_asked_for_at_one_revision(store: Store) -> None:
    put(store, "a", 1)
    read = store.read("b", "a")
    absent = Variable("b", 0, 0, None)
    assert read.variables == (absent, *store.snapshot().variables)
    assert read.revision >= read.variables[1].mod_revision
    local = store.read("a", local=True)
    assert local.revision <= store.read().revision


def test_store_without_arguments_takes_its_target_from_the_environment(
    cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "x", 1)
    monkeypatch.setenv("HOLDFAST_ENDPOINTS", cluster.text)
    monkeypatch.setenv("HOLDFAST_NAMESPACE", store.client.namespace)
    bare = Store()
    assert bare.usevar("x").value == 1
    bare.client.close()


# The same bytes as the programs in other languages have.
def test_other_programs_read_and_write_the_same_variables(cluster: Cluster, store: Store) -> None:
    def run(*arguments: str) -> str:
        return cluster.run("stm", *arguments, "--namespace", store.client.namespace)

    copy = store.usevar(("account", 7))
    copy.set({"owner": "h\u00e9", "n": [1, 2.5, None]})
    copy.commit()
    shown = json.loads(run("get", "('account', 7.0)", "-o", "json"))
    assert json.loads(shown["value"]) == copy.value
    run("put", "('account', 7)", '{"owner": "other"}')
    assert store.usevar(("account", 7)).value == {"owner": "other"}
