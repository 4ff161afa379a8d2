"""Errors of a store as GC3Pie knows them."""

from __future__ import annotations

import gc3libs.exceptions

from holdfast import persistence
from holdfast.persistence.errors import StoreError


class LoadError(persistence.LoadError, gc3libs.exceptions.LoadError):
    """The store has no object of this id."""

    def __init__(self, id_: str, store: str, parent: str | None = None) -> None:
        self.id, self.store, self.parent = id_, store, parent
        # GC3Pie's takes a message alone.
        Exception.__init__(self, id_, store, parent)


class UnusableKey(StoreError):
    """The file with the key that objects are signed with cannot be read."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(path, why)

    def __str__(self) -> str:
        return f"no key to sign objects with in {self.path}: {self.why}"
