"""Numbering, and when a session is too old to begin a write in (G4)."""

from __future__ import annotations

import gc

import pytest

from holdfast import NotApplied
from holdfast._engine import boottime, task
from holdfast._engine.deadline import Deadline
from holdfast._engine.session import UNDECIDED_MAX, Session
from holdfast._wire.common_pb2 import WriteContext


@pytest.fixture
def session():
    return Session(7, 600.0, boottime.now())


def _allot(session, seconds=60.0):
    return task.start(session.allot(Deadline(seconds))).result()


def _context(session, seq, *, is_resent=False):
    return session.context(seq, is_resent=is_resent)


def test_first_incomplete_is_the_lowest_seq_not_answered(session):
    first, second, third = (_allot(session) for _ in range(3))
    assert (first.number, second.number, third.number) == (1, 2, 3)
    assert _context(session, third).first_incomplete == 1
    second.decide(was_carried_out=True)
    assert _context(session, third).first_incomplete == 1
    first.decide(was_carried_out=True)
    assert _context(session, third).first_incomplete == 3
    third.decide(was_carried_out=True)
    fourth = _allot(session)
    assert _context(session, fourth) == WriteContext(session_id=7, seq=4, first_incomplete=4)
    assert _context(session, fourth, is_resent=True).resent


# Whatever a write that was given up has left on its way, no later one is answered before the
# cluster knows to refuse it.
def test_writes_after_one_given_up_go_through_the_log(session):
    first, given_up = _allot(session), _allot(session)
    assert not _context(session, given_up).resent
    given_up.give_up()
    # The first one is still open, so this one cannot tell the cluster of the second.
    third = _allot(session)
    assert _context(session, third).resent
    third.decide(was_carried_out=True)
    first.decide(was_carried_out=True)
    # A refusal need not have come from the log.
    fourth = _allot(session)
    assert _context(session, fourth).resent
    fourth.decide(was_carried_out=False)
    fifth = _allot(session)
    assert _context(session, fifth).resent
    fifth.decide(was_carried_out=True)
    assert not _context(session, _allot(session)).resent


def test_write_257_waits_for_the_first_one(session):
    first = _allot(session)
    for _ in range(UNDECIDED_MAX - 1):
        # All the later ones are answered, and still the cluster keeps their outcomes.
        _allot(session).decide(was_carried_out=True)
    with pytest.raises(NotApplied, match="256 earlier writes"):
        _allot(session, 0.02)
    waiting = task.start(session.allot(Deadline(60.0)))
    assert not waiting.done()
    first.decide(was_carried_out=True)
    assert waiting.result(10).number == UNDECIDED_MAX + 1


# Those who gave up waiting do not take the place of those who wait.
def test_place_of_one_that_stopped_waiting_goes_to_the_next(session):
    held = [_allot(session) for _ in range(UNDECIDED_MAX)]
    impatient = task.start(session.allot(Deadline(60.0)))
    patient = task.start(session.allot(Deadline(60.0)))
    assert impatient.cancel()
    held[0].decide(was_carried_out=True)
    assert patient.result(10).number == UNDECIDED_MAX + 1


def test_forgotten_write_is_given_up(session):
    seq = _allot(session)
    seq.forget()
    del seq
    gc.collect()
    following = _allot(session)
    assert _context(session, following).first_incomplete == following.number
    assert _context(session, following).resent


# A write ends before its session could: 600 s less 300 s for the call, 1 % and 10 ms.
@pytest.mark.parametrize(
    ("age", "is_good", "is_due"),
    [(1.0, True, False), (199.0, True, False), (201.0, True, True), (293.9, True, True),
     (294.0, False, True)],
)  # fmt: skip
def test_old_session_is_not_used_for_a_new_write(age, is_good, is_due):
    session = Session(7, 600.0, boottime.now() - age)
    assert session.call_seconds_max == 300.0
    assert session.is_good_for_a_write() == is_good
    assert session.is_due_to_be_kept() == is_due
    assert not session.is_due_to_be_kept()  # once for each
    session.mark_gone()
    assert not session.is_good_for_a_write()
