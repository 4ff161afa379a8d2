"""Transactions of one store that touch the same variables go one after the other."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from holdfast.stm import queue
from holdfast.stm.queue import Queue, Touch, Turn
from tests.stm.workers import in_child

READS, WRITES = Touch.READS, Touch.WRITES


def taken(turn: Turn | None) -> Turn:
    assert turn is not None
    return turn


def wait_until_in_line(queue: Queue, key: bytes, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(queue._lines.get(key, [])) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_readers_share_a_place_and_writers_do_not() -> None:
    places = Queue()
    one = taken(places.take({b"1": READS, b"2": WRITES}))
    two = taken(places.take({b"1": READS, b"3": WRITES}))
    assert not one.has_waited
    assert not two.has_waited
    assert one.covers({b"1": READS, b"2": READS})
    assert not one.covers({b"1": WRITES})
    assert not one.covers({b"3": READS})
    with ThreadPoolExecutor() as threads:
        writer = threads.submit(places.take, {b"1": WRITES})
        wait_until_in_line(places, b"1", 3)
        # Whoever reads does not overtake.
        reader = threads.submit(places.take, {b"1": READS})
        wait_until_in_line(places, b"1", 4)
        places.give_back(one)
        assert not writer.done()
        places.give_back(two)
        third = taken(writer.result(10))
        assert third.has_waited
        assert not reader.done()
        places.give_back(third)
        places.give_back(taken(reader.result(10)))
    assert not places._lines, "lines that nobody stands in are forgotten"


def test_whoever_finds_a_writer_stands_in_line() -> None:
    places = Queue()
    assert places.join(b"1") is None, "nobody is there"
    reader = taken(places.take({b"1": READS}))
    assert places.join(b"1") is None, "nobody writes"
    places.give_back(reader)
    writer = taken(places.take({b"1": WRITES}))
    with ThreadPoolExecutor() as threads:
        joining = threads.submit(places.join, b"1")
        wait_until_in_line(places, b"1", 2)
        assert not joining.done()
        places.give_back(writer)
        turn = taken(joining.result(10))
    assert turn.covers({b"1": WRITES})
    places.give_back(turn)
    assert not places._lines


def test_whoever_waits_for_long_goes_on_without() -> None:
    places = Queue()
    first = taken(places.take({b"1": WRITES}))
    begun = time.monotonic()
    assert places.take({b"0": WRITES, b"1": READS}) is None
    assert time.monotonic() - begun >= queue.WAIT_SECONDS_MAX
    places.give_back(first)
    assert not places._lines


# B2: threads that stand in line, or hold the lock, are not in the child.
def test_forks_child_begins_with_empty_lines() -> None:
    places = Queue()
    taken(places.take({b"1": WRITES}))

    def take() -> None:
        assert not taken(places.take({b"1": WRITES})).has_waited

    with places._lock:
        pid = in_child(take)
    assert os.waitpid(pid, 0)[1] == 0


def test_any_number_of_overlapping_turns_all_come_to_go() -> None:
    places = Queue()
    inside = {b"a": 0, b"b": 0, b"c": 0}
    lock = threading.Lock()

    def run(number: int) -> None:
        keys = sorted(inside)
        for round_ in range(200):
            touched = {keys[(number + round_) % 3]: WRITES, keys[(number * round_) % 3]: WRITES}
            turn = taken(places.take(touched))
            with lock:
                for key in touched:
                    inside[key] += 1
                    assert inside[key] == 1
            with lock:
                for key in touched:
                    inside[key] -= 1
            places.give_back(turn)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run, range(8)))
    assert not places._lines
