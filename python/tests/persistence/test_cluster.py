"""Objects on a cluster: what is sent, what is waited for, and what faults leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time

import pytest

from holdfast import Applied, Unavailable
from holdfast._engine import calls, task
from holdfast._engine.engine import Engine
from holdfast._wire.cluster_pb2 import CloseSessionRequest
from holdfast._wire.objects_pb2 import AbandonUploadRequest
from holdfast.persistence import (
    ClusterStore,
    LoadError,
    Object,
    StoreRefused,
    StoreUnavailable,
    UnissuedId,
    UnsteadyTree,
    make_store,
)
from holdfast.persistence.cluster import load as loading
from holdfast.persistence.cluster import upload as uploading
from holdfast.persistence.cluster.location import WAIT
from holdfast.persistence.cluster.pieces import Queue
from holdfast.persistence.record import BODY_BYTES_MAX
from tests.persistence.classes import Job
from tests.support.cluster import wait_until
from tests.support.proxy import Flow, Proxy
from tests.support.scale import bound, report, scale


@pytest.fixture
def sent(monkeypatch):
    """The names of the calls that are made, one by one."""
    names = []

    def counted(method):
        def call(self, rpc, *args, **kwargs):
            names.append(rpc.name)
            return method(self, rpc, *args, **kwargs)

        return call

    for name in ("write", "stream", "exchange"):
        monkeypatch.setattr(Engine, name, counted(getattr(Engine, name)))
    return names


def tree(depth, breadth):
    """A root and so many levels below it, each with so many objects."""
    level = [Job("leaf") for _ in range(breadth)]
    for _ in range(depth - 1):
        level = [Job("node", *level) for _ in range(breadth)]
    return Job("root", *level)


def link_of(store):
    """What this process has of a store."""
    return store._backend._links.get()


def only_these(store):
    """Lets a store know no other nodes than those of its URI."""
    link_of(store).engine.runtime.pool._add = lambda *_, **__: None


# P3
def test_small_save_is_one_request_and_a_load_one_a_level(open_cluster, sent):
    store = open_cluster()
    store.save(Job("takes the first ids"))
    sent.clear()
    id_ = store.save(tree(4, 5))
    assert sent == ["SaveObjects"]
    sent.clear()
    assert open_cluster().load(id_).command == "root"
    assert sent == ["LoadObjects"] * 5
    # What is in use is not asked for again.
    first = store.load(id_)
    sent.clear()
    assert store.load(id_) is first
    assert sent == []


# P3 G9
def test_level_of_more_than_a_request_may_ask_for(open_cluster, sent, monkeypatch):
    id_ = open_cluster().save(Job("root", *[Job(str(nth)) for nth in range(25)]))
    monkeypatch.setattr(loading, "_IDS_MAX", 10)
    sent.clear()
    assert [child.command for child in open_cluster().load(id_).children] == [*map(str, range(25))]
    assert sent == ["LoadObjects"] * 4


# P1
def test_reserved_ids_need_no_request(open_cluster, sent):
    store = open_cluster()
    store.reserve(1000)
    for _ in range(3):
        store.save(Job("", *[Job() for _ in range(300)]))
    assert sent == ["LeaseIds"] + ["SaveObjects"] * 3


# P3 G9: the limits of one request, and what is beyond.
@pytest.mark.parametrize(
    ("children", "body", "is_small"),
    [(1023, 0, True), (1024, 0, False), (1, (1 << 20) - 1000, True), (1, 1 << 20, False)],
)
def test_limits_of_one_request(open_cluster, sent, children, body, is_small):
    root = Object("R", bytes(body), children=[Object("C") for _ in range(children)])
    id_ = open_cluster().save(root)
    assert ("SaveObjects" in sent, "CommitUpload" in sent) == (is_small, not is_small)
    found = open_cluster().load(id_)
    assert (len(found.children), len(found.body)) == (children, body)


# P3 G9
def test_large_object(open_cluster):
    body = os.urandom(scale(BODY_BYTES_MAX, BODY_BYTES_MAX // 8))
    began = time.monotonic()
    id_ = open_cluster().save(Object("Largest", body))
    saved = time.monotonic()
    assert open_cluster().load(id_).body == body
    loaded = time.monotonic()
    size = f"{len(body) >> 20} MiB"
    report(f"save of {size} from Python", f"{saved - began:.1f} s")
    report(f"load of {size} into Python", f"{loaded - saved:.1f} s")


# P3: staged pieces survive their streams.
def test_upload_goes_on_after_its_stream_broke(cluster, namespace, sent):
    body = os.urandom(scale(32, 5) << 20)
    cuts = 0
    with Proxy(cluster.endpoints[0]) as proxy:
        store = ClusterStore(f"holdfast://{proxy.address}/{namespace}")
        only_these(store)
        saving = threading.Thread(target=store.save, args=(Object("Big", body),))
        saving.start()
        while saving.is_alive():
            enough = proxy.bytes_up + (3 << 20)

            def has_gone_on(enough=enough):
                return not saving.is_alive() or proxy.bytes_up > enough

            wait_until(has_gone_on, "the upload goes on")
            if saving.is_alive():
                proxy.cut()
                cuts += 1
        saving.join()
    assert cuts >= 1
    assert sent.count("Upload") > cuts
    assert sent.count("CommitUpload") == 1
    direct = ClusterStore(f"holdfast://{cluster.text}/{namespace}")
    (id_,) = direct.list()
    assert direct.load(id_).body == body


# P3 P6: a silent node does not hold an upload up.
def test_upload_goes_on_at_another_node(cluster, namespace, monkeypatch):
    monkeypatch.setattr(uploading, "_SILENCE_MAX", scale(uploading._SILENCE_MAX, 1.0))
    body = os.urandom(8 << 20)
    # The leader would be asked first.
    other = cluster.nodes[cluster.followers()[0]]["endpoint"]
    with Proxy(cluster.endpoints[0]) as proxy:
        uri = f"holdfast://{proxy.address}/{namespace}?peers={other}"
        store = ClusterStore(uri)
        only_these(store)
        store.save(Job("the first node is asked"))
        saving = threading.Thread(target=store.save, args=(Object("Big", body),))
        saving.start()
        wait_until(lambda: proxy.bytes_up > 1 << 20, "the upload is on its way")
        proxy.down = Flow.HOLD
        assert proxy.bytes_up < len(body)
        saving.join(bound(20))
        assert not saving.is_alive()
    direct = ClusterStore(f"holdfast://{cluster.text}/{namespace}")
    (id_,) = direct.list(class_name="Big")
    assert direct.load(id_).body == body


def test_upload_that_lapsed_is_begun_anew(open_cluster, namespace, monkeypatch, sent):
    commit = uploading._Upload.commit

    def lapse(self):
        monkeypatch.setattr(uploading._Upload, "commit", commit)
        request = AbandonUploadRequest(namespace=f"{namespace}-store", upload_id=self._upload_id)
        assert self._link.write(calls.ABANDON_UPLOAD, request).abandoned
        commit(self)

    monkeypatch.setattr(uploading._Upload, "commit", lapse)
    id_ = open_cluster().save(Object("Big", bytes(2 << 20)))
    assert sent.count("CommitUpload") == 2
    assert len(open_cluster().load(id_).body) == 2 << 20


# G9: what is refused at last is not left lying in the cluster.
def test_upload_that_is_refused_is_abandoned(open_cluster, sent):
    foreign = Object("Big", bytes(2 << 20))
    foreign.persistent_id = "9999999999999999"
    with pytest.raises(UnissuedId):
        open_cluster().save(foreign)
    assert sent[-1] == "AbandonUpload"


# P6: what counts is the time without progress.
def test_slow_upload_is_not_given_up(open_cluster, monkeypatch):
    class Clock:
        """Half of the wait passes whenever somebody looks."""

        now = 0.0

        @classmethod
        def monotonic(cls):
            cls.now += WAIT / 2
            return cls.now

        @staticmethod
        def sleep(_):
            pass

    def send_one(self, queue):
        """Sends until one more piece is answered."""
        enough = queue.answered + 1

        def answer_one(number):
            if queue.answered == enough:
                raise Unavailable("cut")
            return Queue.answer(queue, number)

        queue.answer = answer_one
        send(self, queue)

    send = uploading._Upload._send
    monkeypatch.setattr(uploading._Upload, "_send", send_one)
    monkeypatch.setattr(uploading, "time", Clock)
    body = os.urandom(5 << 20)
    id_ = open_cluster().save(Object("Big", body))
    assert Clock.now > 5 * WAIT
    assert open_cluster().load(id_).body == body


# G4
def test_expired_session_does_not_fail_a_save(open_cluster):
    store = open_cluster()
    store.save(Job("opens the session"))
    engine = link_of(store).engine
    session = task.start(engine.runtime.sessions.current(engine.until(None))).result()
    engine.read(calls.CLOSE_SESSION, CloseSessionRequest(session_id=session.id)).result()
    id_ = store.save(Job("in another session"))
    assert open_cluster().load(id_).command == "in another session"


def between_levels(monkeypatch, act):
    """Lets something happen after each request of a load."""
    fetch = loading._fetch

    def disturbed(link, asked):
        level = fetch(link, asked)
        act(asked)
        return level

    monkeypatch.setattr(loading, "_fetch", disturbed)


# P3: what is loaded is true at one revision.
def test_tree_that_changes_while_it_is_loaded(open_cluster, monkeypatch):
    writer = open_cluster()
    child = Job("0")
    root = Job("0", child)
    id_ = writer.save(root)

    def rewrite(_):
        root.command = child.command = str(int(root.command) + 1)
        root.changed = child.changed = True
        writer.save(root)

    changes = []

    def rewrite_thrice(asked):
        if len(changes) < 3:
            changes.append(asked)
            rewrite(asked)

    with monkeypatch.context() as patched:
        between_levels(patched, rewrite_thrice)
        found = open_cluster().load(id_)
    assert found.command == found.children[0].command
    assert len(changes) == 3
    between_levels(monkeypatch, rewrite)
    with pytest.raises(UnsteadyTree, match=f"{id_}.*16 times"):
        open_cluster().load(id_)


# P3: a child that is removed together with the reference to it is not missed.
def test_child_that_goes_while_it_is_loaded(open_cluster, monkeypatch):
    writer = open_cluster()
    root = Job("root", Job("child"))
    id_ = writer.save(root)

    def drop_child(_):
        while root.children:
            gone = root.children.pop()
            root.changed = True
            writer.save(root)
            writer.remove(gone.persistent_id)

    between_levels(monkeypatch, drop_child)
    assert open_cluster().load(id_).children == []


# P5
def test_nothing_is_sent_before_the_first_call():
    with Proxy("127.0.0.1:1") as proxy:
        store = make_store(f"holdfast://{proxy.address}/n?timeout_s=0.3")
        assert isinstance(store, ClusterStore)
        assert proxy.connections == 0
        with pytest.raises(StoreUnavailable):
            store.list()
        assert proxy.connections > 0


# P5 P6
def test_cluster_that_is_not_there_is_named_and_never_a_load_error():
    store = make_store("holdfast://127.0.0.1:1/n?timeout_s=0.3")
    for act in (
        lambda: store.load("1000000000000000"),
        lambda: store.save(Job("x")),
        lambda: store.save(Object("Big", bytes(2 << 20))),
        lambda: store.remove("1000000000000000"),
        lambda: store.list(),
        lambda: store.reserve(1),
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1.*refused") as error:
            act()
        assert not isinstance(error.value, LoadError)
        assert error.value.applied is Applied.NO
        assert 0.3 <= error.value.waited <= time.monotonic() - began < bound(2)


# G5: a save whose answer is lost may have been carried out, and says so.
def test_save_without_an_answer_is_unknown(cluster, namespace):
    with Proxy(cluster.endpoints[0]) as proxy:
        store = ClusterStore(f"holdfast://{proxy.address}/{namespace}?timeout_s=1")
        only_these(store)
        job = Job("x")
        store.save(job)
        proxy.down = Flow.DROP
        with pytest.raises(StoreUnavailable) as error:
            store.save(job)
        assert error.value.applied is Applied.UNKNOWN
        # What comes before a save changes nothing that anybody sees.
        with pytest.raises(StoreUnavailable) as error:
            store.reserve(3)
        assert error.value.applied is Applied.NO


# G11
def test_refusal_names_what_is_wrong(cluster):
    store = ClusterStore(f"holdfast://{cluster.text}/{'n' * 1025}")
    with pytest.raises(StoreRefused, match="1025"):
        store.save(Job("x"))


# P6
def test_outage_is_waited_for(faulty_cluster, namespace):
    store = ClusterStore(f"holdfast://{faulty_cluster.text}/{namespace}")
    id_ = store.save(Job("root", *[Job(str(nth)) for nth in range(100)]))
    faulty_cluster.down()
    found = []

    def load():
        found.append(ClusterStore(f"holdfast://{faulty_cluster.text}/{namespace}").load(id_))

    loader = threading.Thread(target=load)
    loader.start()
    loader.join(scale(20, 1))
    assert loader.is_alive(), found
    faulty_cluster.up()
    loader.join(bound(5))
    assert len(found[0].children) == 100
    store.save(found[0])


# P3 N5: nothing is lost or torn when leaders die under large saves.
def test_saves_go_on_when_the_leader_dies(faulty_cluster, namespace):
    uri = f"holdfast://{faulty_cluster.text}/{namespace}"
    bodies = {}
    is_over = threading.Event()

    def save():
        store = ClusterStore(uri)
        while not is_over.is_set():
            body = os.urandom(3 << 20)
            bodies[store.save(Object("Big", body, children=[Object("C") for _ in range(9)]))] = body

    savers = [threading.Thread(target=save) for _ in range(2)]
    for saver in savers:
        saver.start()
    for _ in range(scale(5, 1)):
        before = len(bodies)
        wait_until(lambda before=before: len(bodies) > before, "saves go on", bound(10))
        leader = faulty_cluster.leader()
        faulty_cluster.local("kill", leader)
        wait_until(lambda before=before: len(bodies) > before + 3, "saves go on", bound(10))
        faulty_cluster.local("start", leader)
    is_over.set()
    for saver in savers:
        saver.join()
    store = ClusterStore(uri)
    assert store.list(class_name="Big") == sorted(bodies)
    for id_, body in bodies.items():
        found = store.load(id_)
        assert (found.body == body, len(found.children)) == (True, 9)


# P1 P4 G4
def test_ids_over_a_fork(open_cluster):
    store = open_cluster()
    count = scale(300, 50)
    mine = [store.save(Job("before"))]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            theirs = [store.save(Job(str(nth))) for nth in range(count)]
            os.write(writing, json.dumps([theirs, store.load(mine[0]).command]).encode())
        os._exit(0)
    os.close(writing)
    mine += [store.save(Job(str(nth))) for nth in range(count)]
    with open(reading, "rb") as answer:
        theirs, command = json.loads(answer.read())
    os.waitpid(child, 0)
    assert command == "before"
    assert len({*mine, *theirs}) == 2 * count + 1
    assert store.list() == sorted([*mine, *theirs])


# P1 P2: the command line reads and writes the same objects.
def test_command_line_reads_and_writes_the_same(cluster, namespace, open_cluster, tmp_path):
    store = open_cluster()
    id_ = store.save(Object("Report", b"from Python", metadata={"state": "NEW"}))
    where = ("--namespace", f"{namespace}-store")
    assert cluster.run("object", "load", id_, *where) == "from Python"
    file = tmp_path / "file"
    file.write_bytes(b"from a shell")
    arguments = ("--class", "Report", "--meta", "state=DONE", *where)
    saved = cluster.run("object", "save", str(file), *arguments).strip()
    assert store.list(class_name="Report") == [id_, saved]
    found = store.load(saved)
    assert (found.body, found.metadata) == (b"from a shell", {"state": "DONE"})


# P2
def test_long_lists_come_in_order(open_cluster):
    store = open_cluster()
    count = scale(20_000, 3_000)
    store.reserve(count)
    children = [Object("Item", metadata={"odd": str(nth % 2)}) for nth in range(count)]
    store.save(Object("Root", children=children))
    ids = store.list(class_name="Item")
    assert ids == sorted({child.persistent_id for child in children})
    assert list(store.ids(odd="1")) == ids[1::2]
