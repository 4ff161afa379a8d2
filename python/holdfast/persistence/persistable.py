"""What can be stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Persistable:
    """A mix-in: an object that is stored on its own, once, however many refer to it.

    Any object that can be pickled and takes attributes can be saved; what it holds is pickled with
    it. Objects of this class are not: each is stored under an id of its own, and the others refer
    to it by that. They may refer to each other in circles.

    Each is equal to itself only, so that objects in sets and keys of dicts come back as they were:
    two copies of one object have the same id, and are not equal. GC3Pie's class of this name calls
    those equal, and its instances can be in no set.

    Attributes that belong to stores:

    - ``persistent_id``, and ``_id``: the id, a text, once it was saved
    - ``changed``: whether a save of whatever refers to it saves it too. True for a new one, False
      after each save and load; who changes an object sets it to True. An object without this
      attribute is saved each time.
    """

    changed: bool
    persistent_id: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.changed = True
        super().__init__(*args, **kwargs)


class Object(Persistable):
    """A plain object: a class, metadata, a body of bytes, and children of the same kind.

    Stores of other languages read it, and what they write comes back as such objects.
    """

    def __init__(
        self,
        class_name: str,
        body: bytes = b"",
        *,
        metadata: Mapping[str, str] | None = None,
        children: Iterable[Object] = (),
    ) -> None:
        super().__init__()
        self.class_name = class_name
        self.body = body
        self.metadata = dict(metadata or {})
        """What it can be found by: at most 64 entries, 8 KiB in all, of names without a first _."""
        self.children = list(children)
