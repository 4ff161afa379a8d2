"""The URIs that name stores."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.persistence.errors import BadUri

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
"""RFC 3986, section 3.1."""


@dataclass(frozen=True)
class Uri:
    """A URI, taken apart: ``scheme://authority/path?name=value&…``, or a bare path: a file."""

    scheme: str
    """In lower case; ``file`` for a bare path."""
    authority: str
    """Between ``//`` and the path: hosts."""
    path: str
    """From the first ``/`` behind that on, decoded."""
    query: tuple[tuple[str, str], ...]
    """What stands behind ``?``, decoded, in its order."""
    text: str

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Takes a text apart.

        Raises:
            BadUri: It is empty, or something in it is not UTF-8 once it is decoded.
        """
        if not text:
            raise BadUri(text, "it is empty")
        scheme, separator, rest = text.partition("://")
        if not separator or not is_scheme(scheme):
            return cls("file", "", text, (), text)
        place, _, query = rest.partition("?")
        authority, slash, path = place.partition("/")
        pairs = []
        for pair in filter(None, query.split("&")):
            name, _, value = pair.partition("=")
            pairs.append((_decode(name, text), _decode(value, text)))
        return cls(scheme.lower(), authority, _decode(slash + path, text), tuple(pairs), text)

    def bad(self, why: str) -> BadUri:
        """The error of a constructor that cannot use this URI."""
        return BadUri(self.text, why)

    def __str__(self) -> str:
        return self.text


def is_scheme(text: str) -> bool:
    """Whether it is letters, digits, ``+``, ``-`` and ``.``, a letter first."""
    return _SCHEME.fullmatch(text) is not None


def _decode(text: str, uri: str) -> str:
    """Percent-decoding: RFC 3986, section 2.1."""
    head, *escaped = text.split("%")
    decoded = bytearray(head.encode())
    for part in escaped:
        digits = part[:2]
        if re.fullmatch(r"[0-9A-Fa-f]{2}", digits) is None:
            raise BadUri(uri, "a % in it stands for no text")
        decoded.append(int(digits, 16))
        decoded += part[2:].encode()
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise BadUri(uri, "a % in it stands for no text") from None
