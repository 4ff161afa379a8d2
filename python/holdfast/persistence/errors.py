"""What can go wrong with a store of objects; mirrors ``holdfast_client::persistence::Error``.

A store that cannot be reached never says that an object is not there: only :class:`LoadError` says
that (P6). The file system's own errors come through as :class:`OSError`.

``StoreError``
    ``LoadError``          the store has no object of this id
    ``StoreUnavailable``   it could not be reached for as long as it was waited for
    ``ListingBrokenOff``   a listing broke off midway, and something has been written since
    ``StoreRefused``       the cluster refused; nothing was changed
    ``DamagedObject``      what is stored is not what was written
    ``UnloadableObject``   what is stored cannot be made into an object: its class is not there, say
    ``UntrustedObject``    what is stored is not unpickled: its signature or one of its classes
    ``UnsteadyTree``       the objects of a tree were changed over and over while it was loaded
    ``UnstorableObject``   an object cannot be stored as it is; nothing was sent or written
    ``ObjectTooLarge``     more than is allowed; nothing was sent or written
    ``UnissuedId``         an object is to be saved under an id that the store never gave out
    ``UnknownScheme``      no store is registered for the scheme of a URI
    ``BadUri``             a URI that names no store
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import Applied, HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BadUri",
    "DamagedObject",
    "ListingBrokenOff",
    "LoadError",
    "ObjectTooLarge",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "UnissuedId",
    "UnknownScheme",
    "UnloadableObject",
    "UnsteadyTree",
    "UnstorableObject",
    "UntrustedObject",
]


class StoreError(HoldfastError):
    """The base of what stores raise."""


class LoadError(StoreError):
    """The store has no object of this id."""

    def __init__(self, id_: str, store: str, parent: str | None = None) -> None:
        self.id = id_
        self.store = store
        self.parent = parent
        """The object that refers to it; none if it was asked for itself."""
        super().__init__(id_, store, parent)

    def __str__(self) -> str:
        of_parent = f", to which {self.parent} refers" if self.parent else ""
        return f"load error: {self.store} has no object {self.id}{of_parent}"


class StoreUnavailable(StoreError):
    """The store could not be reached for as long as it was waited for.

    Never means that an object is not there. ``applied`` says whether a write may have been carried
    out; saving the same objects again is safe, since they keep their ids.
    """

    def __init__(self, store: str, waited: float, why: str, applied: Applied = Applied.NO) -> None:
        self.store = store
        self.waited = waited
        """How long it was tried, in seconds."""
        self.why = why
        """What happened at each host."""
        self.applied = applied
        super().__init__(store, waited, why, applied)

    def __str__(self) -> str:
        return (
            f"store unavailable: {self.store} did not answer within {self.waited:.1f} s: {self.why}"
        )


class ListingBrokenOff(StoreError):
    """Ids or records broke off after some had been handed out, and could not go on.

    The cluster has moved on from their revision. What was handed out is true of that one; list
    again.
    """

    def __init__(self, store: str, handed_out: int, why: str) -> None:
        self.store = store
        self.handed_out = handed_out
        """How many objects had been handed out."""
        self.why = why
        """What became of the node that they came from."""
        super().__init__(store, handed_out, why)

    def __str__(self) -> str:
        objects = "object" if self.handed_out == 1 else "objects"
        return (
            f"the listing of {self.store} broke off after {self.handed_out} {objects}, "
            f"and something has been written since; list again: {self.why}"
        )


class StoreRefused(StoreError):
    """The cluster refused; nothing was changed."""

    def __init__(self, store: str, reason: str, message: str) -> None:
        self.store = store
        self.reason = reason
        self.message = message
        super().__init__(store, reason, message)

    def __str__(self) -> str:
        return f"{self.store}: {self.message}"


class DamagedObject(StoreError):
    """What is stored is not what was written."""

    def __init__(self, what: str, how: str) -> None:
        self.what = what
        """Which object or file."""
        self.how = how
        """How that was seen."""
        super().__init__(what, how)

    def __str__(self) -> str:
        return f"{self.what} is damaged: {self.how}"


class UnloadableObject(StoreError):
    """What is stored cannot be made into an object; the cause says why."""

    def __init__(self, id_: str, why: str) -> None:
        self.id = id_
        self.why = why
        super().__init__(id_, why)

    def __str__(self) -> str:
        return f"cannot make object {self.id} of what is stored: {self.why}"


class UntrustedObject(StoreError):
    """What is stored is not unpickled: it is not signed as it should be, or names other classes."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(what, why)

    def __str__(self) -> str:
        return f"{self.what} is not to be trusted: {self.why}"


class UnsteadyTree(StoreError):
    """The objects of a tree were changed over and over while it was loaded."""

    def __init__(self, id_: str, tries: int) -> None:
        self.id = id_
        self.tries = tries
        super().__init__(id_, tries)

    def __str__(self) -> str:
        return (
            f"the tree of {self.id} kept changing while it was loaded, {self.tries} times; "
            "load it again"
        )


class UnstorableObject(StoreError, TypeError):
    """An object that cannot be stored as it is; nothing was sent or written."""

    def __init__(self, class_name: str, why: str) -> None:
        self.class_name = class_name
        self.why = why
        super().__init__(class_name, why)

    def __str__(self) -> str:
        return f"cannot store an object of class {self.class_name!r}: {self.why}"


class ObjectTooLarge(StoreError, ValueError):
    """More than is allowed; nothing was sent or written."""

    def __init__(self, what: str, actual: int, allowed: int) -> None:
        self.what = what
        self.actual = actual
        self.allowed = allowed
        super().__init__(what, actual, allowed)

    def __str__(self) -> str:
        return f"{self.what} {self.actual}, and at most {self.allowed} are allowed"


class UnissuedId(StoreError):
    """An object is to be saved under an id that this store has never given out."""

    def __init__(self, id_: str, store: str) -> None:
        self.id = id_
        self.store = store
        super().__init__(id_, store)

    def __str__(self) -> str:
        return (
            f"{self.store} has never given out the id {self.id}; "
            "without its attribute persistent_id the object is given a new one"
        )


class UnknownScheme(StoreError, ValueError):
    """No store is registered for the scheme of a URI."""

    def __init__(self, scheme: str, uri: str, known: Iterable[str]) -> None:
        self.scheme = scheme
        self.uri = uri
        self.known = sorted(known)
        """The schemes that are registered."""
        super().__init__(scheme, uri, self.known)

    def __str__(self) -> str:
        known = ", ".join(self.known)
        return f"unknown scheme {self.scheme!r} in {self.uri!r}; known are: {known}"


class BadUri(StoreError, ValueError):
    """A URI that names no store."""

    def __init__(self, uri: str, why: str) -> None:
        self.uri = uri
        self.why = why
        super().__init__(uri, why)

    def __str__(self) -> str:
        return f"{self.uri!r} names no store: {self.why}"
