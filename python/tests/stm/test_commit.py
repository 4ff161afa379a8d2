"""Commits: their limits, what they tell, and what a message names."""

from __future__ import annotations

import pytest

from holdfast import BadRequest
from holdfast.stm import Codec, ConcurrentUpdate, Content, Plan, Variable
from holdfast.stm.commit import TRANSACTION_KEYS_MAX, VALUE_BYTES_MAX
from holdfast.stm.key import encode


def content(size: int) -> Content:
    return Content(Codec.BYTES, bytes(size))


# G9
def test_too_many_keys_are_refused_before_anything_is_sent() -> None:
    plan = Plan()
    for number in range(TRANSACTION_KEYS_MAX):
        plan.expect_version(number, 1).delete(number)
    plan.check()  # one that is compared and written counts once
    plan.delete(TRANSACTION_KEYS_MAX)
    with pytest.raises(BadRequest, match="a transaction has 4097 keys, and at most 4096 are"):
        plan.check()


# G9
def test_too_large_a_value_is_refused_before_anything_is_sent() -> None:
    Plan().put(0, content(VALUE_BYTES_MAX)).check()
    with pytest.raises(
        BadRequest, match="a value has 1048577 bytes, and at most 1048576"
    ) as caught:
        Plan().put(0, content(VALUE_BYTES_MAX + 1)).check()
    assert caught.value.reason == "VALUE_TOO_LARGE"
    assert caught.value.fields == {"field": "bytes", "actual": "1048577", "allowed": "1048576"}


# G9
@pytest.mark.parametrize("excess", [0, 1])
def test_too_many_bytes_are_refused_before_anything_is_sent(excess: int) -> None:
    plan = Plan()
    for number in range(7):
        plan.put(number, content(VALUE_BYTES_MAX))
    keys = sum(len(encode(number)) for number in range(8))
    plan.put(7, content(VALUE_BYTES_MAX - keys + excess))
    if not excess:
        plan.check()
        return
    with pytest.raises(BadRequest, match="a transaction has 8388609 bytes, and at most 8388608"):
        plan.check()


def test_conflict_names_some_and_counts_the_others() -> None:
    def conflict(named: int, total: int) -> str:
        return str(ConcurrentUpdate([Variable(n, 1, 9, None) for n in range(named)], total, 9))

    assert conflict(2, 2) == "nothing was committed: others have changed 0, 1"
    assert conflict(256, 4096) == (
        "nothing was committed: others have changed 0, 1, 2, 3 and 4092 more"
    )


# A variable that was absent may be so again.
def test_only_what_was_there_and_is_written_tells_of_a_commit() -> None:
    plan = Plan()
    for number, mod_revision in [(0, 7), (1, 0), (2, 8)]:
        plan.expect(Variable(number, 1, mod_revision, None))
    plan.expect_version(3, 1)
    for number in (0, 1, 3, 4):
        plan.delete(number)
    assert plan.telling() == {encode(0): 7}


def test_request_has_its_parts_in_the_order_of_the_keys() -> None:
    plan = Plan().expect_version("b", 1).expect(Variable("a", 2, 7, None))
    plan.put("b", Content.of(1)).delete("a")
    request = plan.to_wire("bank")
    assert request.namespace == "bank"
    a, b = request.comparisons
    assert (a.key, a.version, a.mod_revision) == (encode("a"), 2, 7)
    assert (b.key, b.version, b.HasField("mod_revision")) == (encode("b"), 1, False)
    a, b = request.writes
    assert (a.key, a.delete) == (encode("a"), True)
    assert (b.key, b.delete, b.codec, b.value) == (encode("b"), False, Codec.JSON.value, b"1")
