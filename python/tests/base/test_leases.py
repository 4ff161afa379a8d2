"""A holder is told that its lease is lost before the cluster gives its claims away (M3 to M7)."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast import Client, LeaseHeld, LeaseLost
from holdfast._engine import boottime, task
from holdfast.instance import Instance
from holdfast.lease import Loss
from tests.support.cluster import wait_until
from tests.support.fork import in_child
from tests.support.proxy import Flow
from tests.support.scale import bound, report, scale, summary


def _hold(client, name, ttl=1.0, **options):
    return client.hold_lease(name, Instance.random(), ttl, **options)


# M3, M6
@pytest.mark.parametrize("has_grace", [False, True])
def test_lease_is_renewed_for_as_long_as_it_is_held(client, has_grace):
    ttl = scale(0.5, 1.0)
    with _hold(client, "one", ttl=ttl, grace=ttl if has_grace else 0.0) as lease:
        source = client.changesources.find_id("repo")
        fence = lease.claim(source)
        assert lease.wait_lost(scale(1.7, 1.2)) is None
        assert lease.is_live
        assert 0 < lease.remaining < ttl
        assert lease.claim(source) == fence
    assert not lease.is_live
    assert client.changesources.get(source).claimant is None
    with pytest.raises(LeaseLost):
        lease.claim(source)
    with pytest.raises(LeaseLost):
        lease.close()


# M3
def test_second_instance_is_refused_and_the_same_one_takes_over(client):
    instance = Instance.random()
    first = client.hold_lease("one", instance, 1.5)
    with pytest.raises(LeaseHeld, match="'one' is run by another instance"):
        _hold(client, "one")
    source = client.changesources.find_id("repo")
    fence = first.claim(source)
    second = client.hold_lease("one", instance, 60.0)
    assert first.wait_lost(bound(1.0)) == Loss.ENDED
    assert not client.changesources.release(fence)
    assert second.claim(source).token > fence.token
    second.close()


# M2: the loss is told, on a thread of its own, also while nobody asks.
def test_owner_is_told_when_the_cluster_ends_the_lease(client):
    told = []
    has_told = threading.Event()

    def tell(loss):
        told.append((loss, threading.current_thread().name))
        has_told.set()

    lease = _hold(client, "one", ttl=1.5)
    lease.on_lost(tell)
    assert client.masters.set_state(lease.master_id, False)
    assert has_told.wait(bound(1.0))
    assert told == [(Loss.ENDED, "holdfast-lost")]
    with pytest.raises(LeaseLost, match=f"lease {lease.lease.id} is lost"):
        lease.check()


# M5: it is told when it comes, also while no renewal is due for long.
def test_loss_is_told_whatever_the_renewals_wait_for(client, monkeypatch):
    monkeypatch.setattr("holdfast.lease.TICK", 3600.0)
    lease = _hold(client, "one", ttl=600.0)
    lease._core.life.shorten(boottime.now() + 0.2)
    assert lease.wait_lost(60) == Loss.EXPIRED


# M5, C4: never two owners, whatever the holder cannot hear.
def test_holder_that_is_cut_off_knows_before_another_owns(hidden_cluster, namespace):
    margins = []
    instance = Instance.random()
    for _ in range(scale(20, 1)):
        hidden_cluster.mend()
        with hidden_cluster.client(namespace=namespace) as client:
            lease = client.hold_lease("one", instance, scale(1.0, 1.5))
            source = client.changesources.find_id("repo")
            lease.claim(source)
            lost_at = []
            lease.on_lost(lambda _, lost_at=lost_at: lost_at.append(boottime.now()))
            with hidden_cluster.direct_client(namespace=namespace) as other:
                rival = _hold(other, "two", ttl=30.0)
                for proxy in hidden_cluster.proxies:
                    proxy.down = Flow.HOLD
                fence = rival.await_claim(source)
                owned_at = boottime.now()
                assert not lease.is_live
                wait_until(lambda lost_at=lost_at: lost_at, "the loss was told")
                margins.append(owned_at - lost_at[0])
                for proxy in hidden_cluster.proxies:
                    proxy.down = Flow.PASS  # what was held comes late, and revives nothing
                assert lease.wait_lost(0) == Loss.EXPIRED
                assert rival.release(fence)
                rival.close()
    assert min(margins) > 0
    report("python: a holder knew of its loss before the next owner by", summary(margins))


_HOLDER = """
    import sys, time
    from holdfast import Client
    from holdfast._engine import boottime
    from holdfast.instance import Instance
    endpoints, namespace, name, ttl, grace = sys.argv[1:]
    client = Client(endpoints, namespace=namespace)
    lease = client.hold_lease(name, Instance.random(), float(ttl), grace=float(grace))
    source = client.changesources.find_id("repo")
    lease.claim(source)
    print("holds", flush=True)
    for line in sys.stdin:
        print(lease.is_live, lease.wait_lost(0), flush=True)
"""


class _Holder:
    """A process that holds a lease and a claim, and says whether it still does when asked."""

    def __init__(self, endpoints, namespace, name, ttl, grace=0.0):
        command = [sys.executable, "-c", textwrap.dedent(_HOLDER)]
        self.process = subprocess.Popen(
            [*command, ",".join(endpoints), namespace, name, str(ttl), str(grace)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "holds\n"

    def ask(self):
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# M5: a stopped process finds its lease lost when it goes on, before it does anything.
def test_stopped_process_does_not_believe_in_its_lease(cluster, client, namespace):
    source = client.changesources.find_id("repo")
    with _Holder(cluster.endpoints, namespace, "one", 1.0) as holder, _hold(client, "two") as rival:
        assert holder.ask()[0] == "True"
        holder.process.send_signal(signal.SIGSTOP)
        rival.await_claim(source)
        holder.process.send_signal(signal.SIGCONT)
        assert holder.ask() == ["False", "Loss.EXPIRED"]


# M7
def test_waiting_master_owns_soon_after_a_kill(cluster, client, namespace):
    source = client.changesources.find_id("repo")
    took = []
    for _ in range(scale(10, 1)):
        with (
            _Holder(cluster.endpoints, namespace, "one", 1.0) as holder,
            _hold(client, "two", ttl=30.0) as rival,
            ThreadPoolExecutor(1) as threads,
        ):
            waiting = threads.submit(rival.await_claim, source)
            _wait_for_line(client, source, rival)
            holder.process.kill()
            began = time.monotonic()
            fence = waiting.result(bound(10))
            took.append(time.monotonic() - began)
            rival.release(fence)
    report("python: take-over from a killed holder, ttl 1 s", summary(took))
    assert max(took) < bound(1.35)


def _wait_for_line(client, source, holder):
    """Waits until a lease is in line; asking again keeps its place."""

    def is_in_line():
        asked = client.changesources.await_claim(holder.lease.id, source)
        return getattr(asked, "ahead", None) is not None

    wait_until(is_in_line, "it is in line")


# M6
def test_grace_frees_what_a_killed_holder_had(cluster, client, namespace):
    source = client.changesources.find_id("repo")
    took = []
    for _ in range(scale(10, 1)):
        with (
            _Holder(cluster.endpoints, namespace, "one", 60.0, 1.0) as holder,
            _hold(client, "two", ttl=30.0) as rival,
        ):
            assert holder.ask()[0] == "True"
            wait_until(lambda: _is_attached(client, source), "it is attached", bound(2))
            holder.process.kill()
            began = time.monotonic()
            fence = rival.await_claim(source)
            took.append(time.monotonic() - began)
            rival.release(fence)
    report("python: take-over from a killed holder, ttl 60 s, grace 1 s", summary(took))
    assert max(took) < bound(2.0)


def _is_attached(client, source):
    # Attached it is renewed for its full time, which is long again after the first renewal.
    return client.changesources.get(source).claimant.lease_remaining > 30


# M6: a broken connection is no reason to stop, as long as another node can be reached.
def test_lease_with_grace_outlives_broken_connections(hidden_cluster, namespace):
    with hidden_cluster.client(namespace=namespace) as client:
        lease = _hold(client, "one", ttl=10.0, grace=2.0)
        ends = boottime.now() + scale(20.0, 3.0)
        while boottime.now() < ends:
            assert lease.wait_lost(0.7) is None
            for proxy in hidden_cluster.proxies:
                proxy.cut()
        assert lease.is_live
        lease.close()


# M6, N4: a node that stops in good order shrinks nothing.
def test_lease_with_grace_outlives_nodes_that_stop(hidden_cluster, namespace, caplog):
    with hidden_cluster.client(namespace=namespace) as client:
        lease = _hold(client, "one", ttl=10.0, grace=3.0)
        for node in list(range(3)) * scale(3, 1):
            hidden_cluster.signal(node, signal.SIGTERM)
            assert lease.wait_lost(1.0) is None
            hidden_cluster.start_node(node)
            hidden_cluster.leader()
        assert lease.is_live
        lease.close()
    assert "has failed" not in caplog.text


# M6, N4: it has said so, and the holder need not renew first to be free of it.
def test_node_that_stops_ends_the_count_of_the_grace(hidden_cluster, namespace):
    proxy, address = hidden_cluster.proxies[0], hidden_cluster.endpoints[0]
    with Client(address, namespace=namespace) as client:
        lease = _hold(client, "one", ttl=600.0, grace=120.0)
        life = lease._core.life
        wait_until(lambda: life._graced is not None, "the only node it knows is told")
        client.masters.find_id("two")  # once this is answered, that has come
        proxy.up = Flow.HOLD
        hidden_cluster.signal(0, signal.SIGTERM)
        wait_until(lambda: life._graced is None, "no node can shrink it", 60)
        assert lease.is_live
        hidden_cluster.mend()
        lease.close()


# M6: nor can a node end by what it has seen break a lease that was renewed since.
def test_renewal_that_no_node_was_told_of_ends_the_count_of_the_grace(
    hidden_cluster, namespace, monkeypatch
):
    monkeypatch.setattr("holdfast._engine.attach.pause", lambda _: 3600.0)  # it is told to nobody
    with hidden_cluster.client(namespace=namespace) as client:
        lease = _hold(client, "one", ttl=600.0, grace=120.0)
        life = lease._core.life
        wait_until(lambda: life._graced is not None, "a node is told")
        for proxy in hidden_cluster.proxies:
            proxy.cut()
        wait_until(lambda: life._graced is None, "no node can shrink it", 60)
        assert lease.remaining < 120.0
        lease.close()


# M6: cut off for the grace, its holder stops by itself, long before the ttl.
def test_holder_with_grace_stops_when_it_is_cut_off(hidden_cluster, namespace):
    with hidden_cluster.client(namespace=namespace) as client:
        lease = _hold(client, "one", ttl=60.0, grace=1.0)
        wait_until(lambda: lease.remaining < 1.0, "it is attached")
        for proxy in hidden_cluster.proxies:
            proxy.refuse()
        began = time.monotonic()
        assert lease.wait_lost(bound(2.0)) == Loss.EXPIRED
        assert time.monotonic() - began < bound(1.0)


# Whoever is done with a lease, be it by a fault, leaves the client's connections alone.
def test_end_of_a_lease_closes_no_connection_of_its_client(client):
    lease = _hold(client, "one", 1.5)
    links = [endpoint.link for endpoint in client.engine.runtime.pool.in_order()]
    connections = [link.connection for link in links if link is not None]
    client.masters.set_state(lease.master_id, False)
    assert lease.wait_lost(bound(1.0)) == Loss.ENDED
    del lease, links
    gc.collect()
    client.masters.find_id("two")
    assert [one.is_open for one in connections] == [True] * len(connections) != []


# C6
def test_line_is_served_in_order_and_left_when_cancelled(client):
    source = client.changesources.find_id("repo")
    owner, first, second, third = (_hold(client, name, 30.0) for name in ("o", "1", "2", "3"))
    fence = owner.claim(source)
    cores = [lease._core.await_claim(source) for lease in (first, second, third)]
    waiting = []
    for core, lease in zip(cores, (first, second, third)):
        waiting.append(task.start(core))
        _wait_for_line(client, source, lease)
    assert waiting[1].cancel()
    wait_until(
        lambda: client.changesources.await_claim(third.lease.id, source).ahead == 1,
        "the second has left the line",
    )
    assert owner.release(fence)
    fence = waiting[0].result(10)
    assert client.changesources.get(source).claimant.lease_id == first.lease.id
    first.close()
    assert waiting[2].result(10).token > fence.token
    assert client.changesources.get(source).claimant.lease_id == third.lease.id
    for lease in (owner, second, third):
        lease.close()


def test_owning_gives_back_in_the_end(client):
    source = client.changesources.find_id("repo")
    with _hold(client, "one") as lease:
        with lease.owning(source) as fence:
            assert client.changesources.get(source).claimant.token == fence.token
        assert client.changesources.get(source).claimant is None


# G4, M5
def test_lease_does_not_cross_a_fork(client):
    with _hold(client, "one", ttl=30.0) as lease:

        def check():
            assert not lease.is_live
            with pytest.raises(LeaseLost):
                lease.check()

        assert in_child(check) == 0
        assert lease.is_live
