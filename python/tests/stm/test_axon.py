"""Axon.STM as oracle: the same sequences of calls do the same, whatever they are (T1, T2).

Where ours differs, and rightly:

- A variable that was only read is not there: it costs no write, and no dump shows it.
- ``set`` under a key that nobody has used finds version 0; Axon's store fails with KeyError.
- A version from the future is refused; Axon's store takes it for the present one.
- What is committed together is encoded before anything is written; Axon's store copies one value
  after the other, and leaves some written when another cannot be copied.
- Keys are listed in their simplest form and in their order: 1.0 as 1, and None before numbers. A
  copy has the key that it was asked for by; Axon's store the one that was used first.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import pathlib
import pickle
import random
import subprocess
import sys
import threading
from typing import Any, Callable, Union

import pytest

from holdfast import HoldfastError, Refused
from holdfast.stm import BusyRetry, Collection, ConcurrentUpdate, Store, Value
from holdfast.stm.key import decode, encode
from tests.support.scale import scale

oracle = pytest.importorskip("Axon.STM")

SEED = 7
OPERATIONS = scale(10_000, 300)
KEYS: list[Any] = [
    None, 0, 1, True, 1.0, 2.5, -7, 2**70, "a", "b", "", b"a", (), (1,), ("a", 1), ("a", 1.0),
    (("x",),),
]  # fmt: skip
VALUES: list[Any] = [
    None, False, 0, -1, 2**200, 0.1, "", "text", "\ud800", b"", b"\x00\xff", [], [1, [2]], {},
    {"a": [1]}, {1: 2}, (), (1, "a"), {1}, 1j, float("inf"), bytearray(b"x"),
]  # fmt: skip

Outcome = Union[str, tuple[str, Any]]


class Pair:
    """Both stores, and copies of both that a caller works on."""

    def __init__(self, ours: Store) -> None:
        self.ours = ours
        self.theirs = oracle.Store()
        self.values: list[tuple[Value, Any]] = []
        self.collections: list[tuple[Collection, Any]] = []
        self.seen: collections.Counter[str] = collections.Counter()

    def count(self, what: str) -> None:
        self.seen[what] += 1

    def same(self, what: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Any:
        """Does the same in both, and returns what they returned if neither raised."""
        expected, actual = outcome(theirs), outcome(ours)
        assert kind(actual) == kind(expected), what
        if isinstance(expected, Exception):
            self.count(f"{what}: {type(expected).__name__}")
            return None
        self.count(what)
        return actual, expected

    def check(self) -> None:
        """All copies are alike."""
        for ours, theirs in self.values:
            assert repr(ours) == repr(theirs)
            assert ours.key == theirs.key
        for ours, theirs in self.collections:
            assert repr(ours) == repr(theirs)


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def kind(outcome: Any) -> type:
    """What Axon's programs see of it: the classes of its exceptions, and None."""
    for expected in (
        oracle.ConcurrentUpdate,
        oracle.BusyRetry,
        TypeError,
        KeyError,
        AttributeError,
    ):
        if isinstance(outcome, expected):
            return expected
    if isinstance(outcome, Exception):
        raise outcome
    return type(None)


def is_from_future(pair: Pair, key: Any, theirs: Any) -> bool:
    return bool(theirs.version > pair.theirs.store[key].version)


def usevar(pair: Pair, rng: random.Random) -> None:
    key = rng.choice(KEYS)
    arguments = [key] if rng.random() < 0.8 else [key, True]
    values = pair.same(
        "usevar", lambda: pair.ours.usevar(*arguments), lambda: pair.theirs.usevar(*arguments)
    )
    pair.values.append(values)


def using(pair: Pair, rng: random.Random) -> None:
    keys = rng.choices(KEYS, k=rng.randrange(5))
    pair.collections.append(
        pair.same("using", lambda: pair.ours.using(*keys), lambda: pair.theirs.using(*keys))
    )


def no_key(pair: Pair, rng: random.Random) -> None:
    key = rng.choice([[], {}, ("a", [])])
    pair.same("no key", lambda: pair.ours.usevar(key), lambda: pair.theirs.usevar(key))
    pair.same("no keys", lambda: pair.ours.using("a", key), lambda: pair.theirs.using("a", key))


def any_copy(pair: Pair, rng: random.Random) -> tuple[Value, Any]:
    values = list(pair.values)
    for ours, theirs in pair.collections:
        assert list(ours) == list(theirs)
        values += zip(ours.values(), theirs.values())
    # Mostly one of the last, so that not too many are out of date.
    return rng.choice(values[-4:] if rng.random() < 0.5 else values)


def set_value(pair: Pair, rng: random.Random) -> None:
    ours, theirs = any_copy(pair, rng)
    value = rng.choice(VALUES)
    if rng.random() < 0.5:
        ours.set(copy.deepcopy(value))
        theirs.set(copy.deepcopy(value))
    else:
        ours.value, theirs.value = copy.deepcopy(value), copy.deepcopy(value)
    pair.count("value set")


def change_in_place(pair: Pair, rng: random.Random) -> None:
    for value in any_copy(pair, rng):
        if type(value.value) is list:
            value.value.append("more")
            pair.count("changed in place")


def commit(pair: Pair, rng: random.Random) -> None:
    ours, theirs = any_copy(pair, rng)
    if is_from_future(pair, theirs.key, theirs):
        with pytest.raises(Refused, match="that never was"):
            ours.commit()
        return
    pair.same("commit", ours.commit, theirs.commit)


def commit_collection(pair: Pair, rng: random.Random) -> None:
    if not pair.collections:
        return
    ours, theirs = rng.choice(pair.collections)
    if any(is_from_future(pair, key, value) for key, value in theirs.items()):
        return
    pair.same("commit of several", ours.commit, theirs.commit)


def change_members(pair: Pair, rng: random.Random) -> None:
    if not pair.collections:
        return
    ours, theirs = rng.choice(pair.collections)
    if theirs and rng.random() < 0.5:
        key = rng.choice(list(theirs))
        del ours[key], theirs[key]
        return
    key = rng.choice(KEYS)
    ours[key], theirs[key] = pair.ours.usevar(key), pair.theirs.usevar(key)


def set_values(pair: Pair, rng: random.Random) -> None:
    """Of a plain dict, with members of their own keys."""
    keys = rng.sample([key for key in KEYS if key not in (True, 1.0)], k=3)
    ours = {key: pair.ours.usevar(key) for key in keys}
    theirs = {key: pair.theirs.usevar(key) for key in keys}
    for key in keys[:2]:
        ours[key].set(rng.choice(VALUES))
        theirs[key].set(ours[key].value)
    pair.same(
        "set_values", lambda: pair.ours.set_values(ours), lambda: pair.theirs.set_values(theirs)
    )
    pair.values += zip(ours.values(), theirs.values())


def set_under_a_key(pair: Pair, rng: random.Random) -> None:
    ours, theirs = any_copy(pair, rng)
    key = rng.choice([theirs.key, rng.choice(KEYS)])
    pair.theirs.usevar(key)
    if is_from_future(pair, key, theirs):
        with pytest.raises(Refused, match="that never was"):
            pair.ours.set(key, ours)
        return
    pair.same(
        "set under a key", lambda: pair.ours.set(key, ours), lambda: pair.theirs.set(key, theirs)
    )


def turn_back_version(pair: Pair, rng: random.Random) -> None:
    ours, theirs = any_copy(pair, rng)
    if theirs.version > 0:
        version = rng.randrange(theirs.version)
        ours.version = theirs.version = version
        pair.count("version set")


def take_present_version(pair: Pair, rng: random.Random) -> None:
    """What programs do that want to overwrite whatever is there."""
    ours, theirs = any_copy(pair, rng)
    ours.version = pair.ours.usevar(ours.key).version
    theirs.version = pair.theirs.usevar(theirs.key).version


def clone(pair: Pair, rng: random.Random) -> None:
    ours, theirs = any_copy(pair, rng)
    pair.values.append(pair.same("clone", ours.clone, theirs.clone))


def forget(pair: Pair, rng: random.Random) -> None:
    del pair.values[rng.randrange(len(pair.values))]
    if pair.collections:
        del pair.collections[rng.randrange(len(pair.collections))]


def dump(pair: Pair, _: random.Random) -> None:
    shown = {
        encode(key): f"      {decode(encode(key))} : {value}"
        for key, value in pair.theirs.store.items()
        if value.version > 0
    }
    lines = ["DEBUG: Store dump ------------------------------"]
    lines += [line for _, line in sorted(shown.items())]
    assert printed(pair.ours.dump) == "\n".join([*lines, "", ""])
    pair.count("dump")


def printed(call: Callable[[], Any]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        call()
    return out.getvalue()


ANY = {
    usevar: 6, using: 3, no_key: 1, set_value: 10, change_in_place: 3, commit: 10,
    commit_collection: 4, change_members: 2, set_values: 1, set_under_a_key: 4,
    turn_back_version: 1, take_present_version: 2, clone: 2, forget: 6, dump: 1,
}  # fmt: skip


def test_any_sequence_does_the_same_in_both(store: Store) -> None:
    rng = random.Random(SEED)
    pair = Pair(store)
    usevar(pair, rng)
    for _ in range(OPERATIONS):
        if not pair.values:
            usevar(pair, rng)
        (operation,) = rng.choices(list(ANY), list(ANY.values()))
        operation(pair, rng)
        pair.check()
    usual = {"usevar", "using", "value set", "clone", "no key: TypeError"}
    for what in ("commit", "commit of several", "set under a key"):
        usual |= {what, f"{what}: ConcurrentUpdate"}
    assert min(pair.seen[what] for what in usual) > OPERATIONS // 200, pair.seen


def test_dump_is_printed_alike(store: Store) -> None:
    theirs = oracle.Store()
    for each in (store, theirs):
        several = each.using("account_one", "account_two", "myaccount")
        several["account_one"].set(50)
        several["account_two"].set({"a": (1, None)})
        several.commit()
    assert printed(store.dump) == printed(theirs.dump)


def test_reading_creates_nothing(store: Store) -> None:
    theirs = oracle.Store()
    assert repr(store.usevar("a")) == repr(theirs.usevar("a"))
    assert store.keys() == []
    assert list(theirs.store) == ["a"]


def test_unused_key_has_version_zero(store: Store) -> None:
    theirs = oracle.Store()
    with pytest.raises(KeyError):
        theirs.set("other", theirs.usevar("a"))
    store.set("other", store.usevar("a"))
    assert store.keys() == ["other"]


def test_nothing_is_written_if_a_value_cannot_be(store: Store) -> None:
    theirs = oracle.Store()
    for each, expected in [(store, 0), (theirs, 1)]:
        several = each.using("a", "b")
        several["a"].set("written")
        several["b"].set(threading.Lock())
        with pytest.raises(TypeError):
            several.commit()
        assert each.usevar("a").version == expected


# Their programs catch their exceptions; ours tell what happened besides.
def test_exceptions_are_those_of_axon_too() -> None:
    assert issubclass(BusyRetry, oracle.BusyRetry)
    assert issubclass(ConcurrentUpdate, oracle.ConcurrentUpdate)
    assert issubclass(BusyRetry, HoldfastError)
    assert issubclass(ConcurrentUpdate, HoldfastError)
    for error in (BusyRetry("busy"), ConcurrentUpdate((), 2, 9)):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


# Axon reads a file of this name wherever a program is started, and fails at what it cannot read.
def test_axon_that_cannot_be_imported_is_no_axon(tmp_path: pathlib.Path) -> None:
    (tmp_path / "debug.conf").write_text("not a line of Axon's\n")
    program = (
        "import holdfast.stm as stm; assert stm.BusyRetry.__bases__[1] is Exception\n"
        "try: import Axon.STM\n"
        "except Exception: print('no Axon')"
    )
    command = [sys.executable, "-c", program]
    package = pathlib.Path(__file__).parents[2]
    ran = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(package)}, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("no Axon\n", "")
