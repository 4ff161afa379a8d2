#!/usr/bin/env python3
"""Writes stm_keys.json: test vectors of the encoding of STM keys, for every language.

This is an implementation of its own, written from docs/formats.md and not from the Rust code: where the
two differ, one of them is wrong. The order is worked out from the values, never from their encodings, and
the encodings are then checked against it.

    proto/vectors/generate_stm_keys.py          writes the file beside this one
    proto/vectors/generate_stm_keys.py --check  says whether it is what would be written
"""

import functools
import json
import math
import pathlib
import random
import sys

NONE, NEG_INF, NEGATIVE, ZERO, POSITIVE, POS_INF, STR, BYTES, TUPLE = (
    0x01, 0x10, 0x11, 0x12, 0x13, 0x14, 0x20, 0x21, 0x30)
END, ESCAPE = b"\x00", b"\xff"
INT_BITS_MAX = 8192
KEY_BYTES_MAX = 1024
DEPTH_MAX = 64


class Refused(Exception):
    """The value is no key."""


def magnitude(numerator, denominator):
    """Of a positive number whose denominator is a power of two: exponent of its highest bit, then the
    bits below that one."""
    exponent = numerator.bit_length() - denominator.bit_length()
    if exponent >= INT_BITS_MAX:
        raise Refused("number too large")
    bits = bin(numerator)[3:].rstrip("0")
    encoded = (exponent + 0x8000).to_bytes(2, "big")
    groups = [bits[i:i + 7].ljust(7, "0") for i in range(0, len(bits), 7)] or ["0000000"]
    last = len(groups) - 1
    return encoded + bytes(int(group, 2) << 1 | (i < last) for i, group in enumerate(groups))


def escaped(data):
    return data.replace(END, END + ESCAPE) + END


def encode_part(value, depth=0):
    if value is None:
        return bytes([NONE])
    if isinstance(value, float) and math.isnan(value):
        raise Refused("not a number")
    if isinstance(value, float) and math.isinf(value):
        return bytes([POS_INF if value > 0 else NEG_INF])
    if isinstance(value, (bool, int, float)):
        numerator, denominator = value.as_integer_ratio()
        if numerator == 0:
            return bytes([ZERO])
        encoded = magnitude(abs(numerator), denominator)
        if numerator > 0:
            return bytes([POSITIVE]) + encoded
        return bytes([NEGATIVE]) + bytes(0xff - byte for byte in encoded)
    if isinstance(value, str):
        return bytes([STR]) + escaped(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return bytes([BYTES]) + escaped(value)
    if isinstance(value, tuple):
        if depth == DEPTH_MAX:
            raise Refused("nested too deeply")
        return bytes([TUPLE]) + b"".join(encode_part(part, depth + 1) for part in value) + END
    raise Refused("no type of a key")


def encode(value):
    encoded = encode_part(value)
    if len(encoded) > KEY_BYTES_MAX:
        raise Refused("too long")
    return encoded


def rank(value):
    for number, kinds in enumerate([type(None), (bool, int, float), str, bytes, tuple]):
        if isinstance(value, kinds):
            return number
    raise TypeError(value)


def compare(a, b):
    """The order of keys, worked out from their values. Python compares ints with floats exactly."""
    if rank(a) != rank(b):
        return rank(a) - rank(b)
    if a is None:
        return 0
    if isinstance(a, tuple):
        for one, other in zip(a, b):
            if compare(one, other):
                return compare(one, other)
        return len(a) - len(b)
    return (a > b) - (a < b)


def spelt(value):
    """A Python literal in ASCII; infinities have none but an overflow."""
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    if isinstance(value, tuple):
        inner = ", ".join(map(spelt, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return ascii(value)


def numbers():
    values = [0, False, -0.0, 1, True, 1.0, -1, 0.5, 0.1, -0.1, 1.5, 2, 3, 7, 8, 255, 256, 1e-7, 1e22, 1e23, 1e300,
              float("inf"), float("-inf"), 5e-324, 2.2250738585072014e-308, 2.225073858507201e-308,
              1.7976931348623157e308, 10**400, 2**1024, 2**8191, 2**8192 - 2**8000,
              sys.float_info.epsilon, 1 + sys.float_info.epsilon, math.pi]
    for bits in [7, 8, 14, 15, 31, 32, 52, 53, 54, 63, 64, 65, 100, 127, 128, 1000]:
        values += [2**bits - 1, 2**bits, 2**bits + 1]
    # Neighbours of floats that are no floats themselves.
    values += [int(1e22) - 1, int(1e22) + 1, int(1.7976931348623157e308) - 1, 2**53 + 1, 2.0**53]
    return values + [-value for value in values]


def texts():
    letters = ["", "\x00", "\x00\x00", "\x01", "a", "a\x00", "a\x00b", "a\x01", "aa", "ab", "b", "\x7f", "\x80", "\xff",
               "\u07ff", "\u0800", "\ud7ff", "\ud800", "\udbff", "\udc00", "\udfff", "\ue000", "\uffff", "\U00010000",
               "\ud83d\ude00", "\U0001f600", "\U0010ffff", "x", "'", '"', "'\"", "\\", "\n\r\t", "None", "1", "b'x'"]
    return letters + ["key-%d" % number for number in range(12)]


def byte_strings():
    raw = [b"", b"\x00", b"\x00\xff", b"\x00\x00", b"\x01", b"a", b"a\x00", b"a\x00\xff", b"aa", b"ab", b"x", b"\xfe", b"\xff",
           b"\xff\xff", b"'", b'"', b"'\"", b"\\", bytes(range(256))]
    return raw


def tuples(simple, random_state):
    values = [(), (None,), ((),), ((), ()), (((),),), ("a",), ("a", None), ("a", 0), ("a\x00",), ("a", ""), ("a", "b"),
              ("ab",), (b"a",), (1,), (1.0, "x"), (True, "x", b"x"), (1, 2), (1, 2, 3), (1, (2, 3)), ((1, 2), 3),
              (-1,), (-1, 0), (-1.5, 0), (float("-inf"),), (float("inf"), None), ("account", 7), ("account", 10),
              ("account", -7), ("account", 7.5)]
    deep = ()
    for _ in range(DEPTH_MAX - 1):
        deep = (deep,)
    values.append(deep)
    for _ in range(120):
        values.append(nested(simple, random_state, 0))
    return values


def nested(simple, random_state, depth):
    parts = []
    for _ in range(random_state.randrange(4)):
        if depth < 3 and random_state.random() < 0.3:
            parts.append(nested(simple, random_state, depth + 1))
        else:
            parts.append(random_state.choice(simple))
    return tuple(parts)


def random_numbers(random_state):
    values = []
    for _ in range(60):
        values.append(random_state.randrange(-2**random_state.randrange(1, 200), 2**random_state.randrange(1, 200)))
        values.append(math.ldexp(random_state.uniform(-1, 1), random_state.randrange(-1060, 1020)))
    return values


def random_texts(random_state):
    alphabet = ["\x00", "\x01", "a", "b", "\xe9", "\ud800", "\udfff", "\uffff", "\U00010000", "\U0010ffff"]
    return ["".join(random_state.choices(alphabet, k=random_state.randrange(6))) for _ in range(60)]


def refused():
    too_deep = ()
    for _ in range(DEPTH_MAX):
        too_deep = (too_deep,)
    candidates = [2**8192, -2**8192, too_deep, "x" * 1023, ("x" * 1021,), "\x00" * 512, b"x" * 1023, 2**7200 + 1]
    for value in candidates:
        try:
            encode(value)
        except Refused as why:
            yield {"key": spelt(value), "why": str(why)}
        else:
            raise SystemExit("not refused: %r" % (value,))


# No encoding of any key: what a decoder must not take.
INVALID = [
    ("", "nothing"),
    ("00", "an end without a beginning"),
    ("02", "no such tag"),
    ("ff", "no such tag"),
    ("0100", "something behind the end"),
    ("1300", "cut short"),
    ("138000", "cut short"),
    ("13800001", "cut short"),
    ("1380000100", "zeros at the end of a mantissa"),
    ("13a00000", "an exponent beyond the largest"),
    ("13000000", "an exponent below the smallest float's"),
    ("137fff0101010101010102", "no float has so many bits"),
    ("2061", "no end"),
    ("206100ff", "no end"),
    ("20c08000", "an overlong code point"),
    ("20ff00", "no UTF-8"),
    ("20f490808000", "beyond the last code point"),
    ("2061c300", "a code point cut short"),
    ("30", "no end"),
    ("3001", "no end"),
    ("300000", "something behind the end"),
    ("30" * 65 + "00" * 65, "nested too deeply"),
]


def vectors():
    random_state = random.Random(4)
    simple = [None] + numbers() + texts() + byte_strings()
    simple += random_numbers(random_state) + random_texts(random_state)
    # The longest ones.
    longest = ["x" * 1022, b"x" * 1022, ("x" * 1020,), "\x00" * 511]
    values = simple + longest + tuples(simple, random_state)
    ordered = []
    for value in sorted(values, key=functools.cmp_to_key(compare)):
        encoded, literal = encode(value), spelt(value)
        if ordered and compare(ordered[-1][0], value) == 0:
            assert ordered[-1][1] == encoded, (ordered[-1], value)
            if literal not in ordered[-1][2]:
                ordered[-1][2].append(literal)
            continue
        assert not ordered or ordered[-1][1] < encoded, (ordered[-1], value)
        ordered.append((value, encoded, [literal]))
    return {
        "about": "Keys as Python literals, with their encodings, in order. Spellings of one entry are one key. "
                 "Written by generate_stm_keys.py.",
        "ordered": [{"hex": encoded.hex(), "keys": keys} for _, encoded, keys in ordered],
        "refused": list(refused()),
        "invalid": [{"hex": text, "why": why} for text, why in INVALID],
    }


def as_text(found):
    """One entry a line, so that a change shows as one."""
    lines = ["{", ' "about": %s,' % json.dumps(found["about"])]
    lists = ["ordered", "refused", "invalid"]
    for name in lists:
        lines.append(' "%s": [' % name)
        lines.append(",\n".join("  " + json.dumps(entry) for entry in found[name]))
        lines.append(" ]" if name == lists[-1] else " ],")
    return "\n".join(lines + ["}", ""])


def main():
    path = pathlib.Path(__file__).with_name("stm_keys.json")
    text = as_text(vectors())
    if "--check" in sys.argv[1:]:
        if path.read_text(encoding="ascii") != text:
            raise SystemExit("%s is out of date: run %s" % (path, __file__))
    else:
        path.write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
