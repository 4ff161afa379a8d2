"""The state connector says what Buildbot's own says, and what others trip over (S, B3, B4)."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buildbot.db.state import StateConnectorComponent
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from holdfast import Client
from holdfast._engine import calls
from holdfast._wire import changesources_pb2, masters_pb2, state_pb2
from holdfast._wire.common_pb2 import Fence
from holdfast.buildbot.connectors import LOCAL_KEYS, ChangeSourcesConnector, StateConnector
from holdfast.errors import BadRequest, HoldfastError, StaleFence
from tests.buildbot.connectors.databases import (
    Master,
    Reactor,
    insert,
    rows,
    running_master,
)
from tests.buildbot.connectors.outcome import Outcome, parameters
from tests.support.cluster import Cluster
from tests.support.scale import bound, report, scale

wait = Reactor.wait


@pytest.fixture
def master(tmp_path: Path, template: Path) -> Iterator[Master]:
    with running_master(tmp_path, template) as one:
        yield one


@pytest.fixture
def state(master: Master, client: Client) -> StateConnector:
    return StateConnector(master.db.state, client)


def cluster_id(client: Client, name: str, class_name: str) -> int:
    request = state_pb2.GetObjectIdRequest(
        namespace=client.namespace, name=name, class_name=class_name
    )
    return client.engine.write(calls.GET_OBJECT_ID, request).result().object_id


def put(client: Client, name: str, class_name: str, key: str, value: bytes) -> None:
    """As some other client does it."""
    request = state_pb2.SetStateRequest(
        namespace=client.namespace,
        object_id=cluster_id(client, name, class_name),
        name=key,
        value=value,
    )
    assert client.engine.write(calls.SET_STATE, request).result().written


def stored(client: Client, name: str, class_name: str) -> dict[str, bytes]:
    """The values of an object in the cluster."""
    request = state_pb2.ListStateRequest(
        namespace=client.namespace, object_id=cluster_id(client, name, class_name)
    )
    listed = client.engine.read(calls.LIST_STATE, request).result()
    assert not listed.more
    return {item.name: item.value for item in listed.items}


# --- What Buildbot's own says -----------------------------------------------------------------


VALUES: list[Any] = [
    None,
    0,
    -1.5,
    True,
    "",
    "text",
    [],
    [1, [2, {"a": None}]],
    {"b": 1, "a": [True, False]},
    float("nan"),
    float("-inf"),
    2**200,
    "\ud800",
    "\udfff x",
    "\0",
    "\U0001f600 \u00fc",
    (1, 2),
    {1: "int", False: "bool", None: "none"},
    "x" * 5000,
]
NO_JSON: list[Any] = [object(), {1, 2}, b"bytes", {(1, 2): 3}, [object()], 1j]
OBJECTS = [
    ("poller", "GitPoller"),
    ("poller", "HgPoller"),
    ("\u00fc\U0001f600", "C"),
    ("n" * 300, "C"),
]
KEYS = ["lastRev", "k", "\u00fc\U0001f600", "n" * 255, "upstream_bsids", " "]
UNKNOWN_ID = 4711


class Both:
    """Buildbot's own connector on one database, and the stand-in on another one and a cluster."""

    def __init__(self, stock: Master, ours: Master, connector: StateConnector, client: Client):
        self.masters = (stock, ours)
        self.connectors = (stock.db.state, connector)
        self.client = client
        self.ids = [UNKNOWN_ID]

    def call(self, name: str, *args: Any) -> tuple[Outcome, Outcome]:
        theirs, ours = (Outcome(wait, getattr(one, name), *args) for one in self.connectors)
        return theirs, ours

    def call_in_thread(self, name: str, *args: Any) -> tuple[Outcome, Outcome]:
        """As ``thd…`` are called: with a connection."""

        def call(master: Master, connector: Any) -> Any:
            with master.db.pool.engine.connect() as connection:
                return getattr(connector, name)(connection, *args)

        theirs, ours = (Outcome(call, *pair) for pair in zip(self.masters, self.connectors))
        return theirs, ours

    def corrupt(self, object_name: tuple[str, str], key: str) -> None:
        """Stores what is no JSON, past the connectors."""
        text = "ff[1"
        for master in self.masters:
            objectid = wait(master.db.state.getObjectId, *object_name)
            if key in LOCAL_KEYS or master is self.masters[0]:
                self._store(master, objectid, key, text)
        if key not in LOCAL_KEYS:
            put(self.client, *object_name, key, text.encode())

    def _store(self, master: Master, objectid: int, key: str, text: str) -> None:
        table = master.db.model.object_state
        here = (table.c.objectid == objectid) & (table.c.name == key)
        with master.db.pool.engine.begin() as connection:
            connection.execute(table.delete().where(here))
            row = {"objectid": objectid, "name": key, "value_json": text}
            connection.execute(table.insert().values(**row))


@pytest.fixture
def both(tmp_path: Path, template: Path, client: Client) -> Iterator[Both]:
    with (
        running_master(tmp_path, template, "a") as stock,
        running_master(tmp_path, template, "b") as ours,
    ):
        yield Both(stock, ours, StateConnector(ours.db.state, client), client)


def step(both: Both, choice: random.Random) -> str:
    """One random call on both; returns it, and asserts that both say the same."""
    objectid, key = choice.choice(both.ids), choice.choice(KEYS)
    value = choice.choice(NO_JSON if choice.random() < 0.1 else VALUES)
    call = both.call_in_thread if choice.random() < 0.3 else both.call
    thd = "thd" if call == both.call_in_thread else ""
    kind = choice.choices(
        ["id", "get", "default", "set", "create", "raise", "corrupt"], [1, 4, 3, 6, 4, 1, 0.3]
    )[0]
    done = f"{kind} {thd} {objectid} {key!r} {value!r:.50}"
    if kind == "id":
        name = choice.choice(OBJECTS)
        theirs, ours = call("thdGetObjectId" if thd else "getObjectId", *name)
        found = theirs.value["id"] if thd else theirs.value
        both.ids = sorted({*both.ids, found})
    elif kind == "get":
        theirs, ours = call("thdGetState" if thd else "getState", objectid, key)
    elif kind == "default":
        theirs, ours = call("thdGetState" if thd else "getState", objectid, key, value)
    elif kind == "set":
        theirs, ours = call("thdSetState" if thd else "setState", objectid, key, value)
        if theirs.text == "None":
            # Buildbot documents that it fires with the value, and fires with None; ours with it.
            assert ours.text == repr(value), done
            ours = theirs
    elif kind == "create":
        theirs, ours = both.call("atomicCreateState", objectid, key, lambda: value)
    elif kind == "raise":
        theirs, ours = both.call("atomicCreateState", objectid, key, lambda: {}["nothing"])
    else:
        both.corrupt(choice.choice(OBJECTS[:3]), key)
        return done
    assert theirs == ours, done
    return done


# B3
@pytest.mark.parametrize("seed", range(scale(8, 2)))
def test_random_calls_get_what_buildbots_own_get(both: Both, seed: int) -> None:
    steps = scale(1000, 100)
    choice = random.Random(seed)
    done: list[str] = []
    try:
        for _ in range(steps):
            done.append(step(both, choice))
    except AssertionError:
        print("\n".join(done[-20:]))
        raise
    same_values_stand(both)
    report("state connector: random calls with equal results, for each seed", steps)


# B3 G4
def test_random_calls_get_the_same_while_leaders_die(
    tmp_path: Path, template: Path, faulty_cluster: Cluster, namespace: str
) -> None:
    choice = random.Random(1)
    kills = scale(20, 1)
    with (
        running_master(tmp_path, template, "a") as stock,
        running_master(tmp_path, template, "b") as ours,
        faulty_cluster.client(namespace=namespace) as client,
    ):
        connector = StateConnector(ours.db.state, client, deadline=bound(5.0))
        both = Both(stock, ours, connector, client)
        done = 0
        for _ in range(kills):
            killing = threading.Thread(target=faulty_cluster.local, args=("kill", "leader"))
            killing.start()
            while killing.is_alive():
                step(both, choice)
                done += 1
            # The first of these wait for another leader.
            for _ in range(20):
                step(both, choice)
                done += 1
            faulty_cluster.up()
        same_values_stand(both)
    report("state connector: random calls with equal results while leaders died", done)


def same_values_stand(both: Both) -> None:
    """Whatever was written is there, byte for byte."""
    theirs, ours = both.masters
    assert rows(theirs, theirs.db.model.objects) == rows(ours, ours.db.model.objects)
    objects = {row[0]: (row[1], row[2]) for row in rows(ours, ours.db.model.objects)}
    values = [row[:3] for row in rows(theirs, theirs.db.model.object_state)]
    found = [row[:3] for row in rows(ours, ours.db.model.object_state)]
    assert all(key in LOCAL_KEYS or objectid == UNKNOWN_ID for objectid, key, _ in found)
    for objectid, name in objects.items():
        items = stored(both.client, *name).items()
        found += [(objectid, key, value.decode()) for key, value in items]
    assert sorted(found) == sorted(values)


# --- Bytes ------------------------------------------------------------------------------------


# B3 S2
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), b"NaN"),
        (2**200, str(2**200).encode()),
        ("\ud800", rb'"\ud800"'),
        ("\0", rb'"\u0000"'),
        ("x" * ((1 << 20) - 2), b'"' + b"x" * ((1 << 20) - 2) + b'"'),
        ({"b": [1, 2.5], "a": "\u00fc"}, rb'{"b": [1, 2.5], "a": "\u00fc"}'),
    ],
    ids=["nan", "2**200", "surrogate", "nul", "a MiB", "spaces and order"],
)
def test_values_are_kept_byte_for_byte(
    state: StateConnector, client: Client, value: Any, text: bytes
) -> None:
    objectid = wait(state.getObjectId, "o", "C")
    wait(state.setState, objectid, "k", value)
    assert stored(client, "o", "C") == {"k": text}
    assert repr(wait(state.getState, objectid, "k")) == repr(value)


# G9
def test_a_value_that_is_too_large_is_refused(state: StateConnector) -> None:
    objectid = wait(state.getObjectId, "o", "C")
    with pytest.raises(BadRequest, match="1048577"):
        wait(state.setState, objectid, "k", "x" * ((1 << 20) - 1))
    assert wait(state.getState, objectid, "k", "absent") == "absent"


# B3
def test_a_value_is_encoded_before_the_call_returns(state: StateConnector) -> None:
    objectid = wait(state.getObjectId, "o", "C")

    def set_and_change() -> Deferred[Any]:
        value = [1]
        setting = state.setState(objectid, "k", value)
        value.append(2)
        return setting

    wait(set_and_change)
    assert wait(state.getState, objectid, "k") == [1]


# --- What others trip over --------------------------------------------------------------------


# B3
def test_no_cache_of_an_earlier_connector_answers(
    master: Master, cluster: Cluster, namespace: str
) -> None:
    """``CacheManager`` finds caches by name, and the first who asks decides what fills them."""
    with cluster.client(namespace=f"{namespace}-1") as one:
        earlier = StateConnector(master.db.state, one)
        objectid = wait(earlier.getObjectId, "o", "C")
        wait(earlier.setState, objectid, "k", "earlier")
    with cluster.client(namespace=f"{namespace}-2") as two:
        later = StateConnector(master.db.state, two)
        assert wait(later.getObjectId, "o", "C") == objectid
        assert wait(later.getState, objectid, "k", "absent") == "absent"
        assert "objectids" in master.caches._caches, "the trap has moved"


# B3
def test_no_default_is_told_by_identity(state: StateConnector) -> None:
    assert StateConnector.Thunk is StateConnectorComponent.Thunk
    objectid = wait(state.getObjectId, "o", "C")
    for default in (None, 0, StateConnectorComponent):
        assert wait(state.getState, objectid, "k", default) is default
    with pytest.raises(KeyError, match="no such state value 'k' for object"):
        wait(state.getState, objectid, "k", StateConnectorComponent.Thunk)


# B3
def test_signatures_are_buildbots(state: StateConnector) -> None:
    for name in (
        "getObjectId",
        "getState",
        "setState",
        "atomicCreateState",
        "thdGetObjectId",
        "thdGetState",
        "thdSetState",
    ):
        assert parameters(getattr(state, name)) == parameters(getattr(state.stock, name)), name


# B3
def test_callers_may_yield_and_await(state: StateConnector) -> None:
    @inlineCallbacks
    def yielding() -> Any:
        objectid = yield state.getObjectId("o", "C")
        yield state.setState(objectid, "k", 1)
        created = yield state.atomicCreateState(objectid, "new", lambda: 2)
        got = yield state.getState(objectid, "k")
        return objectid, got, created

    async def awaiting() -> Any:
        objectid = await state.getObjectId("o", "C")
        await state.setState(objectid, "k", 1)
        created = await state.atomicCreateState(objectid, "new", lambda: 3)
        return objectid, await state.getState(objectid, "k"), created

    objectid = wait(state.getObjectId, "o", "C")
    assert wait(yielding) == (objectid, 1, 2)
    assert wait(lambda: Deferred.fromCoroutine(awaiting())) == (objectid, 1, 2)


class NoReactor:
    """Fails whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the reactor was asked for {name}")


# B3
def test_thread_methods_need_no_reactor(
    tmp_path: Path, template: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_master(tmp_path, template) as master:
        monkeypatch.setattr(master, "reactor", NoReactor())
        monkeypatch.setattr(master.db.pool, "reactor", NoReactor())
        state = StateConnector(master.db.state, client)
        with master.db.pool.engine.connect() as connection:
            objectid = state.thdGetObjectId(connection, "o", "C")["id"]
            state.thdSetState(connection, objectid, "k", [1])
            assert state.thdGetState(connection, objectid, "k") == [1]
            assert state.thdGetState(connection, objectid, "x", None) is None
            with pytest.raises(KeyError):
                state.thdGetState(connection, objectid, "x")
        assert stored(client, "o", "C") == {"k": b"[1]"}
        monkeypatch.undo()


class AtOnce:
    """As the reactor of Buildbot's tests: does at once what a thread asks for, on that thread."""

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N802
        function(*args, **kwargs)


# B3
def test_results_come_on_twisteds_reactor_whatever_the_masters_is(
    master: Master, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "reactor", AtOnce())
    state = StateConnector(master.db.state, client)
    sources = ChangeSourcesConnector(master.db.changesources, client)
    objectid = wait(state.getObjectId, "o", "C")

    @inlineCallbacks
    def threads() -> Any:
        found = []
        yield state.setState(objectid, "k", 1)
        found.append(threading.get_ident())
        yield state.getState(objectid, "k")
        found.append(threading.get_ident())
        yield sources.getChangeSources()
        found.append(threading.get_ident())
        return found

    assert set(wait(threads)) == {wait(threading.get_ident)}


# B3
def test_null_counts_as_missing_and_stays(state: StateConnector, client: Client) -> None:
    objectid = wait(state.getObjectId, "o", "C")
    wait(state.setState, objectid, "k", None)
    called: list[int] = []
    assert wait(state.atomicCreateState, objectid, "k", lambda: called.append(1) or 5) is None
    assert called == [1]
    assert stored(client, "o", "C") == {"k": b"null"}
    assert wait(state.getState, objectid, "k") is None


# B3
@pytest.mark.parametrize("length", [255, 256, 2000])
def test_long_names_are_cut_alike_in_all_methods(
    state: StateConnector, client: Client, length: int
) -> None:
    key = "n" * length
    cut = (
        key if length <= 255 else state.stock.ensureLength(state.db.model.object_state.c.name, key)
    )
    objectid = wait(state.getObjectId, "o" * length, "C")
    wait(state.setState, objectid, key, 1)
    assert wait(state.getState, objectid, key) == 1
    assert wait(state.atomicCreateState, objectid, key, lambda: 2) == 1
    with state.db.pool.engine.connect() as connection:
        assert state.thdGetState(connection, objectid, key) == 1
    name = rows(state.master, state.db.model.objects)[0][1]
    assert len(name) == 64 + 40
    assert stored(client, name, "C") == {cut: b"1"}
    assert len(cut) == (255 if length == 255 else 127 + 40)


# --- What a stand-in is for -------------------------------------------------------------------


# S4
def test_one_of_many_creates_and_all_get_that_value(
    tmp_path: Path, template: Path, cluster: Cluster, namespace: str
) -> None:
    masters = 5
    with cluster.client(namespace=namespace) as client:
        for attempt in range(scale(20, 2)):
            with_databases(tmp_path, template, client, masters, attempt)


def with_databases(
    tmp_path: Path, template: Path, client: Client, count: int, attempt: int
) -> None:
    with contextlib.ExitStack() as stack:
        states = []
        for nth in range(count):
            name = f"{attempt}-{nth}"
            master = stack.enter_context(running_master(tmp_path, template, name))
            # Ids differ from database to database; names do not.
            insert(master, master.db.model.objects, id=100 + nth, name="first", class_name="C")
            states.append(StateConnector(master.db.state, client))
        barrier = threading.Barrier(count, timeout=20)

        def create(state: StateConnector, nth: int) -> Deferred[Any]:
            def callback() -> int:
                barrier.wait()  # All have found nothing.
                return nth

            async def run() -> Any:
                objectid = await state.getObjectId(f"o{attempt}", "C")
                return objectid, await state.atomicCreateState(objectid, "k", callback)

            return Deferred.fromCoroutine(run())

        found = wait(lambda: gatherResults([create(s, n) for n, s in enumerate(states)]))
    assert sorted(objectid for objectid, _ in found) == [101 + nth for nth in range(count)]
    assert len({value for _, value in found}) == 1


# B4
def test_ids_mean_the_same_before_and_after(master: Master, state: StateConnector) -> None:
    insert(master, master.db.model.objects, id=77, name="o", class_name="C")
    before = wait(master.db.state.getObjectId, "o", "C")
    assert before == wait(state.getObjectId, "o", "C") == 77
    wait(state.setState, before, "k", "in the cluster")
    assert wait(state.getState, before, "k") == "in the cluster"
    assert wait(master.db.state.getState, before, "k", "nothing here") == "nothing here"


# B4
@pytest.mark.parametrize("key", ["lastCodebases", "upstream_bsids"])
def test_ids_of_local_rows_stay_local(
    master: Master, state: StateConnector, client: Client, key: str
) -> None:
    objectid = wait(state.getObjectId, "scheduler", "Dependent")
    wait(state.setState, objectid, key, [1, 2])
    assert wait(state.getState, objectid, key) == [1, 2]
    assert wait(master.db.state.getState, objectid, key) == [1, 2]
    with state.db.pool.engine.connect() as connection:
        assert state.thdGetState(connection, objectid, key) == [1, 2]
    assert wait(state.atomicCreateState, objectid, key, lambda: 3) == [1, 2]
    assert stored(client, "scheduler", "Dependent") == {}


class Fenced(StateConnector):
    """Writes under a claim."""

    under: Fence

    def fence(self, found: Any) -> Fence:  # noqa: ARG002
        return self.under


# S8
def test_writes_are_refused_once_their_claim_has_moved_on(master: Master, client: Client) -> None:
    engine, namespace = client.engine, client.namespace
    find = changesources_pb2.FindChangeSourceIdRequest(namespace=namespace, name="source")
    source = engine.write(calls.FIND_CHANGE_SOURCE_ID, find).result().changesource_id
    named = masters_pb2.FindMasterIdRequest(namespace=namespace, name="m")
    owner = engine.write(calls.FIND_MASTER_ID, named).result().master_id

    def give(master_id: int | None) -> int:
        request = changesources_pb2.SetChangeSourceMasterRequest(
            namespace=namespace, changesource_id=source, master_id=master_id
        )
        return engine.write(calls.SET_CHANGE_SOURCE_MASTER, request).result().token

    state = Fenced(master.db.state, client)
    state.under = Fence(changesource_id=source, token=give(owner))
    objectid = wait(state.getObjectId, "o", "C")
    wait(state.setState, objectid, "k", 1)
    give(None)
    give(owner)
    with pytest.raises(StaleFence):
        wait(state.setState, objectid, "k", 2)
    with pytest.raises(StaleFence):
        wait(state.atomicCreateState, objectid, "new", lambda: 2)
    assert stored(client, "o", "C") == {"k": b"1"}


# B2 G5
def test_nothing_connects_before_a_value_is_asked_for(master: Master) -> None:
    client = Client("127.0.0.1:1", deadline=0.5)
    state = StateConnector(master.db.state, client, deadline=0.5)
    objectid = wait(state.getObjectId, "o", "C")
    wait(state.setState, objectid, "upstream_bsids", [1])
    with pytest.raises(HoldfastError):
        wait(state.getState, objectid, "k", None)
    client.close()


# B2
def test_calls_take_their_deadline_and_no_longer(master: Master) -> None:
    client = Client("127.0.0.1:1")
    state = StateConnector(master.db.state, client, deadline=0.3)
    objectid = wait(state.getObjectId, "o", "C")
    began = time.monotonic()
    with pytest.raises(HoldfastError):
        wait(state.getState, objectid, "k", None)
    assert time.monotonic() - began < 0.3 + bound(0.5)
    client.close()


# S3
def test_of_two_writes_at_once_the_first_stands_and_both_learn_it(
    tmp_path: Path, template: Path, cluster: Cluster, namespace: str
) -> None:
    with contextlib.ExitStack() as stack:
        states = []
        for name in ("a", "b"):
            client = stack.enter_context(cluster.client(namespace=namespace))
            master = stack.enter_context(running_master(tmp_path, template, name))
            states.append(StateConnector(master.db.state, client))
        objectid = wait(states[0].getObjectId, "o", "C")
        assert wait(states[1].getObjectId, "o", "C") == objectid

        def write(attempt: int) -> Deferred[Any]:
            writes = [s.setState(objectid, "k", [attempt, n]) for n, s in enumerate(states)]
            return gatherResults(writes)

        lost = 0
        for attempt in range(scale(1000, 50)):
            told = wait(write, attempt)
            stands = [wait(state.getState, objectid, "k") for state in states]
            assert stands[0] == stands[1]
            for nth, value in enumerate(told):
                assert value in ([attempt, nth], stands[0])
                lost += value != [attempt, nth]
    assert lost > 0, "no two writes came at the same time"
    report("state written by two masters at once: told that the other's came first", lost)
