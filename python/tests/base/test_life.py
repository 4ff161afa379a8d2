"""The count of a lease against the clock, at chosen moments (M5, M6)."""

from __future__ import annotations

import pytest

from holdfast._engine import boottime, task
from holdfast._engine.life import Life, Loss, counted, pause


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


# M5
def test_count_leaves_one_percent_and_ten_milliseconds():
    assert counted(10.0) == pytest.approx(9.89)
    assert counted(0.5) == pytest.approx(0.485)
    assert counted(0.005) == 0.0


def test_pause_allows_several_tries_in_a_third_of_the_ttl():
    assert pause(3.0) == pytest.approx(0.15)
    assert pause(60.0) == 0.5


# M5
def test_late_reply_revives_nothing(clock):
    life = Life(3600.0, clock)
    assert life.loss() is None
    clock.now = 3600.0  # at the very moment the lease ends, before anyone looked
    assert not life.extend(7200.0)
    clock.now = 0.0  # even if the clock were read as earlier again
    assert life.loss() == Loss.EXPIRED
    assert life.until == 3600.0


# M5
def test_reply_in_time_moves_the_end_and_never_back(clock):
    life = Life(3600.0, clock)
    assert life.extend(3660.0)
    assert life.extend(3600.0)
    clock.now = 3659.9
    assert life.loss() is None
    clock.now = 3660.0
    assert life.loss() == Loss.EXPIRED


# M6
def test_end_moves_up_only_while_the_lease_lives(clock):
    life = Life(3600.0, clock)
    assert life.shorten(1000.0)
    assert life.shorten(3600.0)
    assert life.until == 1000.0
    clock.now = 1000.0
    assert not life.shorten(0.0)
    assert life.until == 1000.0


def test_first_loss_stays(clock):
    life = Life(3600.0, clock)
    clock.now = 5.0
    life.end(Loss.ENDED)
    life.end(Loss.CLOSED)
    assert life.loss() == Loss.ENDED
    assert life.until == 5.0
    assert life.lost.told == Loss.ENDED


# M6
def test_connection_count_ends_a_lease_that_has_time_left(clock):
    life = Life(3600.0, clock)
    life.attach(1000.0)
    life.attach(2000.0)  # a second attachment proves nothing by itself
    assert life.until == 1000.0
    life.prove(2000.0)
    life.prove(1000.0)
    assert life.until == 2000.0
    clock.now = 2000.0  # what is proven too late revives nothing, and neither does letting go
    life.prove(3600.0)
    life.detach()
    assert life.loss() == Loss.EXPIRED
    assert life.until == 2000.0


# M6
def test_detached_lease_counts_from_its_renewal_alone(clock):
    life = Life(3600.0, clock)
    life.prove(7.0)
    assert life.until == 3600.0
    life.attach(5.0)
    life.detach()
    assert life.until == 3600.0


# M5
def test_watch_tells_of_a_loss_that_nobody_looks_for():
    life = Life(boottime.now() + 0.05)
    waiting = life.lost.waiter()
    watching = task.start(life.watch())
    assert waiting.result(60) == Loss.EXPIRED
    watching.result(60)
