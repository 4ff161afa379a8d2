"""Large collections, many writers, and a cluster that goes away."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time

from gc3libs.persistence.store import make_store
from gc3libs.session import Session

from tests.gc3.conftest import url_of
from tests.gc3.tasks import Echo, Job, collection
from tests.support.scale import bound, report, scale, summary

TASKS = 1_000
WRITERS = scale(32, 8)


# A collection of 1,001 objects: saved in a second, loaded in half of one.
def test_large_collection(store, url):
    store.save(Job("opens the session"))
    saves, loads = [], []
    for _ in range(scale(10, 2)):
        tasks = collection(TASKS)
        gc.collect()
        began = time.monotonic()
        id_ = store.save(tasks)
        saves.append(time.monotonic() - began)
        fresh = make_store(url)
        fresh.list(state="nothing")
        gc.collect()
        began = time.monotonic()
        found = fresh.load(id_)
        loads.append(time.monotonic() - began)
        assert len(found.tasks) == TASKS
    report(f"GC3Pie collection of {TASKS + 1} objects, save", summary(saves))
    report(f"GC3Pie collection of {TASKS + 1} objects, load", summary(loads))
    assert sorted(saves)[len(saves) // 2] < bound(1.0)
    assert sorted(loads)[len(loads) // 2] < bound(0.5)


def write(url, count, results):
    """What a writer does: saves tasks, and saves each again."""
    store = make_store(url)
    try:
        tasks = [Echo(str(nth)) for nth in range(count)]
        for task in tasks:
            store.save(task)
        for task in tasks:
            task.execution.state = "SUBMITTED"
            store.save(task)
        results.put([task.persistent_id for task in tasks])
    except Exception as error:
        results.put(error)


# P1: many processes save at once, and none fails.
def test_many_writers(store, url):
    store.save(Job("the writers inherit an open store"))
    count = scale(50, 10)
    forks = multiprocessing.get_context("fork")
    results = forks.Queue()
    writers = [
        forks.Process(target=write, args=(url, count, results), daemon=True) for _ in range(WRITERS)
    ]
    began = time.monotonic()
    for writer in writers:
        writer.start()
    found = [results.get(timeout=bound(60)) for _ in writers]
    took = time.monotonic() - began
    for writer in writers:
        writer.join()
    failures = [result for result in found if isinstance(result, Exception)]
    assert failures == []
    ids = {id_ for result in found for id_ in result}
    assert len(ids) == WRITERS * count
    assert store.list(state="SUBMITTED") == sorted(ids)
    report(f"{WRITERS} processes save {2 * WRITERS * count} times", f"{took:.1f} s, 0 failures")


# P6: GC3Pie's session swallows errors of loads, and would forget what it could not load.
def test_session_loads_all_of_it_although_the_cluster_was_away(faulty_cluster, namespace, tmp_path):
    session = Session(str(tmp_path / "s"), store_or_url=url_of(faulty_cluster, namespace))
    for nth in range(scale(100, 20)):
        session.add(Echo(str(nth)), flush=False)
    session.flush()
    index = (tmp_path / "s/session_ids.txt").read_text()
    faulty_cluster.down()
    loaded = []
    loader = threading.Thread(target=lambda: loaded.append(Session(str(tmp_path / "s"))))
    loader.start()
    away = scale(20, 2)
    loader.join(away)
    assert loader.is_alive()
    faulty_cluster.up()
    began = time.monotonic()
    loader.join(bound(10))
    (again,) = loaded
    report(f"session loaded after an outage of {away} s", f"{time.monotonic() - began:.1f} s later")
    assert list(again.tasks) == list(session.tasks)
    again.flush()
    assert (tmp_path / "s/session_ids.txt").read_text() == index
