"""Transactions on a cluster: what a function sees, and that what it did is applied once (T4)."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import wait
from typing import Any

import pytest

from holdfast import Unavailable
from holdfast.stm import (
    BusyRetry,
    CodecError,
    CommitUncertain,
    ConcurrentUpdate,
    Content,
    Isolation,
    NothingRead,
    Plan,
    Store,
    Transaction,
    Writes,
)
from holdfast.stm.key import encode
from holdfast.stm.reading import until
from holdfast.stm.transaction import Interrupt, Run
from tests.stm.conftest import Stores, begin
from tests.stm.workers import is_applied
from tests.support.cluster import wait_until
from tests.support.scale import bound, report, scale

COMPARING = [level for level in Isolation if level is not Isolation.READ_COMMITTED]
SNAPSHOTS = [Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE]
THREADS = 8
INCREMENTS = scale(250, 12)


def put(store: Store, **values: Any) -> None:
    plan = Plan()
    for key, value in values.items():
        plan.put(key, Content.of(value))
    store.prepare(plan).commit()


def increment(transaction: Transaction) -> int:
    count: int = transaction.get("count", 0) + 1
    transaction.put("count", count)
    return count


def test_function_reads_what_is_there_and_what_it_wrote(store: Store) -> None:
    put(store, x=[1], gone=2)

    def function(transaction: Transaction) -> str:
        transaction.get("x").append("not put")
        assert transaction.get("x") == [1]
        transaction.put("x", (2,))
        transaction.delete("gone")
        assert transaction.get("x") == (2,)
        assert transaction.get("gone") is None
        assert transaction.get("absent", "default") == "default"
        return "returned"

    assert store.transact(function) == "returned"
    assert store.snapshot().values() == {"x": (2,)}


def test_nothing_is_written_when_the_function_raises(store: Store) -> None:
    def function(transaction: Transaction) -> None:
        transaction.put("x", 1)
        raise LookupError("by itself")

    with pytest.raises(LookupError, match="by itself"):
        store.transact(function)
    assert store.keys() == []


def test_value_that_cannot_be_encoded_is_the_functions_affair(store: Store) -> None:
    def function(transaction: Transaction) -> None:
        with pytest.raises(CodecError):
            transaction.put("x", threading.Lock())
        transaction.put("x", "instead")

    store.transact(function)
    assert store.usevar("x").value == "instead"


@pytest.mark.parametrize("isolation", COMPARING)
def test_no_update_of_several_threads_is_lost(store: Store, isolation: Isolation) -> None:
    runs = 0

    def counted(transaction: Transaction) -> int:
        nonlocal runs
        runs += 1
        return increment(transaction)

    def work() -> list[int]:
        return [store.transact(counted, isolation=isolation) for _ in range(INCREMENTS)]

    working = [begin(work) for _ in range(THREADS)]
    returned = [count for counts in working for count in counts.result(60)]
    assert sorted(returned) == list(range(1, THREADS * INCREMENTS + 1))
    count = store.usevar("count")
    assert (count.version, count.value) == (THREADS * INCREMENTS,) * 2
    # They stand in line, so that few run in vain.
    assert runs < 2 * THREADS * INCREMENTS


@pytest.mark.parametrize("isolation", Isolation)
def test_write_skew_is_only_there_where_it_may_be(store: Store, isolation: Isolation) -> None:
    """Two doctors go home if the other one stays: one of them has to."""
    put(store, a="on call", b="on call")
    both_read = threading.Barrier(2)

    def leave(own: str, other: str) -> None:
        first_run = True

        def function(transaction: Transaction) -> None:
            nonlocal first_run
            is_free = transaction.get(other) == "on call"
            if first_run:
                first_run = False
                both_read.wait(10)
            if is_free:
                transaction.put(own, "at home")

        store.transact(function, isolation=isolation, writes=Writes.CHANGED)

    for left in [begin(leave, *names) for names in ("ab", "ba")]:
        left.result(20)
    at_home = list(store.snapshot().values().values()).count("at home")
    assert at_home == (2 if isolation is Isolation.READ_COMMITTED else 1)


@pytest.mark.parametrize("isolation", Isolation)
def test_only_snapshots_never_see_what_never_was(stores: Stores, isolation: Isolation) -> None:
    """Somebody else writes both variables between the reads of them."""
    store, other = stores(), stores()
    put(other, x=1, y=1)
    seen: list[tuple[int, int]] = []

    def function(transaction: Transaction) -> None:
        x = transaction.get("x")
        if not seen:
            put(other, x=2, y=2)
            seen.append((0, 0))
        seen.append((x, transaction.get("y")))

    store.transact(function, isolation=isolation)
    assert seen[-1] == ((1, 2) if isolation is Isolation.READ_COMMITTED else (2, 2))
    assert ((1, 2) in seen) == (isolation not in SNAPSHOTS)


# What was read stays true while others write other variables.
def test_run_goes_on_if_what_it_read_still_holds(stores: Stores) -> None:
    store, other = stores(), stores()
    put(other, x=1, y=1)
    runs = 0

    def function(transaction: Transaction) -> tuple[int, int]:
        nonlocal runs
        runs += 1
        x = transaction.get("x")
        put(other, y=2)
        return x, transaction.get("y")

    assert store.transact(function) == (1, 2)
    assert runs == 1


# What it writes and has not read is compared with what it is when the function has returned.
def test_what_is_only_written_is_compared_once_it_is_read(store: Store) -> None:
    put(store, x=1)
    run = Run(store._reader, Isolation.SERIALIZABLE_SNAPSHOT, until(10))
    run.writes[encode("x")] = Content.of("mine")
    run.read_writes()
    commit = store.prepare(run.plan(Writes.ALL))
    put(store, x="theirs")
    with pytest.raises(ConcurrentUpdate, match="'x'"):
        commit.commit()


def test_function_that_swallows_an_interrupt_runs_again(stores: Stores) -> None:
    store, other = stores(), stores()
    put(other, x=1, y=1)
    runs = 0

    def function(transaction: Transaction) -> int:
        nonlocal runs
        runs += 1
        try:
            x = transaction.get("x")
            if runs == 1:
                put(other, x=2)
            transaction.get("absent")
        except Interrupt:
            x = 0
        transaction.put("y", x)
        return int(x)

    assert store.transact(function) == 2
    assert runs == 2
    assert store.usevar("y").value == 2


# T4: blocking retry, on a watch.
@pytest.mark.parametrize("watched", [1, 100])
def test_retry_waits_until_something_that_was_read_changes(stores: Stores, watched: int) -> None:
    store, other = stores(), stores()
    ended: list[float] = []

    def function(transaction: Transaction) -> Any:
        found = [transaction.get(("flag", number)) for number in range(watched)]
        ended.append(time.monotonic())
        if not any(found):
            transaction.put("x", "not written")
            transaction.retry()
        return found

    waiting = begin(store.transact, function, timeout=scale(2, 10))
    wait_until(lambda: ended, "it has run")
    # Longer than the time-out, which is for runs that others get in the way of.
    put(other, unread=1)
    assert not wait([waiting], scale(3, 0.2)).done
    changed = time.monotonic()
    plan = Plan().put(("flag", watched - 1), Content.of("set"))
    other.prepare(plan).commit()
    assert waiting.result(bound(2))[-1] == "set"
    assert len(ended) == 2
    took = (ended[1] - changed) * 1000
    report(f"stm in Python: retry wakes, {watched} variables", f"{took:.1f} ms")
    assert store.keys("x") == []


def test_change_that_came_before_the_wait_is_not_missed(stores: Stores) -> None:
    store, other = stores(), stores()
    runs = 0

    def function(transaction: Transaction) -> Any:
        nonlocal runs
        runs += 1
        flag = transaction.get("flag")
        if flag is None:
            put(other, flag="set", unread=1)
            transaction.retry()
        return flag

    assert begin(store.transact, function).result(20) == "set"
    assert runs == 2


# It was read at a later revision than the rest, and is told of from the earliest on.
def test_change_that_was_read_is_none_to_wake_for(stores: Stores) -> None:
    store, other = stores(), stores()
    put(other, x=1)
    runs = 0

    def function(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        if transaction.get("x") == 1:
            if runs == 1:
                put(other, y=1)
            transaction.get("y")
            transaction.retry()

    waiting = begin(store.transact, function)
    assert not wait([waiting], 0.2).done
    assert runs == 1
    put(other, x=2)
    waiting.result(20)
    assert runs == 2


def test_retry_of_what_has_read_nothing_is_refused(store: Store) -> None:
    with pytest.raises(NothingRead):
        store.transact(lambda transaction: transaction.retry())


# The last run may get no answer in what is left of the time, and then nobody knows; but it was
# overtaken as well.
def test_transaction_that_others_always_overtake_ends_in_time(stores: Stores) -> None:
    store, other = stores(), stores()
    overtaken = 0

    def function(transaction: Transaction) -> None:
        nonlocal overtaken
        count = transaction.get("count", 0)
        while not is_applied(functools.partial(other.transact, increment)):
            pass
        overtaken += 1
        transaction.put("count", count)

    begun = time.monotonic()
    with pytest.raises((ConcurrentUpdate, BusyRetry, CommitUncertain, Unavailable)):
        store.transact(function, timeout=0.3)
    assert 0.2 < time.monotonic() - begun < bound(2)
    count = other.usevar("count")
    assert (count.version, count.value) == (overtaken,) * 2


def test_only_changes_are_written_if_asked(store: Store) -> None:
    put(store, x=1)

    def function(transaction: Transaction) -> None:
        transaction.put("x", 1)
        transaction.put("y", 1)

    store.transact(function, writes=Writes.CHANGED)
    assert [found.version for found in store.versions().variables] == [1, 1]
    store.transact(function)
    assert [found.version for found in store.versions().variables] == [2, 2]


def test_delete_says_whether_it_was_there(store: Store) -> None:
    put(store, x=1)
    assert store.delete("x")
    assert not store.delete("x")
    revision = store.read().revision
    assert not store.delete("x")
    assert store.read().revision == revision, "nothing to write"


# T5: all of it at one revision, whatever is committed meanwhile.
def test_snapshots_are_of_one_revision(stores: Stores) -> None:
    store, other = stores(), stores()
    over = threading.Event()

    def write() -> int:
        rounds = 0
        while not over.is_set():
            rounds += 1
            put(other, a=rounds, b=rounds, c=rounds)
        return rounds

    writing = begin(write)
    try:
        seen = set()
        while len(seen) < scale(200, 20):
            values = store.snapshot().values()
            assert len(set(values.values())) <= 1, values
            seen.update(values.values())
    finally:
        over.set()
    assert writing.result(10) >= len(seen)


# The inner function reads through the transaction that it is inside of, which cannot go on.
def test_interrupt_ends_the_transaction_that_it_is_of(stores: Stores) -> None:
    store, other = stores(), stores()
    put(other, x=1)
    runs = {"outer": 0, "inner": 0, "reached": 0}

    def outer(transaction: Transaction) -> int:
        runs["outer"] += 1
        x: int = transaction.get("x")
        if runs["outer"] == 1:
            put(other, x=2)

        def inner(inner_transaction: Transaction) -> None:
            runs["inner"] += 1
            inner_transaction.put("y", transaction.get("absent"))

        store.transact(inner)
        runs["reached"] += 1
        return x

    assert store.transact(outer) == 2
    assert runs == {"outer": 2, "inner": 2, "reached": 1}


# For speed alone: a transaction inside another one on the same variables still ends.
def test_transaction_inside_a_transaction_goes_on(store: Store) -> None:
    runs = 0

    def outer(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        transaction.put("outer", transaction.get("count", 0))
        if runs <= 2:
            store.transact(increment)

    store.transact(outer)
    assert store.snapshot().values() == {"count": 2, "outer": 2}
