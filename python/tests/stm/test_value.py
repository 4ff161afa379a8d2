"""Values: in which form they are written, and that they come back as what they were."""

from __future__ import annotations

import collections
import datetime
import enum
import json
import math
import random
from typing import Any

import pytest

from holdfast.stm.value import JSON_DEPTH_MAX, JSON_INT_BITS_MAX, Codec, CodecError, Content

SEED = 5
ROUNDS = 5_000


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


SHARED: list[int] = [1]
LARGEST_INT = 2**JSON_INT_BITS_MAX - 1

JSON = [
    (None, "null"),
    (True, "true"),
    (0, "0"),
    (-(2**200), str(-(2**200))),
    (LARGEST_INT, str(LARGEST_INT)),
    (1.0, "1.0"),
    (-0.0, "-0.0"),
    (5e-324, "5e-324"),
    ("", '""'),
    ("h\u00e9 \u0000 \U0001f600", '"h\u00e9 \\u0000 \U0001f600"'),
    ([1, ["a", None]], '[1,["a",null]]'),
    ({"b": 1, "a": {}}, '{"b":1,"a":{}}'),
    ([[], []], "[[],[]]"),
    (nested(JSON_DEPTH_MAX), "[" * JSON_DEPTH_MAX + "]" * JSON_DEPTH_MAX),
]

PICKLE = [
    (1, 2),
    {1: "a"},
    {"a", "b"},
    [()],
    1j,
    math.inf,
    [math.nan],
    "\ud800",
    {"\ud800": 1},
    Colour.RED,
    Text("a"),
    collections.OrderedDict(a=1),
    datetime.date(2026, 11, 26),
    bytearray(b"x"),
    [b"x"],
    LARGEST_INT + 1,
    nested(JSON_DEPTH_MAX + 1),
    [SHARED, SHARED],
]


@pytest.mark.parametrize(("value", "text"), JSON)
def test_what_json_says_exactly_is_json(value: Any, text: str) -> None:
    content = Content.of(value, allow_pickle=False)
    assert (content.codec, content.data.decode()) == (Codec.JSON, text)
    decoded = content.decode()
    assert decoded == value
    assert repr(decoded) == repr(value)


# Digits are counted by whoever reads: no Python can be set to convert fewer than 640.
def test_largest_int_of_json_has_less_than_640_digits() -> None:
    assert len(str(LARGEST_INT)) <= 640


def test_bytes_are_bytes() -> None:
    content = Content.of(b"\x00\xff", allow_pickle=False)
    assert content == Content(Codec.BYTES, b"\x00\xff")
    assert content.decode() == b"\x00\xff"


@pytest.mark.parametrize("value", PICKLE, ids=lambda value: f"{value!r:.20}")
def test_what_json_does_not_say_exactly_is_pickled(value: Any) -> None:
    content = Content.of(value)
    assert content.codec is Codec.PICKLE
    decoded = content.decode(allow_pickle=True)
    assert type(decoded) is type(value)
    assert repr(decoded) == repr(value)
    with pytest.raises(CodecError, match="pickles are not allowed"):
        Content.of(value, allow_pickle=False)


# As a copy does, and as JSON would not.
def test_what_is_one_object_stays_one() -> None:
    once, again = Content.of([SHARED, SHARED]).decode(allow_pickle=True)
    assert once is again
    loop: list[Any] = []
    loop.append(loop)
    decoded = Content.of(loop).decode(allow_pickle=True)
    assert decoded[0] is decoded


class Trap:
    """Sets off when its pickle is loaded."""

    is_sprung = False

    @staticmethod
    def spring() -> str:
        Trap.is_sprung = True
        return "sprung"

    def __reduce__(self) -> tuple[Any, ...]:
        return Trap.spring, ()


def test_pickles_are_not_loaded_unless_that_is_allowed() -> None:
    content = Content.of(Trap())
    with pytest.raises(CodecError, match=r"a pickle of \d+ bytes, and those are not loaded"):
        content.decode(allow_pickle=False)
    with pytest.raises(CodecError):
        content.decode()
    assert not Trap.is_sprung
    assert content.decode(allow_pickle=True) == "sprung"


def test_what_cannot_be_encoded_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="a function cannot be pickled"):
        Content.of(lambda: None)


@pytest.mark.parametrize(
    "content",
    [Content(Codec.JSON, b"[1"), Content(Codec.JSON, b"\xff"), Content(Codec.PICKLE, b"")],
)
def test_what_is_not_what_its_tag_says_is_not_read(content: Content) -> None:
    with pytest.raises(CodecError, match=f"the value cannot be read as {content.codec.name}"):
        content.decode(allow_pickle=True)


def any_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(10 if depth < 4 else 6)
    if kind < 6:
        texts = ["", "a", "\x00", "\ud800", "\U0001f600", "é" * rng.randrange(9)]
        return [None, rng.random() < 0.5, rng.getrandbits(70) - 2**69, rng.gauss(0, 1e9),
                rng.choice(texts), rng.randbytes(3)][kind]  # fmt: skip
    inner = [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return tuple(inner)
    if kind == 7:
        return dict(zip("abc", inner))
    return inner


def test_any_value_comes_back_as_what_it_was() -> None:
    rng = random.Random(SEED)
    codecs: collections.Counter[Codec] = collections.Counter()
    for _ in range(ROUNDS):
        value = any_value(rng)
        content = Content.of(value)
        codecs[content.codec] += 1
        assert repr(content.decode(allow_pickle=True)) == repr(value)
        if content.codec is Codec.JSON:
            assert json.loads(content.data) == value
    assert min(codecs[codec] for codec in Codec) > ROUNDS // 20, codecs
