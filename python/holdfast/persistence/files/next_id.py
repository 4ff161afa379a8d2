"""The ids that a directory gives out (P1).

The file ``next-id`` holds the first id that was not given out; blocks of them are taken under the
directory's lock, and the file is synced before any of a block is used. Where an older copy of the
directory was restored, or the file was lost, the clock is the second line of defence: ids never
begin below a line that rises with wall-clock time, much faster than they are given out, so that
those which were given out since the copy was made lie below it.
"""

from __future__ import annotations

import re
import time
import zlib

from holdfast.persistence import ids
from holdfast.persistence.errors import DamagedObject
from holdfast.persistence.files.directory import Locked

_FILE = "next-id"
_IDS_PER_SECOND = 2_000_000
"""How fast the line rises under which no block begins: faster than a directory can give ids out,
and slow enough that the ids last until the year 2112."""
_FORM = re.compile(rb"(holdfast-ids 1\nnext ([0-9]{1,20})\n)crc32 ([0-9a-f]{8})\n")


def lease(directory: Locked, count: int, unix_seconds: int | None = None) -> range:
    """Takes so many ids, never given out before and never again.

    Raises:
        DamagedObject: The file does not say which is next, or there are no more.
    """
    now = int(time.time()) if unix_seconds is None else unix_seconds
    first = max(upcoming(directory), ids.LOWEST + now * _IDS_PER_SECOND)
    end = first + count
    if end > ids.HIGHEST + 1:
        how = f"{count} ids from {first} on would end above {ids.HIGHEST}"
        raise DamagedObject(directory.path_of(_FILE), how)
    body = b"holdfast-ids 1\nnext %d\n" % end
    directory.replace_file(_FILE, body + b"crc32 %08x\n" % zlib.crc32(body))
    return range(first, end)


def upcoming(directory: Locked) -> int:
    """The first id that was certainly not given out.

    Raises:
        DamagedObject: The file does not say.
    """
    data = directory.file(_FILE)
    if data is None:
        present = directory.ids()
        return present[-1] + 1 if present else ids.LOWEST
    form = _FORM.fullmatch(data)
    if form is None or b"%08x" % zlib.crc32(form[1]) != form[3]:
        how = (
            "it does not say which id is next; without it ids go on above those of all objects "
            "that are there, and above all that the clock allows for"
        )
        raise DamagedObject(directory.path_of(_FILE), how)
    return int(form[2])
