"""Stores of Python objects, whatever they keep their records in.

# Invariants
- A save is one atomic step, whatever it holds; nobody sees a part of it. All of it is encoded and
  checked before anything is sent or written.
- An id is given out once: after a remove, a restart, a fork or a restored copy it is not given out
  again.
- What was loaded and is still in use is not loaded again: the same object comes back until the
  cache is invalidated.
"""

from __future__ import annotations

import builtins
import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable
from weakref import WeakValueDictionary

from holdfast.persistence import ids
from holdfast.persistence.backend import Absent, Backend, Filter
from holdfast.persistence.errors import (
    DamagedObject,
    LoadError,
    StoreError,
    UnissuedId,
    UnloadableObject,
    UnstorableObject,
)
from holdfast.persistence.family import Family
from holdfast.persistence.persistable import Object, Persistable
from holdfast.persistence.pickling import Plain, Unpickling, dump
from holdfast.persistence.record import (
    CODEC,
    SIGNATURE,
    Encoded,
    Record,
    Stored,
    encoded,
    own_metadata,
)
from holdfast.persistence.store import Store
from holdfast.persistence.tree import children_first, no_collection
from holdfast.persistence.trust import Allowed, Signer

log = logging.getLogger("holdfast.persistence")

_PICKLE = "pickle"


@dataclass(frozen=True)
class Listed:
    """What a store knows of an object without its body."""

    id: str
    class_name: str
    metadata: Mapping[str, str]
    """What it can be found by."""
    body_bytes: int
    """The size of its body, in bytes, of which each reference takes 8."""


class ObjectStore(Store):
    """Python objects in records.

    Args:
        backend: Where the records are kept.
        protocol: Of ``pickle``, 2 or above.
        key: Objects are signed with it, and only those that are signed with it are loaded.
        allow: What pickles may use: ``package.module.Name``, or ``package.*`` for all classes of a
            package. By default everything, so that whoever writes to the store can run programs
            here.
        extra_fields: Further metadata to find objects by: names, and functions that give their
            values for an object. What a function raises is logged, and the entry left out, as is
            one whose value is None.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        protocol: int = pickle.HIGHEST_PROTOCOL,
        key: bytes | None = None,
        allow: Iterable[str] | None = None,
        extra_fields: Mapping[str, Callable[[Any], object]] | None = None,
    ) -> None:
        self._backend = backend
        self._protocol = protocol
        self._signer = None if key is None else Signer(key)
        self._allowed = None if allow is None else Allowed(allow)
        self._extra_fields = dict(extra_fields or {})
        self._loaded: WeakValueDictionary[int, Any] = WeakValueDictionary()
        """What a load gives without asking."""
        self._known: WeakValueDictionary[int, Any] = WeakValueDictionary()
        """What was saved or loaded last under each id."""

    @property
    def name(self) -> str:
        """How the store is called in messages: its URI."""
        return self._backend.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def invalidate_cache(self) -> None:
        """Forgets whatever was loaded: the next load of each object brings a new one."""
        self._loaded.clear()

    def save(self, obj: Any) -> str:
        """Saves an object and all that it refers to, in one atomic step, and returns its id.

        Those that have no id yet are given one, which they keep also if the save fails; those that
        have one are overwritten there. A child that has not been changed is not saved again.

        Raises:
            UnstorableObject: It cannot be pickled, say; nothing was sent or written.
            ObjectTooLarge: Nothing was sent or written.
            UnissuedId: It has an id of another store.
            StoreUnavailable: Its ``applied`` says whether it may have been saved.
        """
        self._put(None, obj)
        id_: str = obj.persistent_id
        return id_

    def replace(self, id_: str, obj: Any) -> None:
        """As :meth:`save`, but a copy of the object is stored under this id, whatever its own is.

        Its own does not change.

        Raises:
            StoreError: As :meth:`save`.
        """
        number = self._number(str(id_))
        if number is None:
            raise UnissuedId(str(id_), self.name)
        self._put(number, obj, self._class_in(str(id_)))

    def load(self, id_: str) -> Any:
        """The object of this id and all that it refers to, as they were at one moment.

        What was loaded before, and is still in use, comes back as it is.

        Raises:
            LoadError: One of them is not there.
            DamagedObject: One of them is not what was written.
            UntrustedObject: One of them is not signed, or uses what is not allowed.
            UnloadableObject: One of them cannot be made: its class is not there, say.
            StoreUnavailable: Never means that one is not there.
        """
        text = str(id_)
        number = self._number(text)
        if number is None:
            raise self._load_error(text, None)
        root = self._loaded.get(number)
        if root is None:
            root = self._load_tree(number, text)
        if text not in (root.persistent_id, str(number)):
            raise self._load_error(text, None)
        return root

    def remove(self, id_: str) -> None:
        """Removes an object, and not what it refers to. Silent if there is none.

        Its id is not given out again.

        Raises:
            StoreUnavailable: It may have been removed.
        """
        number = self._number(str(id_))
        if number is None:
            return
        self._backend.remove(number)
        self._forget(number)

    def list(self, class_name: str | None = None, **metadata: str) -> builtins.list[str]:
        """The ids of the objects that pass all filters, in order, as they were at one moment.

        Args:
            class_name: Those of this class.
            metadata: Those whose metadata say so: ``state="NEW"``.
        """
        heads = self._backend.list(_filter(class_name, metadata))
        return [self._text(head.id, head.class_name) for head in heads]

    def ids(self, class_name: str | None = None, **metadata: str) -> Iterator[str]:
        """As :meth:`list`, one by one, for stores that hold more than fits in memory.

        Raises:
            StoreUnavailable: Also half way.
            ListingBrokenOff: Half way, if the rest cannot be had as it was at that moment; what was
                handed out cannot be taken back.
        """
        return (listed.id for listed in self.records(class_name, **metadata))

    def records(self, class_name: str | None = None, **metadata: str) -> Iterator[Listed]:
        """As :meth:`ids`, with what is known of each object."""
        for head in self._backend.heads(_filter(class_name, metadata)):
            id_ = self._text(head.id, head.class_name)
            yield Listed(id_, head.class_name, own_metadata(head.metadata), head.body_bytes)

    def reserve(self, count: int) -> None:
        """Takes so many ids for the saves to come, which then need not ask for them.

        Raises:
            StoreUnavailable: None were given out.
        """
        self._backend.reserve(count)

    # What a facade has its own way of.

    def is_child(self, obj: object) -> bool:
        """Whether an object is stored on its own."""
        return isinstance(obj, Persistable)

    def class_name(self, obj: Any) -> str:
        """The class under which an object is stored."""
        return obj.class_name if type(obj) is Object else type(obj).__name__

    def metadata(self, obj: Any) -> dict[str, object]:
        """What an object can be found by, beside extra fields."""
        return dict(obj.metadata) if type(obj) is Object else {}

    def _text(self, number: int, class_name: str) -> str:  # noqa: ARG002
        return str(number)

    def _number(self, text: str) -> int | None:
        return ids.parse(text)

    def _class_in(self, text: str) -> str | None:  # noqa: ARG002
        """The class that an id names, which then stays that of what is stored there."""
        return None

    def _load_error(self, id_: str, parent: str | None) -> Exception:
        return LoadError(id_, self.name, parent)

    # The way in.

    def _put(self, root: int | None, obj: Any, class_name: str | None = None) -> None:
        family = Family(obj, self)
        if class_name is not None:
            family.members[0].encoded.rename(class_name)
        fresh = self._backend.lease(family.unnamed(root))
        self._backend.put(family.records(root, fresh))
        for member in family.members:
            if member.obj is obj and root is not None and root != self.number_of(obj):
                # What is stored there is a copy.
                self._forget(root)
            else:
                self._note_stored(member.obj)

    def _note_stored(self, obj: Any) -> None:
        number = self.number_of(obj)
        assert number is not None, "it was given one before it was stored"
        if hasattr(obj, "changed"):
            obj.changed = False
        _remember(self._known, number, obj)
        if number in self._loaded:
            _remember(self._loaded, number, obj)

    def encode(self, obj: Any) -> tuple[Encoded, builtins.list[Any]]:
        """An object in bytes, and its children."""
        class_name = self.class_name(obj)
        ours = {} if self._signer is None else {SIGNATURE: Signer.UNSIGNED}
        if type(obj) is Object:
            payload, children = bytes(obj.body), list(obj.children)
        else:
            ours[CODEC] = _PICKLE
            try:
                payload, children = dump(obj, self.is_child, self._protocol)
            except Exception as error:
                raise UnstorableObject(class_name, f"{type(error).__name__}: {error}") from error
        metadata = self.metadata(obj)
        for name, value_of in self._extra_fields.items():
            try:
                metadata[name] = value_of(obj)
            except Exception as error:  # as documented for GC3Pie's extra fields
                log.warning("no %s of %r: %s: %s", name, obj, type(error).__name__, error)
        texts = {name: str(value) for name, value in metadata.items() if value is not None}
        return encoded(class_name, texts, payload, len(children), ours), children

    def number_of(self, obj: Any) -> int | None:
        """The number of an object's id; none if it has none.

        Raises:
            UnissuedId: It has one of another store.
        """
        text = getattr(obj, "persistent_id", None)
        if text is None:
            return None
        number = self._number(str(text))
        if number is None:
            raise UnissuedId(str(text), self.name)
        return number

    def is_as_stored(self, obj: Any) -> bool:
        """Whether it has not been changed since it was saved or loaded."""
        if getattr(obj, "changed", True):
            return False
        number = self.number_of(obj)
        return number is not None and self._known.get(number) is obj

    def give_id(self, obj: Any, number: int, class_name: str) -> None:
        """Sets an object's id.

        Raises:
            UnstorableObject: It takes no such attribute.
        """
        id_ = self._text(number, class_name)
        try:
            obj.persistent_id = id_
        except (AttributeError, TypeError) as error:
            why = f"its id cannot be set: {error}"
            raise UnstorableObject(class_name, why) from error
        # As documented; classes that list their attributes may not have this one.
        try:
            obj._id = id_
        except (AttributeError, TypeError):
            log.debug("%s has no attribute _id", id_)

    def sign(self, number: int, record: Record) -> Record:
        """The record as it is kept under this id."""
        if self._signer is not None:
            record.metadata[SIGNATURE] = self._signer.sign(number, record)
        return record

    # The way out.

    def _load_tree(self, number: int, text: str) -> Any:
        held: dict[int, Any] = {}

        def is_here(id_: int) -> bool:
            found = self._loaded.get(id_)
            if found is not None:
                held[id_] = found
            return found is not None

        try:
            fetched = self._backend.fetch(number, is_here)
        except Absent as absent:
            if absent.parent is None:
                raise self._load_error(text, None) from None
            raise self._load_error(str(absent.id), str(absent.parent)) from None
        if self._signer is not None:
            for stored in fetched.values():
                self._signer.check(stored.id, stored.record)
        order = [fetched[id_] for id_ in children_first(fetched, number)]
        with no_collection():
            self._make(order, held)
        for stored in order:
            _remember(self._known, stored.id, held[stored.id])
            _remember(self._loaded, stored.id, held[stored.id])
        return held[number]

    def _make(self, order: builtins.list[Stored], made: dict[int, Any]) -> None:
        """Makes the objects, and puts them to the others."""
        unpicklings: builtins.list[Plain | Unpickling] = []
        for stored in order:
            unpickling = Plain(stored) if stored.codec == "" else self._unpickling(stored)
            with _of(stored):
                made[stored.id] = unpickling.make(made)
            unpicklings.append(unpickling)
        for stored, unpickling in zip(order, unpicklings):
            obj = made[stored.id]
            with _of(stored):
                unpickling.build()
                self.give_id(obj, stored.id, stored.record.class_name)
                if hasattr(obj, "changed"):
                    obj.changed = False

    def _unpickling(self, stored: Stored) -> Unpickling:
        if stored.codec != _PICKLE:
            how = f"it is encoded as {stored.codec!r}, which this version does not know"
            raise DamagedObject(f"object {stored.id}", how)
        return Unpickling(stored, self._allowed)

    def _forget(self, number: int) -> None:
        self._loaded.pop(number, None)
        self._known.pop(number, None)


def _filter(class_name: str | None, metadata: Mapping[str, object]) -> Filter:
    return Filter(class_name, {name: str(value) for name, value in metadata.items()})


@contextmanager
def _of(stored: Stored) -> Iterator[None]:
    """Tells which object could not be made."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise UnloadableObject(str(stored.id), f"{type(error).__name__}: {error}") from error


def _remember(objects: WeakValueDictionary[int, Any], number: int, obj: Any) -> None:
    try:
        objects[number] = obj
    except TypeError:
        # Of a class whose objects cannot be referred to weakly: it is loaded each time.
        objects.pop(number, None)
