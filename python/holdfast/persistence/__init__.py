"""Keeping objects: the same calls on a cluster, and on a directory of files.

::

    from holdfast.persistence import Persistable, make_store

    class Job(Persistable):
        def __init__(self, command):
            super().__init__()
            self.command = command

    store = make_store("holdfast://127.0.0.1:7480,127.0.0.1:7490/jobs")
    id_ = store.save(Job("sleep 1"))
    assert store.load(id_).command == "sleep 1"

The calls are those that are documented for ``gc3libs.persistence.store``. Nothing of GC3Pie is
needed here; its programs use ``holdfast.gc3``.

``store`` the calls · ``objects`` what is behind them · ``persistable`` what can be stored ·
``family`` it and its children on the way in, ``tree`` on the way out · ``pickling`` and ``trust``
how objects become bytes, and which bytes become objects · ``record`` what every store keeps ·
``uri`` and ``registry`` which store a URI stands for · ``files`` and ``cluster`` the two kinds.
"""

from __future__ import annotations

from holdfast.persistence.cluster import ClusterStore
from holdfast.persistence.errors import (
    BadUri,
    DamagedObject,
    ListingBrokenOff,
    LoadError,
    ObjectTooLarge,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    UnissuedId,
    UnknownScheme,
    UnloadableObject,
    UnsteadyTree,
    UnstorableObject,
    UntrustedObject,
)
from holdfast.persistence.files import FilesystemStore
from holdfast.persistence.objects import Listed
from holdfast.persistence.persistable import Object, Persistable
from holdfast.persistence.registry import make_store, register
from holdfast.persistence.store import Store
from holdfast.persistence.uri import Uri

__all__ = [
    "BadUri",
    "ClusterStore",
    "DamagedObject",
    "FilesystemStore",
    "Listed",
    "ListingBrokenOff",
    "LoadError",
    "Object",
    "ObjectTooLarge",
    "Persistable",
    "Store",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "UnissuedId",
    "UnknownScheme",
    "UnloadableObject",
    "UnsteadyTree",
    "UnstorableObject",
    "UntrustedObject",
    "Uri",
    "make_store",
    "register",
]
