"""Calls come to one certain outcome, whatever happens to nodes and connections (G3, G4, G5)."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from holdfast import BadRequest, Client, NotApplied, OutcomeUnknown, SessionExpired, Unavailable
from holdfast._engine import calls, rpc, task
from holdfast._engine.session import UNDECIDED_MAX, Session
from holdfast._wire import state_pb2
from holdfast._wire.cluster_pb2 import CloseSessionRequest, StatusRequest
from holdfast._wire.state_pb2 import SetStateResponse
from tests.support.cluster import wait_until
from tests.support.fork import in_child
from tests.support.proxy import Flow
from tests.support.scale import bound, report, scale, summary


def _set(object_id, name, value, namespace):
    return state_pb2.SetStateRequest(
        namespace=namespace, object_id=object_id, name=name, value=value
    )


@pytest.fixture
def behind(hidden_cluster, namespace):
    """A client behind proxies, and an object."""
    with hidden_cluster.client(namespace=namespace) as client:
        yield client, client.state.get_object_id("a", "A")
        hidden_cluster.mend()


def test_cluster_and_namespace_come_from_the_environment(monkeypatch):
    for name in ("HOLDFAST_ENDPOINTS", "HOLDFAST_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    client = Client()
    assert (client.engine.endpoints, client.namespace) == (("127.0.0.1:7480",), "default")
    monkeypatch.setenv("HOLDFAST_ENDPOINTS", "a:1, b:2,")
    monkeypatch.setenv("HOLDFAST_NAMESPACE", "site")
    client = Client()
    assert (client.engine.endpoints, client.namespace) == (("a:1", "b:2"), "site")
    client = Client(["c:3"], namespace="other")
    assert (client.engine.endpoints, client.namespace) == (("c:3",), "other")
    assert client.in_namespace("third").engine is client.engine


# B2
def test_nothing_connects_before_the_first_call():
    with Client("192.0.2.1:1", deadline=0.2) as client:
        threads = threading.active_count()
        assert client.state is not None
        assert threading.active_count() == threads
        assert client.engine._runtimes == {}


# G5, G11
@pytest.mark.parametrize("address", ["nonsense", "host:port", "a/b:1", ":1", "h:0", "1::2:3"])
def test_bad_address_is_named_by_the_first_call(address):
    client = Client(address)
    with pytest.raises(Unavailable, match="not of the form host:port"):
        client.state.get(1, "key")
    with pytest.raises(NotApplied) as refused:
        client.state.set(1, "key", b"1")
    assert refused.value.attempts[0].endpoint == address
    assert not refused.value.has_answer


# G5
def test_unreachable_cluster_definitely_applied_nothing():
    client = Client(["127.0.0.1:1", "127.0.0.1:2"], deadline=0.3)
    began = time.monotonic()
    with pytest.raises(NotApplied, match="Connection refused") as refused:
        client.state.set(1, "key", b"1")
    assert 0.25 < time.monotonic() - began < 2
    assert [attempt.endpoint for attempt in refused.value.attempts] == [
        "127.0.0.1:1",
        "127.0.0.1:2",
    ]


# G5: whoever sends and hears nothing does not know.
def test_lost_replies_are_an_unknown_outcome(behind, hidden_cluster):
    client, object_id = behind
    for proxy in hidden_cluster.proxies:
        proxy.down = Flow.DROP
    request = _set(object_id, "key", b"1", client.namespace)
    with pytest.raises(OutcomeUnknown) as unknown:
        client.engine.write(calls.SET_STATE, request, deadline=1.0).result()
    assert "no answer" in str(unknown.value)
    for proxy in hidden_cluster.proxies:
        proxy.down = Flow.PASS
        proxy.cut()
    assert client.state.get(object_id, "key").value == b"1"


# G5: nor does whoever sent before the connection broke, although nobody can be reached since.
def test_broken_connections_are_an_unknown_outcome(behind, hidden_cluster):
    client, object_id = behind
    for proxy in hidden_cluster.proxies:
        proxy.down = Flow.DROP
    carried = sum(proxy.bytes_up for proxy in hidden_cluster.proxies)
    request = _set(object_id, "key", b"1", client.namespace)
    writing = client.engine.write(calls.SET_STATE, request, deadline=1.5)
    wait_until(lambda: sum(p.bytes_up for p in hidden_cluster.proxies) > carried, "it was sent")
    for proxy in hidden_cluster.proxies:
        proxy.refuse()
    with pytest.raises(OutcomeUnknown, match="Connection refused"):
        writing.result()


# G5: a request that is held is not applied until it comes through; then it is.
def test_open_write_is_settled_once_under_its_number(behind, hidden_cluster):
    client, object_id = behind
    first = client.state.set(object_id, "count", b"0")
    for proxy in hidden_cluster.proxies:
        proxy.down = Flow.DROP
    request = _set(object_id, "count", b"1", client.namespace)
    request.if_revision = first.mod_revision
    pending = client.engine.begin(calls.SET_STATE, request).result()
    session = client.engine.runtime.sessions._current
    marks = []

    def context(seq, *, is_resent):
        marks.append(is_resent)
        return Session.context(session, seq, is_resent=is_resent)

    session.context = context
    with pytest.raises(OutcomeUnknown):
        pending.send(deadline=0.6, budget=0.2).result()
    assert not pending.is_decided
    assert marks[0] is False
    assert all(marks[1:])
    # It holds up no others, which go on in a new session.
    assert client.engine.runtime.sessions._current is None
    marks.clear()
    for proxy in hidden_cluster.proxies:
        proxy.down = Flow.PASS
        proxy.cut()
    # Applied by the first copy: a second application would find another revision.
    settled = pending.send(deadline=10).result()
    assert settled.written
    assert all(marks)
    assert pending.is_decided
    with pytest.raises(ValueError, match="not sent again"):
        pending.send().result()
    assert client.state.get(object_id, "count").mod_revision == settled.mod_revision


# T3: what certainly never left ends with the budget, and is decided.
def test_budget_ends_a_write_that_reached_nobody(behind, hidden_cluster):
    client, object_id = behind
    client.state.set(object_id, "key", b"1")
    for proxy in hidden_cluster.proxies:
        proxy.refuse()
    request = _set(object_id, "key", b"2", client.namespace)
    pending = client.engine.begin(calls.SET_STATE, request).result()
    began = time.monotonic()
    with pytest.raises(NotApplied, match="refused"):
        pending.send(deadline=10.0, budget=0.25).result()
    assert time.monotonic() - began < bound(0.5)
    assert pending.is_decided
    hidden_cluster.mend()
    assert client.state.get(object_id, "key").value == b"1"


# G4: the answer to an unmarked copy may have come without a log entry; then a marked copy that
# arrives later would still be carried out. So that one's answer is waited for.
def test_answer_to_the_first_copy_is_not_enough_while_another_is_on_its_way(behind, hidden_cluster):
    client, object_id = behind
    client.state.set(object_id, "key", b"1")
    first = hidden_cluster.endpoints.index(client.engine.runtime.pool._last_good)
    for node, proxy in enumerate(hidden_cluster.proxies):
        if node == first:
            proxy.down = Flow.HOLD
        else:
            proxy.up = Flow.HOLD
    request = _set(object_id, "key", b"1", client.namespace)
    writing = client.engine.write(calls.SET_STATE, request, deadline=60.0)
    others = [p for node, p in enumerate(hidden_cluster.proxies) if node != first]
    wait_until(lambda: any(p.holds_up() for p in others), "another copy is on its way")
    hidden_cluster.proxies[first].down = Flow.PASS
    # What comes behind the answer on the same stream has come.
    address = hidden_cluster.endpoints[first]
    link = client.engine.runtime.pool.at(address).link
    behind_it = link.pipeline.call("/holdfast.v1.Cluster/KeepSession", 10.0, b"")
    with pytest.raises(rpc.Status):
        behind_it.result(10)
    assert not writing.done()
    for proxy in others:
        proxy.up = Flow.PASS
    assert writing.result(30).written


# G4
def test_late_copy_of_a_write_given_up_changes_nothing(behind, hidden_cluster):
    client, object_id = behind
    client.state.set(object_id, "key", b"before")
    for proxy in hidden_cluster.proxies:
        proxy.up = Flow.HOLD
    request = _set(object_id, "key", b"late", client.namespace)
    with pytest.raises(OutcomeUnknown):
        client.engine.write(calls.SET_STATE, request, deadline=0.5).result()
    assert all(proxy.holds_up() for proxy in hidden_cluster.proxies[:1])
    # The next write tells the cluster that the seq before it is over, on connections of its own.
    with Client(hidden_cluster.direct, namespace=client.namespace) as other:
        _share_session(client, other)
        assert other.state.set(object_id, "key", b"after").written
        for proxy in hidden_cluster.proxies:
            proxy.up = Flow.PASS
        # Every held copy has come through once something behind it has been answered.
        assert client.state.get(object_id, "key").value == b"after"
        assert other.state.get(object_id, "key").value == b"after"


def _share_session(client, other):
    session = client.engine.runtime.sessions._current
    other.engine.runtime.sessions._current = session


# G4
def test_write_257_waits_for_the_first_one(behind):
    client, object_id = behind
    client.state.set(object_id, "key", b"0")
    engine = client.engine
    held = engine.begin(calls.SET_STATE, _set(object_id, "held", b"1", client.namespace)).result()
    later = [_set(object_id, "k", b"%d" % n, client.namespace) for n in range(UNDECIDED_MAX - 1)]
    for written in [engine.write(calls.SET_STATE, request) for request in later]:
        written.result()
    waiting = _set(object_id, "k", b"last", client.namespace)
    with pytest.raises(NotApplied, match="256 earlier writes"):
        engine.write(calls.SET_STATE, waiting, deadline=0.3).result()
    going = engine.write(calls.SET_STATE, waiting)
    assert held.send().result().written
    assert going.result(timeout=10).written


# G4
def test_write_is_never_moved_to_another_session(behind, hidden_cluster):
    client, object_id = behind
    client.state.set(object_id, "key", b"1")
    session = client.engine.runtime.sessions._current
    with Client(hidden_cluster.direct) as other:
        request = CloseSessionRequest(session_id=session.id)
        other.engine.read(calls.CLOSE_SESSION, request).result()
    with pytest.raises(SessionExpired) as refused:
        client.state.set(object_id, "key", b"2")
    assert refused.value.fields == {"session": str(session.id)}
    assert client.state.get(object_id, "key").value == b"1"
    assert client.state.set(object_id, "key", b"2").written
    assert client.engine.runtime.sessions._current.id > session.id


# G11
def test_session_idle_has_bounds(cluster):
    for idle in (9.9, 86_401.0):
        client = cluster.client(session_idle=idle)
        with pytest.raises(BadRequest):
            client.state.get_object_id("a", "A")
        client.close()


def test_cancelled_call_is_given_up(behind, hidden_cluster):
    client, object_id = behind
    for proxy in hidden_cluster.proxies:
        proxy.up = Flow.HOLD
    request = _set(object_id, "key", b"1", client.namespace)
    writing = client.engine.write(calls.SET_STATE, request)
    assert writing.cancel()
    with pytest.raises(CancelledError):
        writing.result()
    assert client.engine.runtime.sessions._current._first_incomplete() > 1


# G5: answers of another cluster mean nothing.
def test_node_of_another_cluster_is_passed_over(cluster, hidden_cluster, namespace):
    mixed = [cluster.endpoints[0], hidden_cluster.endpoints[0]]
    with Client(mixed, namespace=namespace) as client:
        object_id = client.state.get_object_id("a", "A")
        client.state.set(object_id, "key", b"1")
        answered = client.engine.runtime.pool._last_good
        foreign = next(address for address in mixed if address != answered)
        asked = client.engine.ask(foreign, calls.STATUS, StatusRequest())
        with pytest.raises(Unavailable, match="belongs to cluster") as refused:
            asked.result()
        assert refused.value.attempts[0].reason == "FOREIGN_CLUSTER"
        assert client.state.get(object_id, "key").value == b"1"


# G3, G4: a counter that is compared and set is exact when every call is exactly once.
def test_counter_is_exact_while_connections_break(hidden_cluster, namespace):
    for proxy in hidden_cluster.proxies:
        proxy.loss = 0.02
    increments = scale(2_000, 100)
    with hidden_cluster.client(namespace=namespace) as client:
        object_id = client.state.get_object_id("a", "A")
        client.state.set(object_id, "count", b"0")

        def add(count):
            with hidden_cluster.client(namespace=namespace, deadline=30.0) as own:
                for _ in range(count):
                    own.state.update(object_id, "count", lambda old: b"%d" % (int(old) + 1))

        with ThreadPoolExecutor(4) as threads:
            for added in [threads.submit(add, increments // 4) for _ in range(4)]:
                added.result()
        assert client.state.get(object_id, "count").value == b"%d" % increments
    connections = sum(proxy.connections for proxy in hidden_cluster.proxies)
    report("python: connections that broke under the exact counter", connections)


# G3
def test_hanging_leader_costs_a_second_not_the_deadline(hidden_cluster, namespace):
    leader = hidden_cluster.leader()
    # Less than it takes to notice that the connection hangs.
    with hidden_cluster.client(namespace=namespace, deadline=2.8) as client:
        object_id = client.state.get_object_id("a", "A")
        hidden_cluster.signal(leader, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert client.state.set(object_id, "key", b"1").written
            took = time.monotonic() - began
        finally:
            hidden_cluster.signal(leader, signal.SIGCONT)
    report("python: a write while the leader hangs", f"{took * 1000:.0f} ms")
    assert took < 2.8


# N5, G5: what was acknowledged stays, and a call sees the length of the election.
def test_writes_go_on_when_the_leader_is_killed(hidden_cluster, namespace):
    gaps = []
    with hidden_cluster.client(namespace=namespace, deadline=20.0) as client:
        object_id = client.state.get_object_id("a", "A")
        for kill in range(scale(10, 2)):
            leader = hidden_cluster.leader()
            client.state.set(object_id, f"before-{kill}", b"1")
            hidden_cluster.signal(leader, signal.SIGKILL)
            began = time.monotonic()
            assert client.state.set(object_id, f"after-{kill}", b"1").written
            gaps.append(time.monotonic() - began)
            assert client.state.get(object_id, f"before-{kill}").value == b"1"
            hidden_cluster.start_node(leader)
        assert len(client.state.list_state(object_id)) == 2 * len(gaps)
    report("python: a write when the leader was killed", summary(gaps))
    assert sorted(gaps)[len(gaps) // 2] < bound(1.5)


# B2
def test_forked_children_go_on_with_sessions_of_their_own(client):
    object_id = client.state.get_object_id("a", "A")
    session = client.engine.runtime.sessions._current.id
    has_ended = threading.Event()

    def keep_busy():
        while not has_ended.is_set():
            client.state.get(object_id, "key")

    busy = [threading.Thread(target=keep_busy) for _ in range(2)]
    for thread in busy:
        thread.start()
    forks = scale(200, 20)
    try:
        for n in range(forks):
            assert in_child(lambda n=n: _write_in_child(client, object_id, session, n)) == 0
    finally:
        has_ended.set()
        for thread in busy:
            thread.join()
    assert len(client.state.list_state(object_id)) == forks
    assert client.engine.runtime.sessions._current.id == session


def _write_in_child(client, object_id, session, n):
    assert client.state.set(object_id, f"child-{n}", b"1").written
    assert client.state.get(object_id, f"child-{n}").value == b"1"
    assert client.engine.runtime.sessions._current.id != session


# G4: a session never crosses a fork.
def test_child_cannot_settle_its_parents_write(client):
    object_id = client.state.get_object_id("a", "A")
    request = _set(object_id, "key", b"1", client.namespace)
    pending = client.engine.begin(calls.SET_STATE, request).result()

    def check():
        with pytest.raises(ValueError, match="the process that began it"):
            pending.send().result()

    assert in_child(check) == 0
    assert pending.send().result().written


# G5: what cannot be read says nothing of what became of a write.
def test_response_that_cannot_be_read_is_an_unknown_outcome(client, caplog):
    object_id = client.state.get_object_id("a", "A")
    damaged = SimpleNamespace(FromString=lambda message: SetStateResponse.FromString(message[1:]))
    odd = calls.Call("State", "SetState", state_pb2.SetStateRequest, damaged)
    request = _set(object_id, "key", b"1", client.namespace)
    with pytest.raises(OutcomeUnknown, match="DecodeError"):
        client.engine.write(odd, request, deadline=0.5).result()
    assert "a copy of State.SetState failed" in caplog.text
    assert client.state.get(object_id, "key").value == b"1"


# B2: the node sees its connection end with the parent, whatever children live on.
def test_child_does_not_hold_its_parents_connections(client):
    client.state.get_object_id("a", "A")
    inherited = [
        endpoint.link.connection._sock.fileno()
        for endpoint in client.engine.runtime.pool.in_order()
        if endpoint.link is not None
    ]
    assert inherited

    def check():
        for descriptor in inherited:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)

    assert in_child(check) == 0
    assert client.state.get_object_id("a", "A")


def test_dropped_client_closes_its_connections(cluster):
    client = cluster.client()
    client.state.get_object_id("a", "A")
    links = [endpoint.link for endpoint in client.engine.runtime.pool.in_order()]
    connections = [link.connection for link in links if link is not None]
    assert [one.is_open for one in connections] == [True] * len(connections) != []
    del client, links
    gc.collect()
    wait_until(lambda: not any(one.is_open for one in connections), "they are closed")


def test_connection_that_is_made_while_its_client_closes_is_closed(hidden_cluster):
    client = hidden_cluster.client()
    (endpoint, *_) = client.engine.runtime.pool.in_order()
    connecting = task.start(endpoint.connect())
    client.close()
    connection = connecting.result(10).connection
    wait_until(lambda: not connection.is_open, "it is closed")
    assert endpoint.link is None
    assert task.start(endpoint.connect()).result(10).connection.is_open
    client.close()


# A program that ends with a lease, a watch and a call under way ends.
def test_program_ends_whatever_is_under_way(cluster):
    program = """if True:
        import sys
        from holdfast import Client
        from holdfast._engine import calls, rpc, task
        from holdfast._wire.state_pb2 import GetStateRequest
        from holdfast.instance import Instance
        client = Client(sys.argv[1])
        lease = client.hold_lease("ends", Instance.random(), 0.5, grace=0.5)
        watch = client.watch()
        client.engine.read(calls.GET_STATE, GetStateRequest(object_id=1, name="k"))
        print(lease.is_live)
    """
    ended = subprocess.run(
        [sys.executable, "-c", program, cluster.text], capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


def test_sync_calls_are_quick(client):
    object_id = client.state.get_object_id("a", "A")
    client.state.set(object_id, "key", b"1")
    for what, call in {
        "read of a node's own": lambda _: client.state.get(object_id, "key", local=True),
        "linearizable read": lambda _: client.state.get(object_id, "key"),
        "write": lambda n: client.state.set(object_id, "key", b"%d" % n),
    }.items():
        times = []
        for n in range(scale(2_000, 200)):
            began = time.perf_counter()
            call(n)
            times.append(time.perf_counter() - began)
        report(f"python: sync {what}", summary(times))
        assert sorted(times)[len(times) // 2] < bound(0.02)
