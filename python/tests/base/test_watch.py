"""Every change, in order, none missing and none twice, whatever happens to the nodes (W)."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from holdfast import Client, Compacted, CreationLost, NotApplied, Unavailable
from holdfast._engine import task
from holdfast.instance import Instance
from holdfast.watch import (
    ChangeSourceChanged,
    ChangeSourceFilter,
    MasterChanged,
    MasterFilter,
    ObjectCreated,
    StateDeleted,
    StateFilter,
    StatePut,
)
from tests.support.cluster import run_cluster, wait_until
from tests.support.fork import in_child
from tests.support.proxy import Flow
from tests.support.scale import bound, report, scale


# W1
def test_changes_come_in_order(client):
    with client.watch() as watch:
        object_id = client.state.get_object_id("a", "A")
        first = client.state.set(object_id, "key", b"\x00")
        client.state.delete(object_id, "key")
        source = client.changesources.find_id("repo")
        lease = client.masters.open_lease("one", Instance.random(), 60.0)
        fence = client.changesources.claim(lease.id, source)
        changes = [watch.next() for _ in range(7)]
    events = [change.event for change in changes]
    assert events[:3] == [
        ObjectCreated(object_id, "a", "A"),
        StatePut(object_id, "key", b"\x00"),
        StateDeleted(object_id, "key"),
    ]
    assert changes[1].revision == first.mod_revision
    assert ChangeSourceChanged(source, "repo", None, None, None) in events
    assert ChangeSourceChanged(source, "repo", lease.master_id, fence.token, None) in events
    assert MasterChanged(lease.master_id, "one", True, lease.id, 1) in events
    revisions = [change.revision for change in changes]
    assert revisions == sorted(revisions)


# W1
def test_filters_and_where_to_begin(client):
    object_id = client.state.get_object_id("a", "A")
    written = [client.state.set(object_id, f"key-{n}", b"%d" % n) for n in range(3)]
    client.state.set(object_id, "other", b"x")
    client.masters.find_id("one")
    begin = written[1].mod_revision
    with client.watch(StateFilter(object_id, "key-"), from_revision=begin) as watch:
        changes = [next(watch), next(watch)]
    assert [change.event.name for change in changes] == ["key-1", "key-2"]
    assert watch.revision >= begin
    with client.watch(MasterFilter(), ChangeSourceFilter()) as watch:
        client.state.set(object_id, "key-0", b"again")
        client.changesources.find_id("repo")
        assert isinstance(next(watch).event, ChangeSourceChanged)


# W1, W2: a stream that breaks or falls silent goes on, on another node.
@pytest.mark.parametrize("fault", ["cut", "hold", "kill"])
def test_watch_goes_on_elsewhere(hidden_cluster, namespace, fault):
    rounds = scale(20, 1)
    with (
        hidden_cluster.client(namespace=namespace) as client,
        hidden_cluster.direct_client(namespace=namespace, deadline=20.0) as writer,
    ):
        object_id = writer.state.get_object_id("a", "A")
        watch = client.watch(StateFilter(object_id))
        seen = []
        for n in range(rounds):
            writer.state.set(object_id, "key", b"%d" % (2 * n))
            seen.append(next(watch))
            node = hidden_cluster.endpoints.index(watch._core._stream.endpoint)
            proxy = hidden_cluster.proxies[node]
            if fault == "kill":
                hidden_cluster.signal(node, signal.SIGKILL)
            elif fault == "hold":
                proxy.down = Flow.HOLD
            else:
                proxy.cut()
            writer.state.set(object_id, "key", b"%d" % (2 * n + 1))
            seen.append(next(watch))
            proxy.down = Flow.PASS
            if fault == "kill":
                hidden_cluster.start_node(node)
        watch.close()
    assert [int(change.event.value) for change in seen] == list(range(2 * rounds))
    revisions = [change.revision for change in seen]
    assert revisions == sorted(set(revisions))
    report(f"python: watches that went on after {fault}", rounds)


# B2: a child goes on with a stream of its own, from where its parent was, and so does the parent.
def test_watch_goes_on_in_a_forked_child(client):
    object_id = client.state.get_object_id("a", "A")
    watch = client.watch(StateFilter(object_id))
    client.state.set(object_id, "key", b"0")
    assert next(watch).event.value == b"0"
    client.state.set(object_id, "key", b"1")

    def check():
        began = time.monotonic()
        assert next(watch).event.value == b"1"
        assert time.monotonic() - began < bound(0.5)

    assert in_child(check) == 0
    assert next(watch).event.value == b"1"
    watch.close()


# W2: 64 MiB are remembered, and 70 are written.
def test_history_is_bounded_and_says_where_it_begins():
    with run_cluster(1) as cluster, cluster.client() as client:
        object_id = client.state.get_object_id("a", "A")
        first = client.state.set(object_id, "key", b"first").mod_revision
        for n in range(70):
            last = client.state.set(object_id, "key", bytes([n]) * (1 << 20)).mod_revision
        with pytest.raises(Compacted) as refused:
            next(client.watch(StateFilter(object_id), from_revision=first))
        oldest = refused.value.oldest
        assert first < oldest <= last
        with client.watch(StateFilter(object_id), from_revision=oldest) as watch:
            assert next(watch).revision == oldest
        with pytest.raises(Compacted):
            next(client.watch(StateFilter(object_id), from_revision=oldest - 1))


def test_watch_says_when_no_node_can_be_reached(hidden_cluster, namespace):
    with hidden_cluster.client(namespace=namespace, deadline=0.5) as client:
        object_id = client.state.get_object_id("a", "A")
        with client.watch(StateFilter(object_id)) as watch:
            for proxy in hidden_cluster.proxies:
                proxy.refuse()
            with pytest.raises(Unavailable, match="refused"):
                watch.next()
            hidden_cluster.mend()
            client.state.set(object_id, "key", b"1")
            assert next(watch).event.value == b"1"


def test_watch_of_an_address_that_is_none_says_so():
    with pytest.raises(Unavailable, match="not of the form host:port"):
        Client("nonsense").watch()


# S5
def test_exclusive_create_runs_in_one_place_at_a_time(cluster, client):
    object_id = client.state.get_object_id("a", "A")
    running, ran, results = threading.Lock(), [], []

    def create(creator):
        assert running.acquire(blocking=False), "two run at a time"
        ran.append(creator.token)
        assert creator.is_live
        running.release()
        return b"made"

    def ask():
        with cluster.client(namespace=client.namespace) as own:
            results.append(own.state.create_exclusive(object_id, "key", create))

    callers = [threading.Thread(target=ask) for _ in range(scale(16, 6))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(ran) == 1
    assert sorted(result.created for result in results) == [False] * (len(callers) - 1) + [True]
    assert {result.value for result in results} == {b"made"}


# S5
def test_next_one_creates_when_a_creator_fails(client):
    object_id = client.state.get_object_id("a", "A")

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.state.create_exclusive(object_id, "key", fail)
    created = client.state.create_exclusive(object_id, "key", lambda _: b"made")
    assert (created.created, created.value) == (True, b"made")


# S5: the right is renewed while the callback runs, and a plain write of another wins.
def test_creator_keeps_its_right_and_is_told_when_it_is_lost(client):
    object_id = client.state.get_object_id("a", "A")

    def create(creator):
        wait_until(lambda: creator._life.until > began_until[0] + 0.3, "it is renewed")
        client.state.set(object_id, "key", b"plain")
        wait_until(lambda: not creator.is_live, "it is told", bound(1))
        return b"made"

    began_until = [0.0]

    def note_and_create(creator):
        began_until[0] = creator._life.until
        return create(creator)

    created = client.state.create_exclusive(object_id, "key", note_and_create, ttl=1.0)
    assert (created.created, created.value) == (False, b"plain")


# S5
def test_whoever_waits_for_a_creator_gives_up_in_time(client, cluster):
    object_id = client.state.get_object_id("a", "A")
    with cluster.client(namespace=client.namespace) as other:
        has_right, may_end = threading.Event(), threading.Event()

        def create(_):
            has_right.set()
            may_end.wait()
            return b"made"

        creating = threading.Thread(
            target=lambda: other.state.create_exclusive(object_id, "key", create)
        )
        creating.start()
        assert has_right.wait(10)
        try:
            with pytest.raises(NotApplied, match="still creating"):
                client.state.create_exclusive(object_id, "key", lambda _: b"2", wait=0.3)
            # A right that was never given is no right.
            with pytest.raises(CreationLost):
                task.start(
                    client.state._core.create_under(object_id, "key", b"3", fence=None, token=10**9)
                ).result()
        finally:
            may_end.set()
            creating.join()
    assert client.state.get(object_id, "key").value == b"made"
