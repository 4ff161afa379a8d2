"""A listing of stored objects whose node goes away.

It is begun anew, goes on at its revision, or says how far it came; it is never of two revisions.
"""

from __future__ import annotations

import threading
import time

import pytest

from holdfast._engine.engine import Engine
from holdfast.persistence import ClusterStore, ListingBrokenOff, Object, StoreUnavailable
from tests.support.proxy import Proxy
from tests.support.scale import bound

COUNT = 2000
"""With their metadata about 14 MB: far more than is on its way at once, so that a node that is
killed takes the rest of a listing with it."""


@pytest.fixture
def listed_after(monkeypatch):
    """Behind which id each listing began that was asked for."""
    begun = []
    stream = Engine.stream

    def noted(self, call, request, **options):
        if call.name == "ListStoredObjects":
            begun.append(request.after_id)
        return stream(self, call, request, **options)

    monkeypatch.setattr(Engine, "stream", noted)
    return begun


def fill(cluster, namespace):
    """A store with many objects, and their ids in order."""
    store = ClusterStore(f"holdfast://{cluster.text}/{namespace}")
    metadata = {f"field-{nth}": "x" * 1000 for nth in range(7)}
    # In small saves: what an upload brings is put in its place at revisions behind its commit.
    for _ in range(0, COUNT, 100):
        children = [Object("C", metadata=metadata) for _ in range(99)]
        store.save(Object("R", metadata=metadata, children=children))
    ids = store.list()
    assert len(ids) == COUNT
    return store, ids


# P6
def test_listing_outlives_its_node_before_the_first_record(faulty_cluster, namespace):
    store, ids = fill(faulty_cluster, namespace)
    for act in (lambda: list(store.ids()), store.list):
        found = []
        # The client asks the leader, which has the request and does not answer.
        leader = faulty_cluster.leader()
        faulty_cluster.local("pause", leader)
        lister = threading.Thread(target=lambda act=act, found=found: found.extend(act()))
        lister.start()
        faulty_cluster.local("kill", leader)
        lister.join(bound(20))
        assert found == ids
        faulty_cluster.local("start", leader)


# P2 P6: the same revision is the same objects, whoever has it.
def test_listing_goes_on_while_nothing_is_written(faulty_cluster, namespace, listed_after):
    store, ids = fill(faulty_cluster, namespace)
    listed_after.clear()
    listing = store.ids()
    found = [next(listing)]
    faulty_cluster.local("kill", faulty_cluster.leader())
    found.extend(listing)
    assert found == ids
    first, *others = listed_after
    assert first == 0
    assert others, "the listing did not break"
    assert all(str(after) in ids for after in others)


# P2 P6: what was handed out cannot be taken back, and the rest is not there any more as it was.
def test_listing_says_how_far_it_came_if_the_store_has_changed(faulty_cluster, namespace):
    store, ids = fill(faulty_cluster, namespace)
    listing = store.ids()
    found = [next(listing)]
    faulty_cluster.local("kill", faulty_cluster.leader())
    store.save(Object("Late"))
    with pytest.raises(ListingBrokenOff, match="list again") as error:
        found.extend(listing)
    assert next(listing, None) is None
    assert len(found) < COUNT
    assert found == ids[: error.value.handed_out]
    assert f"broke off after {len(found)} objects, and" in str(error.value)
    assert "did not answer" not in str(error.value)
    assert len(list(store.ids())) == COUNT + 1


# P6: the time that is told is the time that it was waited.
def test_listing_that_goes_on_nowhere_was_waited_for(cluster, namespace):
    fill(cluster, namespace)
    with Proxy(cluster.endpoints[0]) as proxy:
        store = ClusterStore(f"holdfast://{proxy.address}/{namespace}?timeout_s=1")
        # It knows no other nodes.
        store._backend._links.get().engine.runtime.pool._add = lambda *_, **__: None
        listing = store.ids()
        next(listing)
        proxy.refuse()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as error:
            list(listing)
        assert 1 <= error.value.waited <= time.monotonic() - began
