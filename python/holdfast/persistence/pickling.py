"""How Python objects become bytes, and bytes objects again.

# The form
Two pickles, one behind the other: what makes the object (a callable and its arguments), and its
state. Objects that are stored on their own stand in both by their place among the children, and
the object itself by -1. So an object can be made before what it refers to has its state, and
objects may refer to each other in circles, however long; nothing recurses from object to object.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Mapping
from typing import Any, Callable

from holdfast.persistence.errors import DamagedObject, UntrustedObject
from holdfast.persistence.persistable import Object
from holdfast.persistence.record import Stored
from holdfast.persistence.trust import Allowed

_SELF = -1
"""Stands for the object itself."""


def dump(obj: object, is_child: Callable[[object], bool], protocol: int) -> tuple[bytes, list[Any]]:
    """Pickles an object; gives its bytes, and the objects that it refers to, in their order.

    Raises:
        TypeError: It is pickled by its name, and so has no identity of its own.
        Exception: Whatever keeps it from being pickled.
    """
    reduce = copyreg.dispatch_table.get(type(obj))
    reduced = reduce(obj) if reduce else obj.__reduce_ex__(protocol)
    if isinstance(reduced, str):
        raise TypeError(f"it is pickled by its name, {reduced}")
    # As documented for __reduce__: what is behind the arguments may be missing.
    parts: list[Any] = [*reduced, None, None, None, None]
    make, arguments, state, items, pairs, build = parts[:6]
    items = None if items is None else list(items)
    pairs = None if pairs is None else list(pairs)
    stream = io.BytesIO()
    pickler = _Pickler(stream, protocol, obj, is_child)
    pickler.dump((make, arguments))
    pickler.is_made = True
    pickler.dump((state, items, pairs, build))
    return stream.getvalue(), pickler.children


class Plain:
    """A plain object on its way out of its bytes; as :class:`Unpickling`."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._others: Mapping[int, Any] = {}
        self._made = Object(stored.record.class_name, stored.payload, metadata=stored.metadata)

    def make(self, others: Mapping[int, Any]) -> Object:
        """The object without its children."""
        self._others = others
        return self._made

    def build(self) -> None:
        """Gives the object its children."""
        self._made.children = [self._others[child] for child in self._stored.children]


class Unpickling:
    """An object on its way out of its bytes: first it is made, then it is given its state."""

    def __init__(self, stored: Stored, allowed: Allowed | None) -> None:
        self._stored = stored
        self._others: Mapping[int, Any] = {}
        self._made: Any = None
        self._is_made = False
        self._unpickler = _Unpickler(io.BytesIO(stored.payload), self._find, allowed)

    def make(self, others: Mapping[int, Any]) -> Any:
        """The object without its state; what it is made from has been made before.

        Args:
            others: The objects that it refers to, by their ids.

        Raises:
            UntrustedObject: It uses a name that is not allowed.
            DamagedObject: Its bytes are no object.
            Exception: Whatever its class raises.
        """
        self._others = others
        make, arguments = self._read(2)
        self._made = make(*arguments)
        self._is_made = True
        return self._made

    def build(self) -> None:
        """Gives the object its state. All that it refers to has been made.

        Raises:
            Exception: As in :meth:`make`.
        """
        state, items, pairs, build = self._read(4)
        if items is not None:
            extend = getattr(self._made, "extend", None)
            if extend is not None:
                extend(items)
            else:
                for item in items:
                    self._made.append(item)
        for key, value in pairs or ():
            self._made[key] = value
        if state is None:
            return
        if build is not None:
            build(self._made, state)
        else:
            _set_state(self._made, state)

    def _read(self, count: int) -> tuple[Any, ...]:
        try:
            parts = self._unpickler.load()
        except (pickle.UnpicklingError, EOFError) as error:
            raise DamagedObject(f"object {self._stored.id}", f"its pickle: {error}") from error
        if not isinstance(parts, tuple) or len(parts) != count:
            raise DamagedObject(f"object {self._stored.id}", "its pickle is not of this form")
        return parts

    def _find(self, place: object) -> Any:
        if place == _SELF and self._is_made:
            return self._made
        children = self._stored.children
        if not isinstance(place, int) or not 0 <= place < len(children):
            raise pickle.UnpicklingError(f"it names {place!r} of its {len(children)} references")
        try:
            return self._others[children[place]]
        except KeyError:
            how = f"it is made from object {children[place]}, which is made from it"
            raise pickle.UnpicklingError(how) from None


class _Pickler(pickle.Pickler):
    def __init__(
        self,
        stream: io.BytesIO,
        protocol: int,
        root: object,
        is_child: Callable[[object], bool],
    ) -> None:
        super().__init__(stream, protocol)
        self._root = root
        self._is_child = is_child
        self._places: dict[int, int] = {}
        self.is_made = False
        self.children: list[Any] = []

    def persistent_id(self, obj: object) -> int | None:
        if obj is self._root:
            if not self.is_made:
                raise pickle.PicklingError("it is made from itself")
            return _SELF
        if not self._is_child(obj):
            return None
        place = self._places.setdefault(id(obj), len(self.children))
        if place == len(self.children):
            self.children.append(obj)
        return place


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, stream: io.BytesIO, find: Callable[[object], Any], allowed: Allowed | None
    ) -> None:
        super().__init__(stream)
        self._find = find
        self._allowed = allowed

    def persistent_load(self, place: object) -> Any:
        return self._find(place)

    def find_class(self, module: str, name: str) -> Any:
        if self._allowed is None:
            return super().find_class(module, name)
        if self._allowed.may_import(module):
            found = super().find_class(module, name)
            if self._allowed.allows(module, name, found):
                return found
        raise UntrustedObject(f"a pickle that uses {module}.{name}", "that is not allowed")


def _set_state(made: Any, state: Any) -> None:
    """As ``pickle`` does it: Python's library reference, ``object.__setstate__``."""
    set_state = getattr(made, "__setstate__", None)
    if set_state is not None:
        set_state(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        attributes = made.__dict__
        for name, value in state.items():
            attributes[sys.intern(name) if type(name) is str else name] = value
    for name, value in (slots or {}).items():
        setattr(made, name, value)
