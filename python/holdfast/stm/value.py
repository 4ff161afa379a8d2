"""Variables and what they hold.

The cluster stores bytes with a tag that says what they are, and never looks into them. Values of
Python are written as bytes if they are that, as a JSON text if that says exactly what they are, and
else as a pickle: so programs in other languages read whatever has a form that they know.

Invariant: what is decoded equals what was encoded, types and shared parts included.
"""

from __future__ import annotations

import enum
import json
import math
import pickle
from dataclasses import dataclass, field
from typing import Any

from holdfast._wire import stm_pb2
from holdfast.errors import HoldfastError

from .key import Key, decode

JSON_DEPTH_MAX = 100
"""How deep lists and dicts nest in JSON texts; deeper ones are pickled.

Other languages' readers take little more (serde_json: 127).
"""
JSON_INT_BITS_MAX = 2126
"""Most bits of an int in JSON texts: less than 640 digits, which every Python converts.

sys.set_int_max_str_digits cannot be set lower.
"""
PICKLE_PROTOCOL = 5
"""What every Python reads that this package runs on (PEP 574); fixed, so that bytes stay alike."""


class Codec(enum.Enum):
    """What the bytes of a value are."""

    BYTES = stm_pb2.CODEC_BYTES
    """Bytes that mean what the programs have agreed on."""
    JSON = stm_pb2.CODEC_JSON
    """A JSON text: what every language reads."""
    PICKLE = stm_pb2.CODEC_PICKLE
    """A Python pickle. To load one runs whatever it says."""


class CodecError(HoldfastError, TypeError):
    """A value that cannot be written, or that is not read as what it is."""


@dataclass(frozen=True)
class Content:
    """What a variable holds: bytes, and what they are."""

    codec: Codec
    data: bytes

    def __repr__(self) -> str:
        if self.codec is Codec.JSON:
            return self.data.decode(errors="backslashreplace")
        return f"<{self.codec.name.lower()}, {len(self.data)} bytes>"

    @staticmethod
    def of(value: object, *, allow_pickle: bool = True) -> Content:
        """A value in the first form that fits it exactly: bytes, JSON, pickle.

        Raises:
            CodecError: it cannot be pickled, or has to be and that is not allowed.
        """
        if type(value) is bytes:
            return Content(Codec.BYTES, value)
        if _fits_json(value, 0, set()):
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return Content(Codec.JSON, text.encode())
        if not allow_pickle:
            raise CodecError(
                f"a {type(value).__name__} has no exact JSON form, and pickles are not allowed: "
                f"{value!r:.100}"
            )
        try:
            return Content(Codec.PICKLE, pickle.dumps(value, PICKLE_PROTOCOL))
        except Exception as error:  # whatever the value's own methods raise
            raise CodecError(f"a {type(value).__name__} cannot be pickled: {error}") from error

    def decode(self, *, allow_pickle: bool = False) -> Any:
        """The value, a new one each time.

        Args:
            allow_pickle: whether pickles are loaded, which runs whatever they say; only for what is
                written by programs that are trusted.

        Raises:
            CodecError: it is a pickle and that is not allowed, or it is not what its tag says.
        """
        try:
            if self.codec is Codec.BYTES:
                return self.data
            if self.codec is Codec.JSON:
                return json.loads(self.data)
            if allow_pickle:
                return pickle.loads(self.data)
        except Exception as error:  # whatever the pickle runs may raise
            raise CodecError(f"the value cannot be read as {self.codec.name}: {error}") from error
        raise CodecError(
            f"the value is a pickle of {len(self.data)} bytes, and those are not loaded"
        )


@dataclass(frozen=True)
class Variable:
    """A variable as the cluster has it."""

    key: Key
    """Its name."""
    version: int
    """How often it has been written since it was created; 0: it is not there."""
    mod_revision: int
    """The revision that wrote it last; 0: it is not there."""
    content: Content | None
    """What it holds; None if it is not there, and where values were not asked for or left out."""
    allow_pickle: bool = field(default=False, repr=False, compare=False)
    """Whether :attr:`value` loads pickles; as its store says."""

    @property
    def value(self) -> Any:
        """What it holds, a new copy each time; None if there is no content.

        Raises CodecError as :meth:`Content.decode`.
        """
        if self.content is None:
            return None
        return self.content.decode(allow_pickle=self.allow_pickle)


@dataclass(frozen=True)
class Snapshot:
    """Variables as they were at one revision."""

    revision: int
    """What they are true at."""
    variables: tuple[Variable, ...]
    """In order of their keys, or in the order asked for."""

    def values(self) -> dict[Key, Any]:
        """What those hold that are there, by their keys.

        Raises CodecError as :attr:`Variable.value`.
        """
        return {found.key: found.value for found in self.variables if found.version > 0}


def from_wire(found: stm_pb2.Variable, has_value: bool, allow_pickle: bool) -> Variable:
    """A variable as it came; ``has_value`` says whether its value did."""
    content = Content(_codec(found.codec), found.value) if has_value and found.version else None
    return Variable(decode(found.key), found.version, found.mod_revision, content, allow_pickle)


def _codec(tag: int) -> Codec:
    """A tag that this release does not know is bytes to it."""
    known = (Codec.JSON, Codec.PICKLE)
    return next((codec for codec in known if codec.value == tag), Codec.BYTES)


def _fits_json(value: Any, depth: int, seen: set[int]) -> bool:
    """Whether a JSON text says exactly what the value is.

    It does not say that two parts are one object, nor which subclass something is of.
    """
    kind = type(value)
    if value is None or kind is bool:
        return True
    if kind is int:
        return bool(value.bit_length() <= JSON_INT_BITS_MAX)
    if kind is float:
        return math.isfinite(value)
    if kind is str:
        return _is_utf8(value)
    if kind not in (list, dict) or depth == JSON_DEPTH_MAX or id(value) in seen:
        return False
    # All are alive as parts of the value, so no two have one id.
    seen.add(id(value))
    if kind is dict:
        if not all(type(key) is str and _is_utf8(key) for key in value):
            return False
        value = value.values()
    return all(_fits_json(inner, depth + 1, seen) for inner in value)


def _is_utf8(text: str) -> bool:
    """Whether it has no surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
