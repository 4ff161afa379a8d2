"""Keys of variables: what they are made of, and their bytes.

A key is ``None``, a bool, an int, a float, a str, bytes, or a tuple of these. Its *encoding* is
canonical (equal keys have equal bytes, as in a dict: ``1``, ``1.0`` and ``True`` are one key,
``'x'`` and ``b'x'`` are two) and keeps the order: none, then numbers by value, texts by code
points, byte strings by bytes, tuples by their parts, a tuple before a longer one that begins so.
docs/formats.md has the bytes, proto/vectors/stm_keys.json examples for every language.

Each part is a tag and what follows; texts, byte strings and tuples end in a zero byte, and a zero
byte inside the first two is followed by 0xff. No tag is 0xff, and none is zero, so an end sorts
before whatever goes on.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Union

KEY_BYTES_MAX = 1024
"""Longest encoding, in bytes; the cluster's limit for names (G9)."""
DEPTH_MAX = 64
"""How deep tuples nest: more than any key needs, and little enough for everybody's stack."""
INT_BITS_MAX = 8192
"""Most bits of an int. One without zeros at its end does not fit much earlier (about 7,100)."""

_NONE = 0x01
_NEGATIVE_INFINITY = 0x10
_NEGATIVE = 0x11
_ZERO = 0x12
_POSITIVE = 0x13
_INFINITY = 0x14
_TEXT = 0x20
_BYTES = 0x21
_TUPLE = 0x30
# Ends texts, byte strings and tuples.
_END = b"\x00"
# Behind a zero byte that is no end.
_ESCAPE = b"\xff"

# Added to exponents, so that they are in order as unsigned numbers.
_BIAS = 0x8000
# Bits behind a number's first one that are in one byte; its lowest bit says whether there are more.
_GROUP_BITS = 7
# Bits of a float's mantissa, the first one included.
_FLOAT_BITS = 53
# Exponent of the lowest bit that a float can have.
_FLOAT_LOWEST = -1074


@dataclass(frozen=True, order=True)
class RawKey:
    """A key that another program has stored, and whose bytes are no encoding of anything."""

    encoded: bytes

    def __repr__(self) -> str:
        return f"<hex {self.encoded.hex()}>"


Part = Union[None, bool, int, float, str, bytes, tuple["Part", ...]]
"""What a key is made of.

Several of these can be the same key: a bool is the int 0 or 1, and a float without a fraction is an
int.
"""
Key = Union[Part, RawKey]
"""The name of a variable."""


def encode(key: Key) -> bytes:
    """The encoding of a key.

    Raises:
        TypeError: it is of another type than keys have, or has such a one inside.
        ValueError: it is NaN, an int beyond 8,192 bits, nested more than 64 deep, or longer than
            1,024 bytes.
    """
    if isinstance(key, RawKey):
        return key.encoded
    encoded: list[bytes] = []
    _encode_part(key, 0, encoded)
    return _checked(b"".join(encoded))


def encode_prefix(part: Part) -> bytes:
    """What the encodings of all keys begin with that go on as this one begins, itself included.

    Those are the texts that begin with a text, byte strings with a byte string, and tuples with the
    parts of a tuple; of none or a number it is itself alone. Raises as :func:`encode`.
    """
    encoded = encode(part)
    return encoded[:-1] if isinstance(part, (str, bytes, tuple)) else encoded


def decode(encoded: bytes) -> Key:
    """The key that has this encoding, in the simplest form: whole numbers are ints.

    Bytes that no key is encoded to come back as a :class:`RawKey`.
    """
    try:
        return decode_part(encoded)
    except ValueError:
        return RawKey(encoded)


def decode_part(encoded: bytes) -> Part:
    """As :func:`decode`, but raises ValueError for bytes that no key is encoded to."""
    part, at = _decode_part(encoded, 0, 0)
    if at != len(encoded):
        raise ValueError("not the encoding of a key: something is behind its end")
    return part


def _checked(encoded: bytes) -> bytes:
    actual = len(encoded)
    if actual > KEY_BYTES_MAX:
        raise ValueError(f"the key takes {actual} bytes, and at most {KEY_BYTES_MAX} are allowed")
    return encoded


def _encode_part(part: object, depth: int, out: list[bytes]) -> None:
    if part is None:
        out.append(bytes([_NONE]))
    elif isinstance(part, int):
        out.append(_encode_int(operator.index(part)))
    elif isinstance(part, float):
        out.append(_encode_float(part))
    elif isinstance(part, str):
        out += [bytes([_TEXT]), _escaped(part.encode("utf-8", "surrogatepass")), _END]
    elif isinstance(part, bytes):
        out += [bytes([_BYTES]), _escaped(part), _END]
    elif isinstance(part, tuple):
        if depth == DEPTH_MAX:
            raise ValueError(f"tuples of a key are nested more than {DEPTH_MAX} deep")
        out.append(bytes([_TUPLE]))
        for inner in part:
            _encode_part(inner, depth + 1, out)
        out.append(_END)
    else:
        raise TypeError(
            "a key is None, a bool, an int, a float, a str, bytes, or a tuple of these, "
            f"and not {type(part).__name__}: {part!r:.100}"
        )


def _escaped(data: bytes) -> bytes:
    return data.replace(_END, _END + _ESCAPE)


def _encode_int(number: int) -> bytes:
    bits = number.bit_length()
    if bits > INT_BITS_MAX:
        raise ValueError(f"an int of a key has {bits} bits, and at most {INT_BITS_MAX} are allowed")
    return _encode_number(number, 0)


def _encode_float(number: float) -> bytes:
    if math.isnan(number):
        raise ValueError("NaN cannot be a key, nor a part of one")
    if math.isinf(number):
        return bytes([_INFINITY if number > 0 else _NEGATIVE_INFINITY])
    numerator, denominator = number.as_integer_ratio()
    return _encode_number(numerator, 1 - denominator.bit_length())


def _encode_number(signed: int, lowest: int) -> bytes:
    """Encodes ``signed * 2**lowest``.

    A tag for the sign, the exponent of the highest bit, and the bits below that one without the
    zeros at the end. Of a negative number all behind the tag is complemented.
    """
    if signed == 0:
        return bytes([_ZERO])
    mantissa = abs(signed)
    highest = mantissa.bit_length() - 1
    exponent = highest + lowest
    zeros = (mantissa & -mantissa).bit_length() - 1
    bits = highest - zeros
    groups = max(1, -(-bits // _GROUP_BITS))
    below = ((mantissa >> zeros) ^ (1 << bits)) << (groups * _GROUP_BITS - bits)
    body = bytearray((exponent + _BIAS).to_bytes(2, "big"))
    for later in range(groups - 1, -1, -1):
        group = (below >> (later * _GROUP_BITS)) & 0x7F
        body.append(group << 1 | (later > 0))
    if signed > 0:
        return bytes([_POSITIVE]) + body
    return bytes([_NEGATIVE]) + bytes(0xFF ^ byte for byte in body)


def _byte(encoded: bytes, at: int) -> int:
    if at >= len(encoded):
        raise ValueError("not the encoding of a key: it is cut short")
    return encoded[at]


def _decode_part(encoded: bytes, at: int, depth: int) -> tuple[Part, int]:
    """The part that begins at ``at``, and where it ends."""
    tag, at = _byte(encoded, at), at + 1
    if tag in _SIMPLE:
        return _SIMPLE[tag], at
    if tag in (_POSITIVE, _NEGATIVE):
        return _decode_number(encoded, at, tag == _NEGATIVE)
    if tag == _TEXT:
        data, at = _unescaped(encoded, at)
        try:
            return data.decode("utf-8", "surrogatepass"), at
        except UnicodeDecodeError as error:
            raise ValueError(f"not the encoding of a key: a text is no UTF-8: {error}") from None
    if tag == _BYTES:
        return _unescaped(encoded, at)
    if tag == _TUPLE and depth < DEPTH_MAX:
        parts: list[Part] = []
        while _byte(encoded, at) != _END[0]:
            part, at = _decode_part(encoded, at, depth + 1)
            parts.append(part)
        return tuple(parts), at + 1
    what = "it is nested too deeply" if tag == _TUPLE else "it has a tag that no kind of key has"
    raise ValueError(f"not the encoding of a key: {what}")


_SIMPLE = {_NONE: None, _NEGATIVE_INFINITY: -math.inf, _ZERO: 0, _INFINITY: math.inf}


def _unescaped(encoded: bytes, at: int) -> tuple[bytes, int]:
    """Bytes up to their end, and where what follows begins."""
    pieces: list[bytes] = []
    while True:
        end = encoded.find(_END, at)
        if end < 0:
            raise ValueError("not the encoding of a key: it is cut short")
        pieces.append(encoded[at:end])
        if encoded[end + 1 : end + 2] != _ESCAPE:
            return _END.join(pieces), end + 1
        at = end + 2


def _decode_number(encoded: bytes, at: int, is_negative: bool) -> tuple[Part, int]:
    flip = 0xFF if is_negative else 0
    exponent = ((_byte(encoded, at) ^ flip) << 8 | (_byte(encoded, at + 1) ^ flip)) - _BIAS
    first = at = at + 2
    mantissa = 1
    while True:
        group, at = _byte(encoded, at) ^ flip, at + 1
        mantissa = mantissa << _GROUP_BITS | group >> 1
        if not group & 1:
            break
    if group == 0 and at - first > 1:
        raise ValueError("not the encoding of a key: a mantissa ends in zeros")
    mantissa >>= (mantissa & -mantissa).bit_length() - 1
    lowest = exponent - (mantissa.bit_length() - 1)
    sign = -1 if is_negative else 1
    if lowest >= 0:
        if exponent >= INT_BITS_MAX:
            raise ValueError("not the encoding of a key: an int is too large")
        return sign * (mantissa << lowest), at
    if mantissa.bit_length() > _FLOAT_BITS or lowest < _FLOAT_LOWEST:
        raise ValueError("not the encoding of a key: a number is neither whole nor a float")
    return sign * math.ldexp(mantissa, lowest), at
