"""Keys: the vectors that all languages share, and what they cannot say (T6)."""

from __future__ import annotations

import ast
import enum
import json
import math
import pathlib
import random
import struct
from typing import Any, NamedTuple

import pytest

from holdfast.stm import key as keys
from holdfast.stm.key import KEY_BYTES_MAX, Part, RawKey

VECTORS = pathlib.Path(__file__).parents[3] / "proto" / "vectors" / "stm_keys.json"
SEED = 4
ROUNDS = 20_000


def vectors(name: str) -> list[dict[str, Any]]:
    with VECTORS.open(encoding="ascii") as file:
        found: list[dict[str, Any]] = json.load(file)[name]
    return found


def test_every_spelling_has_the_bytes_of_the_vectors() -> None:
    entries = vectors("ordered")
    assert len(entries) > 400
    for entry in entries:
        for spelling in entry["keys"]:
            assert keys.encode(ast.literal_eval(spelling)).hex() == entry["hex"], spelling


def test_every_encoding_is_decoded_to_what_it_was() -> None:
    for entry in vectors("ordered"):
        decoded = keys.decode_part(bytes.fromhex(entry["hex"]))
        assert decoded == ast.literal_eval(entry["keys"][0]), entry
        assert keys.encode(decoded).hex() == entry["hex"]


def test_bytes_no_key_is_encoded_to_are_a_key_of_their_own() -> None:
    for entry in vectors("invalid"):
        encoded = bytes.fromhex(entry["hex"])
        with pytest.raises(ValueError, match="not the encoding of a key: "):
            keys.decode_part(encoded)
        key = keys.decode(encoded)
        assert key == RawKey(encoded)
        assert keys.encode(key) == encoded


# T6
def test_what_is_no_key_is_refused() -> None:
    messages = {
        "number too large": "an int of a key has 8193 bits, and at most 8192 are allowed",
        "nested too deeply": "tuples of a key are nested more than 64 deep",
        "too long": r"the key takes \d+ bytes, and at most 1024 are allowed",
    }
    for entry in vectors("refused"):
        with pytest.raises(ValueError, match=messages[entry["why"]]):
            keys.encode(ast.literal_eval(entry["key"]))
    for not_a_number in (math.nan, (1, math.nan)):
        with pytest.raises(ValueError, match="NaN"):
            keys.encode(not_a_number)


# T6: the same type error whether a dict would take it or not.
@pytest.mark.parametrize(
    "other", [[], {}, frozenset(), 1j, object(), bytearray(b"x"), ("a", ["b"])]
)
def test_other_types_are_a_type_error(other: Any) -> None:
    with pytest.raises(TypeError, match="a key is None, a bool"):
        keys.encode(other)


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


# What a dict takes for the same key has the same bytes.
def test_subclasses_are_what_they_are_equal_to() -> None:
    assert keys.encode(Colour.RED) == keys.encode(1)
    assert keys.encode(Point(1, 2)) == keys.encode((1, 2))


def test_limit_of_a_key_and_one_more() -> None:
    assert len(keys.encode("x" * (KEY_BYTES_MAX - 2))) == KEY_BYTES_MAX
    with pytest.raises(ValueError, match="takes 1025 bytes"):
        keys.encode("x" * (KEY_BYTES_MAX - 1))


def test_prefixes_are_of_what_begins_with_them() -> None:
    def covers(prefix: Part, key: Part) -> bool:
        return keys.encode(key).startswith(keys.encode_prefix(prefix))

    assert covers("ab", "ab")
    assert covers("ab", "abc")
    assert not covers("ab", "a")
    assert not covers("ab", b"ab")
    for inside in [("account", 7), ("account", 7.0, "x")]:
        assert covers(("account", 7), inside)
    for outside in [("account",), ("account", 70), ("account", 7.5), ("account", "7")]:
        assert not covers(("account", 7), outside)
    assert covers(7, 7)
    assert not covers(7, 7.5)


def any_part(rng: random.Random, depth: int = 0) -> Part:
    length = rng.randrange(4)
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind == 2:
        return rng.randrange(-(2**127), 2**127) >> rng.randrange(128)
    if kind == 3:
        # Any bits: subnormals, infinities and NaN among them.
        bits: float = struct.unpack("<d", rng.randbytes(8))[0]
        return bits
    if kind == 4:
        return bytes(rng.randrange(256) & 0x81 for _ in range(length))
    if kind == 5:
        return "".join(chr(rng.randrange(0x110000) & rng.getrandbits(32)) for _ in range(length))
    return tuple(any_part(rng, depth + 1) for _ in range(length))


def test_any_key_comes_back() -> None:
    rng = random.Random(SEED)
    encoded = 0
    for _ in range(ROUNDS):
        part = any_part(rng)
        if part != part or "nan" in repr(part):
            continue
        encoded += 1
        assert keys.decode_part(keys.encode(part)) == part
    assert encoded > ROUNDS * 9 // 10


def test_there_is_one_encoding_of_a_key() -> None:
    rng = random.Random(SEED)
    known = [bytes.fromhex(entry["hex"]) for entry in vectors("ordered")]
    decoded = 0
    for round_ in range(ROUNDS):
        # One byte of a key is another one, or gone, or new.
        changed = bytearray(known[round_ % len(known)])
        at = rng.randrange(len(changed))
        change = rng.randrange(3)
        if change == 0:
            changed[at] = rng.randrange(256)
        elif change == 1:
            del changed[at]
        else:
            changed.insert(at, rng.randrange(256))
        key = keys.decode(bytes(changed))
        if not isinstance(key, RawKey) and len(changed) <= KEY_BYTES_MAX:
            decoded += 1
            assert keys.encode(key) == changed
    assert decoded > ROUNDS // 10
