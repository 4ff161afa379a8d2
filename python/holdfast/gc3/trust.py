"""What of a store is unpickled, as the environment says it.

GC3Pie's tools make a store of nothing but the URL that a session's directory has, and keys do not
belong into URLs. So programs that are given neither take both from here:

- ``HOLDFAST_PICKLE_KEY_FILE`` names a file; its bytes, without white space around them, are the key
  that objects are signed with.
- ``HOLDFAST_PICKLE_ALLOW`` lists what pickles may use, separated by commas: ``gc3libs.*,jobs.*``.
"""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.gc3.errors import UnusableKey

KEY_FILE = "HOLDFAST_PICKLE_KEY_FILE"
ALLOW = "HOLDFAST_PICKLE_ALLOW"

_KEY_BYTES_MIN = 16
"""Shorter keys can be guessed."""


def key() -> bytes | None:
    """The key; none if there is to be none.

    Raises:
        UnusableKey: Its file cannot be read, or there are fewer than 16 bytes in it.
    """
    path = os.environ.get(KEY_FILE)
    if not path:
        return None
    try:
        found = Path(path).read_bytes().strip()
    except OSError as error:
        raise UnusableKey(path, error.strerror or str(error)) from error
    if len(found) < _KEY_BYTES_MIN:
        raise UnusableKey(path, f"{len(found)} bytes, and at least {_KEY_BYTES_MIN} are needed")
    return found


def allow() -> list[str] | None:
    """What pickles may use; none: everything."""
    listed = os.environ.get(ALLOW)
    if listed is None:
        return None
    return [name.strip() for name in listed.split(",") if name.strip()]
