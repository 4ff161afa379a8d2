"""One run of a transaction: what is committed of it, at each level of isolation (T4)."""

from __future__ import annotations

import pytest

from holdfast import Client
from holdfast.stm import Content, Isolation, Plan, Variable, Writes
from holdfast.stm.key import encode
from holdfast.stm.queue import Touch
from holdfast.stm.reading import Reader
from holdfast.stm.transaction import Run

COMPARING = [level for level in Isolation if level is not Isolation.READ_COMMITTED]


def content(number: int) -> Content:
    return Content.of(number)


def variable(name: str, mod_revision: int) -> Variable:
    held = content(1) if mod_revision else None
    return Variable(name, min(mod_revision, 1), mod_revision, held)


def begun(isolation: Isolation, *reads: Variable) -> Run:
    """A run that has read these; it asks nobody for more."""
    run = Run(Reader(Client(), allow_pickle=False), isolation, float("inf"))
    run.reads = {encode(read.key): read for read in reads}
    return run


def run(isolation: Isolation, x: int) -> Run:
    """Has read x and an absent y, writes x and z and deletes y."""
    run = begun(isolation, variable("x", 7), variable("y", 0))
    run.writes.update({encode("x"): content(x), encode("y"): None, encode("z"): content(3)})
    return run


def wire(plan: Plan) -> object:
    return plan.to_wire("bank")


@pytest.mark.parametrize("isolation", COMPARING)
def test_what_was_read_is_compared(isolation: Isolation) -> None:
    expected = Plan().expect(variable("x", 7)).expect(variable("y", 0))
    expected.put("x", content(2)).put("z", content(3))
    assert wire(run(isolation, 2).plan(Writes.ALL)) == wire(expected)


def test_read_committed_compares_nothing() -> None:
    expected = Plan().put("x", content(1)).put("z", content(3)).delete("y")
    found = run(Isolation.READ_COMMITTED, 1)
    assert wire(found.plan(Writes.CHANGED)) == wire(expected)


def test_what_has_not_changed_is_written_only_if_all_is() -> None:
    changed = Plan().expect(variable("x", 7)).expect(variable("y", 0)).put("z", content(3))
    found = run(Isolation.SERIALIZABLE, 1)
    assert wire(found.plan(Writes.CHANGED)) == wire(changed)
    assert wire(found.plan(Writes.ALL)) == wire(changed.put("x", content(1)))


def test_only_what_is_asked_for_again_is_compared() -> None:
    found = begun(Isolation.SERIALIZABLE)
    found._beforehand = {encode("x"): variable("x", 7), encode("y"): variable("y", 8)}
    assert found.read(encode("x")) == variable("x", 7)
    found.writes.update({encode("y"): None, encode("z"): None})
    expected = Plan().expect(variable("x", 7)).delete("y").delete("z")
    assert wire(found.plan(Writes.ALL)) == wire(expected)


def test_footprint_says_how_each_variable_is_touched() -> None:
    assert run(Isolation.SERIALIZABLE, 1).footprint() == {
        encode("x"): Touch.WRITES,
        encode("y"): Touch.WRITES,
        encode("z"): Touch.WRITES,
    }
    assert begun(Isolation.SERIALIZABLE, variable("x", 7)).footprint() == {encode("x"): Touch.READS}


@pytest.mark.parametrize("isolation", Isolation)
def test_only_what_may_never_have_been_so_is_looked_at_again(isolation: Isolation) -> None:
    assert not begun(isolation, variable("x", 7)).needs_commit()
    found = begun(isolation, variable("x", 7), variable("y", 8))
    assert found.needs_commit() == (isolation is Isolation.REPEATABLE_READS)
    found.writes[encode("z")] = content(1)
    assert found.needs_commit()
