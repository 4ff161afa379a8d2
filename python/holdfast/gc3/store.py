"""The store that GC3Pie is given.

# What GC3Pie does
GC3Pie 2.6.8 asks of a store what its documentation does not say, or not so:

- Its ``make_store`` turns whatever a constructor raises into an error that says nothing. So the
  constructor takes whatever it is given, and what is wrong with a URL comes out of the first call.
- Its URLs have room for one host and one port; further nodes stand in ``?peers=``.
- A session ignores every error of a load, and later writes its index without the tasks that it has
  not loaded. All errors but the one that a task is not there are taken off the list of those to
  ignore.
- ``store.idfactory.reserve`` and ``store.url`` are used; the URL is written to disk.
- Ids are looked up in dictionaries by the texts that an index or a command line has. Those of its
  own stores are never found there, because they are hashed otherwise; ours are plain texts.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import gc3libs
import gc3libs.persistence
import gc3libs.persistence.store
from gc3libs.url import Url

from holdfast.gc3 import trust
from holdfast.gc3.errors import LoadError, UnusableKey
from holdfast.persistence import ids
from holdfast.persistence.cluster.location import Location
from holdfast.persistence.cluster.store import backend
from holdfast.persistence.errors import (
    BadUri,
    DamagedObject,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    UnloadableObject,
    UnsteadyTree,
    UntrustedObject,
)
from holdfast.persistence.objects import ObjectStore
from holdfast.persistence.persistable import Object
from holdfast.persistence.uri import Uri

_NOT_TO_BE_IGNORED = (
    BadUri,
    DamagedObject,
    StoreRefused,
    StoreUnavailable,
    UnloadableObject,
    UnsteadyTree,
    UntrustedObject,
    UnusableKey,
)
"""The task is there all the same, and a session that went on without it would forget it."""


class HoldfastStore(ObjectStore, gc3libs.persistence.store.Store):
    """GC3Pie's tasks, and whatever else it stores, on a cluster.

    While the cluster cannot be reached, calls wait for it, 60 s without any progress unless the URL
    says otherwise; then they raise :class:`~holdfast.persistence.StoreUnavailable`. The constructor
    neither connects nor raises.

    Ids are texts, ``Class.N``, where N has 16 digits. Tasks are listed by their state, and by extra
    fields, on the cluster: ``store.list(state="RUNNING")``.

    Args:
        url: ``holdfast://HOST:PORT/NAMESPACE?peers=HOST:PORT,…``, see
            :class:`~holdfast.persistence.ClusterStore`. There is nothing secret in it.
        protocol: Of ``pickle``, 2 or above.
        extra_fields: As ``SqlStore`` takes them: columns, or their names, and functions that give
            their values for an object.
        key: Objects are signed with it, and only those that are signed with it are loaded; by
            default as ``HOLDFAST_PICKLE_KEY_FILE`` says.
        allow: What pickles may use; by default as ``HOLDFAST_PICKLE_ALLOW`` says, else everything.
        foreign: What other stores take is ignored.
    """

    def __init__(
        self,
        url: str | Url,
        *_: object,
        protocol: int = pickle.HIGHEST_PROTOCOL,
        extra_fields: Mapping[Any, Callable[[Any], object]] | None = None,
        key: bytes | None = None,
        allow: Iterable[str] | None = None,
        **foreign: object,  # noqa: ARG002
    ) -> None:
        found: Location | StoreError
        try:
            found = Location.of(Uri.parse(str(url)))
            key = trust.key() if key is None else key
        except StoreError as error:
            found = error

        def locate() -> Location:
            if isinstance(found, StoreError):
                raise found
            return found

        fields = {
            getattr(column, "name", column): of for column, of in (extra_fields or {}).items()
        }
        super().__init__(
            backend(str(url).partition("?")[0], locate),
            protocol=protocol,
            key=key,
            allow=trust.allow() if allow is None else allow,
            extra_fields=fields,
        )
        self.url = url
        self.idfactory = _Ids(self)

    def is_child(self, obj: object) -> bool:
        """Whether an object is stored on its own: GC3Pie's kind is, and so is ours."""
        return isinstance(obj, gc3libs.persistence.Persistable) or super().is_child(obj)

    def metadata(self, obj: Any) -> dict[str, object]:
        """What an object can be found by: the state of a task, beside extra fields."""
        execution = getattr(obj, "execution", None)
        state = getattr(execution, "state", None)
        found = super().metadata(obj)
        return found if state is None or type(obj) is Object else {**found, "state": state}

    def _text(self, number: int, class_name: str) -> str:
        return f"{class_name}.{number}"

    def _number(self, text: str) -> int | None:
        return ids.parse(text.rpartition(".")[2])

    def _class_in(self, text: str) -> str | None:
        return text.rpartition(".")[0] or None

    def _load_error(self, id_: str, parent: str | None) -> Exception:
        return LoadError(id_, self.name, parent)


class _Ids:
    """What GC3Pie asks for before it saves many new tasks."""

    def __init__(self, store: HoldfastStore) -> None:
        self._store = store

    def reserve(self, n: int) -> None:
        """Takes so many ids for the saves to come.

        Raises:
            StoreUnavailable: None were given out.
        """
        self._store.reserve(n)


def register() -> None:
    """Lets GC3Pie make these stores, and keeps sessions from forgetting tasks."""
    gc3libs.persistence.store.register("holdfast", HoldfastStore)
    # Names are compared in lower case.
    gc3libs.UNIGNORE_ERRORS.update(error.__name__.lower() for error in _NOT_TO_BE_IGNORED)
