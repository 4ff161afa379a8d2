"""What other processes do in tests of transactions; they are started afresh, not forked."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from typing import Any, Callable

from holdfast import Client, Unavailable
from holdfast.stm import (
    BusyRetry,
    CommitUncertain,
    ConcurrentUpdate,
    Isolation,
    Store,
    Transaction,
    Value,
)

spawn = multiprocessing.get_context("spawn")

ACCOUNTS = 10
PACE = 0.04
"""One transfer of each process every so often, in seconds."""
LEVELS = [level for level in Isolation if level is not Isolation.READ_COMMITTED]


def is_applied(apply: Callable[[], Any]) -> bool:
    """Waits until it is certain whether a transaction or a commit was applied."""
    return settle(apply)[0]


def settle(apply: Callable[[], Any]) -> tuple[bool, int]:
    """As :func:`is_applied`, and how often that was uncertain."""
    times = 0
    while True:
        try:
            apply()
        except (ConcurrentUpdate, BusyRetry, Unavailable):
            return False, times
        except CommitUncertain as uncertain:
            if uncertain.commit is None:
                raise
            apply = uncertain.commit.commit
            times += 1
        else:
            return True, times


def commit_certainly(copy: Value) -> int:
    """Commits a copy that nobody else writes; returns how often that was uncertain."""
    uncertain = 0
    while True:
        try:
            copy.commit()
        except CommitUncertain:
            uncertain += 1
        except BusyRetry:
            pass
        else:
            return uncertain


def increment(transaction: Transaction) -> None:
    """Counts in a variable."""
    transaction.put("count", transaction.get("count", 0) + 1)


def move_money(endpoints: Sequence[str], namespace: str, number: int, over: Event) -> int:
    """Moves money until told to stop, by transactions and by copies in turn.

    Returns how many transfers it made; each is counted beside it, too.
    """
    store = Store(Client(endpoints, namespace=namespace))
    rng = random.Random(number)
    made = 0
    while not over.is_set():
        due = time.monotonic() + PACE
        source, target = rng.sample(range(ACCOUNTS), 2)
        changes = {("account", source): -1, ("account", target): 1, ("transfers", number): 1}
        level = made % (len(LEVELS) + 1)
        if level < len(LEVELS):
            transfer = functools.partial(_transfer, changes)
            moved = is_applied(functools.partial(store.transact, transfer, isolation=LEVELS[level]))
        else:
            moved = is_applied(functools.partial(_transfer_by_copies, store, changes))
        made += moved
        over.wait(max(0.0, due - time.monotonic()))
    return made


def _transfer(changes: dict[Any, int], transaction: Transaction) -> None:
    for key, change in changes.items():
        transaction.put(key, transaction.get(key, 0) + change)


def _transfer_by_copies(store: Store, changes: dict[Any, int]) -> None:
    copies = store.using(*changes)
    for key, change in changes.items():
        copies[key].set((copies[key].value or 0) + change)
    while True:
        try:
            copies.commit()
        except (BusyRetry, CommitUncertain):
            continue  # nothing was written, or committing again settles it
        return


def count_in_children(endpoints: Sequence[str], namespace: str, children: int, rounds: int) -> int:
    """Forks while a store is open and threads use it; all count in one variable.

    Returns how often this process and its children have counted.
    """
    store = Store(Client(endpoints, namespace=namespace))
    store.transact(increment)
    over = threading.Event()
    counted = [0] * 4

    def count(thread: int) -> None:
        while not over.is_set():
            store.transact(increment)
            counted[thread] += 1

    threads = [threading.Thread(target=count, args=[n]) for n in range(len(counted))]
    for thread in threads:
        thread.start()
    pids = [in_child(lambda: [store.transact(increment) for _ in range(rounds)])
            for _ in range(children)]  # fmt: skip
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1] != 0]
    over.set()
    for thread in threads:
        thread.join()
    assert not failed, "children failed"
    store.transact(increment)
    return 2 + sum(counted) + children * rounds


def in_child(run: Callable[[], Any]) -> int:
    """Runs something in a fork's child; returns its pid.

    Its status is 0, unless that raises or takes more than a minute.
    """
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 1
        try:
            run()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid
