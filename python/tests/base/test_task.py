"""Coroutines that belong to no event loop, their timers, and the thread they go on with."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import CancelledError, Future

import pytest

from holdfast._engine import loop, task
from holdfast._engine.task import Mailbox, Signal, wait
from tests.support.cluster import wait_until


def test_result_and_error_come_out_of_the_future():
    first, second = Future(), Future()

    async def add():
        return await wait(first) + await wait(second)

    adding = task.start(add())
    second.set_result(2)
    assert not adding.done()
    first.set_result(1)
    assert adding.result(0) == 3

    async def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        task.start(fail()).result(0)


def test_what_fails_in_the_background_is_logged(caplog):
    async def fail():
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "holdfast"):
        task.spawn(fail())
    assert "ZeroDivisionError" in caplog.text


def test_coroutine_goes_on_where_what_it_awaits_is_done():
    awaited = Future()

    async def where():
        await wait(awaited)
        return threading.current_thread().name

    asked = task.start(where())
    loop.here().call_soon(lambda: awaited.set_result(None))
    assert asked.result(10) == "holdfast"


# It is told once, so that it can wait again to clean up.
def test_cancelled_coroutine_cleans_up_and_may_wait_for_that():
    forever, cleaning, cleaned = Future(), Future(), []

    async def work():
        try:
            await wait(forever)
        finally:
            await wait(cleaning)
            cleaned.append(True)

    working = task.start(work())
    assert working.cancel()
    assert forever.cancelled()
    assert cleaned == []
    cleaning.set_result(None)
    assert cleaned == [True]
    with pytest.raises(CancelledError):
        working.result(0)


# Whether it waits at that moment or runs: what it awaits next is cancelled.
def test_coroutine_that_is_cancelled_while_it_runs_is_told_at_its_next_wait():
    started, forever = Future(), Future()

    async def work():
        await wait(started)
        working.cancel()
        await wait(forever)

    working = task.start(work())
    started.set_result(None)
    assert working.cancelled()
    assert forever.cancelled()


# Also if what it awaits was done just before.
def test_cancelling_is_not_lost_to_a_result_that_comes_at_the_same_moment():
    started, second = Future(), Future()
    ran = []

    async def work():
        await wait(started)
        await wait(second)
        ran.append(True)

    working = task.start(work())
    started.add_done_callback(lambda _: None)
    second.set_result(None)
    # Cancelled between the result and the coroutine's going on.
    started._done_callbacks.insert(0, lambda _: working.cancel())
    started.set_result(None)
    assert working.cancelled()
    assert ran == []


def test_following_leaves_the_followed_alone():
    shared = Future()
    own, other = task.follow(shared), task.follow(shared)
    assert own.cancel()
    shared.set_result(1)
    assert other.result(0) == 1


def test_within_gives_the_result_or_cancels():
    quick, slow = Future(), Future()
    quick.set_result(1)
    assert task.start(task.within(10.0, quick)).result(0) == 1
    with pytest.raises(TimeoutError):
        task.start(task.within(0.01, slow)).result(10)
    assert slow.cancelled()


def test_signal_is_told_once_and_to_all():
    signal = Signal()
    before = signal.waiter()
    forgotten = signal.waiter()
    signal.forget(forgotten)
    signal.tell(1)
    signal.tell(2)
    assert (before.result(0), signal.waiter().result(0), signal.told) == (1, 1, 1)
    assert not forgotten.done()
    assert task.start(Signal().wait(0.01)).result(10) is None


def test_mailbox_hands_out_in_order_and_waits_for_a_time():
    mailbox = Mailbox()
    assert task.start(mailbox.get(0.01)).result(10) is None
    waiting = task.start(mailbox.get(10.0))
    for n in (1, 2):
        mailbox.put(n)
    assert waiting.result(0) == 1
    assert task.start(mailbox.get(10.0)).result(0) == 2


def test_timers_go_off_in_order_unless_they_are_cancelled():
    here, fired = loop.here(), []
    timers = [here.call_later(n / 1000, lambda n=n: fired.append(n)) for n in (30, 10, 20)]
    timers[2].cancel()
    wait_until(lambda: len(fired) == 2, "two have gone off")
    assert fired == [10, 30]


# Thousands of calls a second each leave a timer behind that never goes off.
def test_cancelled_timers_are_swept_out():
    here = loop.here()
    for _ in range(5_000):
        here.call_later(3600.0, list).cancel()
    assert len(here._timers) < 1_500


def test_callback_that_fails_is_logged_and_ends_nothing_else(caplog):
    here, ran = loop.here(), threading.Event()

    def fail():
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "holdfast"):
        here.call_soon(fail)
        here.call_soon(ran.set)
        assert ran.wait(10)
    assert "a callback failed" in caplog.text


# A loop that sleeps for long is woken for what is due sooner.
def test_sleeping_loop_is_woken():
    here = loop.here()
    wait_until(lambda: here._asleep_until > time.monotonic(), "it sleeps")
    ran = threading.Event()
    began = time.monotonic()
    here.call_later(0.01, ran.set)
    assert ran.wait(10)
    assert time.monotonic() - began < 5
