"""State, masters and change sources through the synchronous client, on a real cluster."""

from __future__ import annotations

import pytest

from holdfast import (
    AlreadyClaimed,
    BadRequest,
    LeaseHeld,
    LeaseLost,
    NotFound,
    StaleFence,
    Unavailable,
)
from holdfast.changesources import Fence
from holdfast.cluster import Role
from holdfast.instance import Instance
from holdfast.state import VALUE_BYTES_MAX, Object
from holdfast.transfer import ChangeSourceRow, MasterRow, ObjectRow, ValueRow


# G6
def test_nodes_say_what_they_know(client, cluster):
    members = client.cluster.members()
    assert [member.client_endpoint for member in members.members] == cluster.endpoints
    assert all(member.voter for member in members.members)
    (leader,) = (member for member in members.members if member.leader)
    assert members.header.leader_endpoint == leader.client_endpoint
    assert client.cluster.members(local=True).header.cluster_id == members.header.cluster_id
    for endpoint in cluster.endpoints:
        status = client.cluster.status(endpoint)
        is_leader = endpoint == leader.client_endpoint
        assert status.role == (Role.LEADER if is_leader else Role.FOLLOWER)
        assert (status.ready, status.alarms) == (True, [])
    with pytest.raises(Unavailable, match="Connection refused"):
        client.cluster.status("127.0.0.1:1")


def test_closed_client_begins_anew(client):
    object_id = client.state.get_object_id("a", "A")
    session = client.engine.runtime.sessions._current.id
    client.close()
    client.close()
    assert client.state.set(object_id, "key", b"1").written
    assert client.engine.runtime.sessions._current.id > session


# S1
def test_same_names_give_the_same_object(client):
    state = client.state
    assert state.find_object_id("builder", "Builder") is None
    object_id = state.get_object_id("builder", "Builder")
    assert object_id > 0
    assert state.get_object_id("builder", "Builder") == object_id
    assert state.find_object_id("builder", "Builder") == object_id
    assert state.get_object_id("builder", "Scheduler") != object_id
    with pytest.raises(BadRequest) as refused:
        state.get_object_id("", "Builder")
    assert refused.value.reason == "NAME_EMPTY"


# S2, S3
@pytest.mark.parametrize("value", [b"", b"NaN", b'"\\ud800"', b"\x00\xff", b"9" * 300])
def test_values_come_back_byte_for_byte(client, value):
    object_id = client.state.get_object_id("a", "A")
    assert client.state.get(object_id, "key") is None
    written = client.state.set(object_id, "key", value)
    assert written.written
    found = client.state.get(object_id, "key")
    assert (found.value, found.mod_revision) == (value, written.mod_revision)
    assert client.state.get(object_id, "key", local=True).value == value
    assert client.state.delete(object_id, "key")
    assert not client.state.delete(object_id, "key")


# S3, G9
def test_longest_value_and_one_more_byte(client):
    object_id = client.state.get_object_id("a", "A")
    longest = b"x" * VALUE_BYTES_MAX
    assert client.state.set(object_id, "key", longest).written
    assert client.state.get(object_id, "key").value == longest
    with pytest.raises(BadRequest) as refused:
        client.state.set(object_id, "key", longest + b"x")
    assert refused.value.reason == "VALUE_TOO_LARGE"
    assert refused.value.fields == {"actual": "1048577", "allowed": "1048576"}
    assert client.state.get(object_id, "key").value == longest


def test_refusals_name_what_is_not_there(client):
    with pytest.raises(NotFound, match="999") as refused:
        client.state.set(999, "key", b"1")
    assert refused.value.reason == "UNKNOWN_OBJECT"
    assert refused.value.header.node_id > 0
    with pytest.raises(NotFound):
        client.state.list_state(999)
    with pytest.raises(NotFound):
        client.changesources.set_master(999, None)


# S3
def test_comparison_decides_who_overwrites(client):
    object_id = client.state.get_object_id("a", "A")
    first = client.state.set(object_id, "key", b"1", if_revision=0)
    assert first.written
    lost = client.state.set(object_id, "key", b"2", if_revision=0)
    assert (lost.written, lost.value, lost.mod_revision) == (False, b"1", first.mod_revision)
    assert client.state.set(object_id, "key", b"2", if_revision=first.mod_revision).written


# S4
def test_create_runs_only_if_there_is_no_value(client):
    object_id = client.state.get_object_id("a", "A")
    made = []

    def create():
        made.append(1)
        return b"first"

    created = client.state.atomic_create(object_id, "key", create)
    assert (created.created, created.value) == (True, b"first")
    again = client.state.atomic_create(object_id, "key", create)
    assert (again.created, again.value, again.mod_revision) == (
        False,
        b"first",
        created.mod_revision,
    )
    assert made == [1]

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.state.atomic_create(object_id, "other", fail)
    assert client.state.get(object_id, "other") is None


def test_update_applies_the_last_run_once(client):
    object_id = client.state.get_object_id("a", "A")
    seen = []

    def add_one(old):
        seen.append(old)
        if len(seen) == 1:
            client.state.set(object_id, "key", b"10")  # another write comes between
        return b"%d" % (int(old or b"0") + 1)

    assert client.state.update(object_id, "key", add_one).written
    assert seen == [None, b"10"]
    assert client.state.get(object_id, "key").value == b"11"


# S6
def test_listings_are_paged_in_order(client):
    ids = [client.state.get_object_id(f"o{n}", "A") for n in range(5)]
    page = client.state.list_objects_page(ids[0], 2)
    assert [one.id for one in page.items] == ids[1:3]
    assert page.more
    assert client.state.list_objects() == [Object(i, f"o{n}", "A") for n, i in enumerate(ids)]
    for name in ("b", "a", "c"):
        client.state.set(ids[0], name, name.encode())
    assert [item.name for item in client.state.list_state(ids[0])] == ["a", "b", "c"]
    assert [item.name for item in client.state.list_state_page(ids[0], "a", 1).items] == ["b"]
    many = client.state.get_many(ids[0], ["c", "nothing", "a"])
    assert [(item.name, item.value) for item in many] == [("c", b"c"), ("a", b"a")]


# S7
def test_rows_move_to_another_namespace_with_their_ids(client):
    object_id = client.state.get_object_id("a", "A")
    client.state.set(object_id, "key", b"\x00NaN")
    client.masters.find_id("m")
    source = client.changesources.find_id("s")
    client.changesources.set_group(source, "g")
    rows = [row for part in client.state.export() for row in part]
    assert {type(row) for row in rows} == {MasterRow, ChangeSourceRow, ObjectRow, ValueRow}
    other = client.in_namespace(f"{client.namespace}-copy")
    assert other.state.import_rows(rows) == len(rows)
    assert other.state.import_rows(rows) == 0
    assert [row for part in other.state.export() for row in part] == rows
    assert other.state.get(object_id, "key").value == b"\x00NaN"


# C2
def test_change_source_is_claimed_once(client):
    first, second = (client.masters.find_id(name) for name in ("one", "two"))
    source = client.changesources.find_id("repo")
    assert client.changesources.get(source).claimant is None
    token = client.changesources.set_master(source, first)
    for master in (first, second):
        with pytest.raises(AlreadyClaimed) as refused:
            client.changesources.set_master(source, master)
        assert refused.value.claimant.master_name == "one"
        assert refused.value.claimant.token == token
    assert [s.id for s in client.changesources.list_changesources(active=True)] == [source]
    assert client.changesources.list_changesources(active=False) == []
    assert client.changesources.list_changesources(master_id=second) == []
    assert client.changesources.set_master(source, None) == 0
    assert client.changesources.set_master(source, second) > token
    assert client.changesources.get(999) is None


# M2, M3, C5
def test_lease_owns_until_it_is_closed(client):
    instance = Instance.random()
    lease = client.masters.open_lease("one", instance, 60.0)
    with pytest.raises(LeaseHeld, match="another instance") as refused:
        client.masters.open_lease("one", Instance.random(), 60.0)
    assert refused.value.held_by.lease_id == lease.id
    source = client.changesources.find_id("repo")
    fence = client.changesources.claim(lease.id, source)
    assert client.changesources.claim(lease.id, source) == fence
    object_id = client.state.get_object_id("a", "A")
    assert client.state.set(object_id, "key", b"1", fence=fence).written
    assert client.masters.keep_alive(lease.id).number == 1
    assert client.masters.get(lease.master_id).claims == 1
    assert client.masters.close_lease(lease.id) == 1
    with pytest.raises(LeaseLost):
        client.masters.keep_alive(lease.id)
    with pytest.raises(StaleFence):
        client.state.set(object_id, "key", b"2", fence=fence)
    assert client.state.get(object_id, "key").value == b"1"
    assert not client.changesources.release(fence)
    assert client.changesources.release(Fence(source, 1)) is False


# C7
def test_group_moves_as_one(client):
    sources = [client.changesources.find_id(name) for name in ("a", "b")]
    for source in sources:
        assert client.changesources.set_group(source, "both")
    lease = client.masters.open_lease("one", Instance.random(), 60.0)
    fence = client.changesources.claim(lease.id, sources[0])
    assert client.changesources.get(sources[1]).claimant.token == fence.token
    assert client.changesources.get(sources[1]).group == "both"
