"""Header blocks of HTTP/2 (RFC 7541): what a gRPC client needs of it.

Requests are written without references to earlier ones, so that a block is the same bytes every
time. Responses are decoded in full: static and dynamic table, and Huffman coding.

It leaves out what it need not do: it never compresses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

TABLE_BYTES_MAX = 4096
"""The dynamic table's size that a connection begins with (RFC 9113, 6.5.2), in bytes."""
_ENTRY_OVERHEAD = 32
"""What an entry counts on top of its texts (RFC 7541, 4.1), in bytes."""
_CACHE_MAX = 256
"""How many Huffman-coded texts are remembered with what they mean."""

# RFC 7541, Appendix A: the names behind those that come with values.
_NAMES = """
accept-language accept-ranges accept access-control-allow-origin age allow authorization
cache-control content-disposition content-encoding content-language content-length content-location
content-range content-type cookie date etag expect expires from host if-match if-modified-since
if-none-match if-range if-unmodified-since last-modified link location max-forwards
proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie
strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""
_STATIC: list[tuple[str, str]] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    *((":status", code) for code in ("200", "204", "206", "304", "400", "404", "500")),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    *((name, "") for name in _NAMES.split()),
]
_STATIC_INDEX = {name: 1 + i for i, (name, _) in reversed(list(enumerate(_STATIC)))}
_STATIC_PAIR = {pair: 1 + i for i, pair in reversed(list(enumerate(_STATIC)))}

# RFC 7541, Appendix B. The code is canonical, so the lengths are all there is to it: of byte 0
# first, A for five bits, B for six.
_HUFFMAN_LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHF"
    "IBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIX"
    "PRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRSQRSSPRRRSRSS"
    "VVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWV"
)


class CodingError(Exception):
    """The other side's header blocks cannot be read: the connection is of no more use."""


def literal(name: str, value: str) -> bytes:
    """A header field that leaves nothing in any table."""
    pair = _STATIC_PAIR.get((name, value))
    if pair is not None:
        return _integer(pair, 7, 0x80)
    index = _STATIC_INDEX.get(name, 0)
    named = _integer(index, 4, 0x00)
    if index == 0:
        named += _text(name)
    return named + _text(value)


class Decoder:
    """Reads the header blocks of one connection, in the order in which they come."""

    def __init__(self) -> None:
        self._table: deque[tuple[str, str]] = deque()
        self._bytes = 0
        self._bytes_max = TABLE_BYTES_MAX

    def decode(self, block: bytes) -> list[tuple[str, str]]:
        """The header fields of a block.

        Raises:
            CodingError: it is not one.
        """
        try:
            return self._decode(block)
        except (IndexError, UnicodeDecodeError) as error:
            raise CodingError("a header block is damaged") from error

    def _decode(self, block: bytes) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        at = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _read_integer(block, at, 7)
                fields.append(self._entry(index))
            elif first & 0x40:
                field, at = self._read_literal(block, at, 6)
                fields.append(field)
                self._remember(field)
            elif first & 0x20:
                size, at = _read_integer(block, at, 5)
                if size > TABLE_BYTES_MAX:
                    raise CodingError(f"a header table of {size} bytes was not agreed upon")
                self._bytes_max = size
                self._evict()
            else:
                field, at = self._read_literal(block, at, 4)
                fields.append(field)
        return fields

    def _entry(self, index: int) -> tuple[str, str]:
        if index == 0:
            raise CodingError("header field 0 does not exist")
        if index <= len(_STATIC):
            return _STATIC[index - 1]
        return self._table[index - len(_STATIC) - 1]

    def _read_literal(self, block: bytes, at: int, prefix: int) -> tuple[tuple[str, str], int]:
        index, at = _read_integer(block, at, prefix)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _read_text(block, at)
        value, at = _read_text(block, at)
        return (name, value), at

    def _remember(self, field: tuple[str, str]) -> None:
        self._table.appendleft(field)
        self._bytes += _size(field)
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self._bytes_max:
            self._bytes -= _size(self._table.pop())


def _size(field: tuple[str, str]) -> int:
    return len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD


def _integer(value: int, prefix: int, flags: int) -> bytes:
    """RFC 7541, 5.1."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([flags | value])
    encoded = bytearray([flags | limit])
    value -= limit
    while value >= 0x80:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _text(text: str) -> bytes:
    encoded = text.encode("latin-1")
    return _integer(len(encoded), 7, 0x00) + encoded


def _read_integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    limit = (1 << prefix) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
        if shift > 28:
            raise CodingError("a number in a header block is too large")


def _read_text(block: bytes, at: int) -> tuple[str, int]:
    is_coded = block[at] & 0x80
    length, at = _read_integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise CodingError("a header block is cut short")
    raw = block[at:end]
    return (_uncoded(raw) if is_coded else raw.decode("latin-1")), end


class _Huffman:
    """The code, by the length of its words: where each length begins, and its symbols in order."""

    bits_max = 30

    def __init__(self) -> None:
        lengths = [ord(letter) - ord("A") + 5 for letter in _HUFFMAN_LENGTHS]
        self.symbols = sorted(range(256), key=lambda symbol: (lengths[symbol], symbol))
        self.firsts: list[int] = []  # the first word of a length, filled up to 30 bits
        self.lengths: list[int] = []
        self.offsets: list[int] = []  # where the symbols of a length begin
        word = length = 0
        for i, symbol in enumerate(self.symbols):
            if lengths[symbol] != length:
                word <<= lengths[symbol] - length
                length = lengths[symbol]
                self.firsts.append(word << (self.bits_max - length))
                self.lengths.append(length)
                self.offsets.append(i)
            word += 1

    def decode(self, coded: bytes) -> str:
        """What a text means that ends with up to seven ones (RFC 7541, 5.2)."""
        left = 8 * len(coded)
        # Ones behind it, so that there are always as many bits as the longest word has.
        bits = int.from_bytes(coded, "big") << self.bits_max | (1 << self.bits_max) - 1
        decoded = bytearray()
        while left > 0:
            ahead = bits >> left & (1 << self.bits_max) - 1
            nth = bisect_right(self.firsts, ahead) - 1
            length = self.lengths[nth]
            if length > left:
                break
            place = self.offsets[nth] + ((ahead - self.firsts[nth]) >> (self.bits_max - length))
            decoded.append(self.symbols[place])
            left -= length
        padding = bits >> self.bits_max & (1 << left) - 1
        if left > 7 or padding != (1 << left) - 1:
            raise CodingError("a Huffman-coded text does not end as it must")
        return decoded.decode("latin-1")


_huffman = _Huffman()
_cache: dict[bytes, str] = {}


def _uncoded(coded: bytes) -> str:
    text = _cache.get(coded)
    if text is None:
        text = _huffman.decode(coded)
        if len(_cache) >= _CACHE_MAX:
            _cache.clear()
        _cache[coded] = text
    return text
