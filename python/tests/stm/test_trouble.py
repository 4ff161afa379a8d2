"""Transactions while things fail: nothing is lost, and nothing is applied twice (T2, T3, T4)."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Callable

import pytest

from holdfast import Client, Unavailable
from holdfast.stm import BusyRetry, CommitUncertain, Store, Transaction, Writes
from tests.stm import workers
from tests.stm.conftest import Stores, begin
from tests.stm.workers import (
    ACCOUNTS,
    commit_certainly,
    in_child,
    increment,
    is_applied,
    settle,
    spawn,
)
from tests.support.cluster import Cluster, wait_until
from tests.support.hidden import HiddenCluster
from tests.support.proxy import Flow, Proxy
from tests.support.scale import bound, report, scale

PROCESSES = 8
AT_FIRST = 1_000
LOSSES = scale(200, 10)
PHILOSOPHERS = 5
KILLS = scale(20, 1)
PROGRESS = scale(40, 10)
"""What has to be done between two kills."""


def kill_leaders(cluster: Cluster, progress: Callable[[], int]) -> None:
    """Kills one leader after the other, each once work goes on after the last."""

    def has_come_to(enough: int) -> bool:
        return progress() >= enough

    for _ in range(KILLS):
        leader = cluster.leader()
        cluster.local("kill", leader)
        enough = progress() + PROGRESS
        wait_until(functools.partial(has_come_to, enough), "work goes on without it", 60)
        cluster.local("start", leader)


@pytest.fixture
def faulty_stores(faulty_cluster: Cluster, namespace: str) -> Iterator[Stores]:
    made: list[Store] = []

    def make(**options: float) -> Store:
        made.append(Store(faulty_cluster.client(namespace=namespace, **options)))
        return made[-1]

    yield make
    for store in made:
        with contextlib.suppress(Unavailable):  # of nodes that the test has stopped
            store.client.close()


# T2 T3 T4
def test_no_update_of_eight_processes_is_lost(
    faulty_cluster: Cluster, faulty_stores: Stores, namespace: str
) -> None:
    store = faulty_stores()
    accounts = store.using(*[("account", number) for number in range(ACCOUNTS)])
    for account in accounts.values():
        account.set(AT_FIRST)
    accounts.commit()

    def transfers() -> int:
        return sum(store.snapshot(("transfers",)).values().values())

    with spawn.Manager() as manager, ProcessPoolExecutor(PROCESSES, spawn) as processes:
        over = manager.Event()
        move = functools.partial(workers.move_money, faulty_cluster.endpoints, namespace, over=over)
        moving = [processes.submit(move, number) for number in range(PROCESSES)]
        try:
            wait_until(lambda: transfers() >= PROCESSES, "all have begun")
            kill_leaders(faulty_cluster, transfers)
        finally:
            over.set()
        made = [each.result(60) for each in moving]
    counted = store.snapshot(("transfers",))
    assert [found.version for found in counted.variables] == made
    assert list(counted.values().values()) == made
    assert sum(store.snapshot(("account",)).values().values()) == AT_FIRST * ACCOUNTS
    report(
        "stm in Python: 8 processes under leader kills",
        f"{sum(made)} transfers, {KILLS} kills; the sum is kept, each transfer counted once",
    )


# T4: nobody starves, nobody waits for ever, and no fork is in two hands.
def test_philosophers_all_eat(faulty_cluster: Cluster, faulty_stores: Stores) -> None:
    over = threading.Event()
    eaten = [0] * PHILOSOPHERS

    def forks(number: int) -> list[tuple[str, int]]:
        return [("fork", number), ("fork", (number + 1) % PHILOSOPHERS)]

    def take(number: int, transaction: Transaction) -> None:
        for fork in forks(number):
            if transaction.get(fork) is not None:
                transaction.retry()  # until a neighbour has put one back
            transaction.put(fork, number)

    def put_back(number: int, transaction: Transaction) -> None:
        for fork in forks(number):
            assert transaction.get(fork) == number, "a fork is in two hands"
            transaction.delete(fork)
        transaction.put(("meals", number), transaction.get(("meals", number), 0) + 1)

    def dine(number: int) -> None:
        store = faulty_stores()
        rng = random.Random(number)
        transact = functools.partial(store.transact, writes=Writes.CHANGED)
        taking = functools.partial(transact, functools.partial(take, number))
        putting_back = functools.partial(transact, functools.partial(put_back, number))
        while not over.is_set():
            if is_applied(taking):
                over.wait(rng.uniform(0, workers.PACE))
                while not is_applied(putting_back):
                    pass
                eaten[number] += 1

    dining = [begin(dine, number) for number in range(PHILOSOPHERS)]
    try:
        kill_leaders(faulty_cluster, lambda: sum(eaten))
        wait_until(lambda: min(eaten) > 0, "nobody starves", 60)
    finally:
        over.set()
    for each in dining:
        each.result(60)
    left = faulty_stores().snapshot()
    assert left.values() == {("meals", number): count for number, count in enumerate(eaten)}
    report("stm in Python: philosophers under leader kills", f"meals {eaten}, {KILLS} kills")


# B2 G4: connections and sessions are not shared, and locks that threads hold do not stay held.
def test_store_that_is_open_goes_on_after_a_fork(
    cluster: Cluster, store: Store, namespace: str
) -> None:
    children, rounds = scale((16, 100), (4, 10))
    with ProcessPoolExecutor(1, spawn) as processes:
        counting = processes.submit(
            workers.count_in_children, cluster.endpoints, namespace, children, rounds
        )
        expected = counting.result(120)
    count = store.usevar("count")
    assert (count.version, count.value) == (expected, expected)


class Losses:
    """Has proxies lose requests and answers, again and again, and breaks their connections."""

    def __init__(self, proxies: list[Proxy], seed: int) -> None:
        self.times = 0
        """How often it has broken them."""
        self._proxies = proxies
        self._rng = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._lose, daemon=True)

    def __enter__(self) -> Losses:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _lose(self) -> None:
        while not self._over.wait(self._rng.uniform(0, 0.02)):
            # All of them every other time, as else one will do.
            for proxy in self._rng.choice([self._proxies, self._rng.choices(self._proxies)]):
                proxy.up = self._rng.choice([Flow.PASS, Flow.DROP])
                proxy.down = Flow.DROP
            self._over.wait(self._rng.uniform(0.1, 0.4))
            for proxy in self._proxies:
                proxy.cut()
                proxy.up = proxy.down = Flow.PASS
            self.times += 1


# T3 G5
def test_commits_through_a_lossy_network_settle_exactly_once(
    hidden_cluster: HiddenCluster, namespace: str
) -> None:
    with contextlib.ExitStack() as clients:

        def store(client: Client) -> Store:
            return Store(clients.enter_context(client))

        direct = store(hidden_cluster.direct_client(namespace=namespace))
        # So short that many outcomes are unknown when it is over.
        hasty = store(hidden_cluster.client(namespace=namespace, deadline=0.1))
        commits = uncertain = counted = 0
        copy = direct.usevar("copied")
        copy.store = hasty
        with Losses(hidden_cluster.proxies, seed=3) as losses:
            while losses.times < LOSSES:
                commits += 1
                copy.set(commits)
                uncertain += commit_certainly(copy)
                assert copy.version == commits
                is_counted, times = settle(functools.partial(hasty.transact, increment))
                counted += is_counted
                uncertain += times
        found = direct.read("copied", "count").variables
    assert [(one.version, one.value) for one in found] == [(commits,) * 2, (counted,) * 2]
    assert uncertain > 0
    assert counted > LOSSES
    report(
        "stm in Python: a lossy network",
        f"{commits + counted} commits, losses {LOSSES} times, {uncertain} times uncertain; "
        "each applied once",
    )


def pause(cluster: Cluster, nodes: list[str]) -> None:
    for node in nodes:
        cluster.local("pause", node)


# T3: and what the copy was made to hold meanwhile is committed on top.
def test_uncertain_commit_is_settled_by_committing_again(
    faulty_cluster: Cluster, faulty_stores: Stores
) -> None:
    # Each has a session; who has no more can do nothing that would be uncertain.
    copy, same, other = (faulty_stores(deadline=1.0).usevar(key) for key in "xyz")
    store = faulty_stores()
    for each in (copy, same, other):
        commit_certainly(each)
    pause(faulty_cluster, faulty_cluster.followers())
    for each in (copy, same, other):
        each.set("uncertain")
    for committing in [begin(each.commit) for each in (copy, same, other)]:
        with pytest.raises(CommitUncertain, match="commit again to settle it"):
            committing.result(60)
    assert [each.version for each in (copy, same, other)] == [1, 1, 1]
    copy.set("on top")
    # It knows nothing of the commit, which is not settled by it.
    clone = other.clone()
    faulty_cluster.local("resume")
    begin(commit_certainly, copy).result(60)
    assert (copy.version, store.usevar("x").value) == (3, "on top")
    begin(commit_certainly, same).result(60)
    assert (same.version, store.usevar("y").value) == (2, "uncertain")
    begin(commit_certainly, other).result(60)
    assert not is_applied(clone.commit)
    assert store.usevar("z").version == 2


# T3 G4: whoever has not sent it cannot settle it, and says so.
def test_uncertain_commit_is_not_settled_by_a_forks_child(
    faulty_cluster: Cluster, faulty_stores: Stores, namespace: str
) -> None:
    with ProcessPoolExecutor(1, spawn) as processes:
        processes.submit(
            settle_in_child, faulty_cluster.endpoints, namespace, faulty_cluster
        ).result(120)
    assert faulty_stores().usevar("x").version == 2


def settle_in_child(endpoints: list[str], namespace: str, cluster: Cluster) -> None:
    store = Store(Client(endpoints, namespace=namespace, deadline=1.0))
    copy = store.usevar("x")
    commit_certainly(copy)
    pause(cluster, cluster.followers())
    with pytest.raises(CommitUncertain):
        copy.commit()
    parent = os.getpid()

    def in_vain() -> None:
        with pytest.raises(CommitUncertain, match=f"process {parent} has sent it"):
            copy.commit()

    cluster.local("resume")
    assert os.waitpid(in_child(in_vain), 0)[1] == 0
    commit_certainly(copy)
    assert copy.version == 2


# T3: definitely not applied, within the budget; also if an answer is on its way for longer than the
# moment by which a node gives it early.
def test_commit_without_a_leader_is_busy_within_its_budget(
    hidden_cluster: HiddenCluster, namespace: str
) -> None:
    budget = bound(0.25)
    with hidden_cluster.client(namespace=namespace, deadline=10.0) as client:
        copy = Store(client, budget=budget).usevar("x")
        commit_certainly(copy)
        left = (hidden_cluster.leader() + 1) % 3
        for node, proxy in enumerate(hidden_cluster.proxies):
            if node == left:
                proxy.delay = 0.01
            else:
                proxy.refuse()
                hidden_cluster.signal(node, signal.SIGKILL)

        def knows_a_leader() -> bool:
            return bool(client.cluster.status(hidden_cluster.direct[left]).header.leader_id)

        wait_until(lambda: not knows_a_leader(), "it has noticed", 60)
        begun = time.monotonic()
        with pytest.raises(BusyRetry, match="busy, nothing was committed"):
            copy.commit()
        took = time.monotonic() - begun
        assert 0.8 * budget < took < 2 * budget
        report("stm in Python: busy without a leader", f"{took * 1000:.0f} ms")
        hidden_cluster.mend()
        commit_certainly(copy)
        assert copy.version == 2


def test_nobody_there_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    store = Store(Client(address, deadline=0.2))
    with pytest.raises(BusyRetry, match="busy: unavailable") as caught:
        store.usevar("x")
    assert [attempt.endpoint for attempt in caught.value.attempts] == [address]
    with pytest.raises(BusyRetry):
        store.using("x", "y")
