"""The ids of stored objects: numbers of 16 digits that a store gives out once, for ever (P1).

In texts they have 16 digits, so that the order of texts is that of numbers.
"""

from __future__ import annotations

import re

LOWEST = 10**15
"""The lowest id there is."""
HIGHEST = 10**16 - 1
"""The highest id there is."""

_BLOCKS_MAX = 64
"""Most blocks that are kept; more come only from many threads that ran out together, and what does
not fit is forgone."""
_ID = re.compile("[1-9][0-9]{15}", re.ASCII)


def is_id(number: int) -> bool:
    """Whether it has 16 digits."""
    return LOWEST <= number <= HIGHEST


def parse(text: str) -> int | None:
    """The number that a text of 16 digits stands for; none for any other text."""
    return int(text) if _ID.fullmatch(text) else None


class IdBlocks:
    """Ids that were taken from a store and not used yet. Used under its owner's lock."""

    def __init__(self) -> None:
        self._blocks: list[range] = []

    def take(self, count: int) -> list[int] | None:
        """So many ids, if there are as many in one block."""
        if count == 0:
            return []
        for place, block in enumerate(self._blocks):
            if len(block) > count:
                self._blocks[place] = block[count:]
                return list(block[:count])
            if len(block) == count:
                del self._blocks[place]
                return list(block)
        return None

    def keep(self, block: range) -> None:
        """Adds ids that were leased and not used."""
        if block and len(self._blocks) < _BLOCKS_MAX:
            self._blocks.append(block)
