"""The store on a cluster."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterator
from typing import Any, Callable

from holdfast._engine import calls
from holdfast._wire import objects_pb2 as proto
from holdfast.errors import HoldfastError
from holdfast.persistence.backend import Backend, Filter, Head
from holdfast.persistence.cluster import listing, load, save
from holdfast.persistence.cluster.link import Link
from holdfast.persistence.cluster.location import Location
from holdfast.persistence.objects import ObjectStore
from holdfast.persistence.per_process import PerProcess
from holdfast.persistence.record import Record, Stored
from holdfast.persistence.uri import Uri


class ClusterStore(ObjectStore):
    """Objects on a cluster.

    While the cluster cannot be reached, calls wait for it, 60 s without any progress unless the URI
    says otherwise; then they raise :class:`~holdfast.persistence.StoreUnavailable`.

    Args:
        uri: ``holdfast://HOST:PORT[,HOST:PORT…]/NAMESPACE``. Without a port it is 7480, without a
            namespace ``default``. One node that answers is enough; the others are learned.
            Parameters: ``peers=HOST:PORT,…`` further nodes; ``timeout_s=SECONDS`` how long calls
            wait for the cluster.
        options: As of :class:`~holdfast.persistence.objects.ObjectStore`.

    Raises:
        BadUri: It says what is wrong. A host that cannot be reached is found out by the first call.
    """

    def __init__(self, uri: str | Uri, **options: Any) -> None:
        self.url = uri if isinstance(uri, Uri) else Uri.parse(uri)
        location = Location.of(self.url)
        super().__init__(backend(location.name, lambda: location), **options)


def backend(name: str, locate: Callable[[], Location]) -> Backend:
    """The backend on a cluster.

    Args:
        name: How the store is called in messages.
        locate: Where it is; asked by the first call, and may raise what that raises then.
    """
    return _Cluster(name, locate)


class _Cluster:
    def __init__(self, name: str, locate: Callable[[], Location]) -> None:
        self.name = name
        self._links = PerProcess(lambda: Link(locate()))

    def lease(self, count: int) -> builtins.list[int]:
        return save.lease(self._links.get(), count)

    def reserve(self, count: int) -> None:
        save.reserve(self._links.get(), count)

    def put(self, records: builtins.list[tuple[int, Record]]) -> None:
        save.save(self._links.get(), records)

    def fetch(self, root: int, is_here: Callable[[int], bool]) -> dict[int, Stored]:
        return load.load(self._links.get(), root, is_here)

    def remove(self, id_: int) -> None:
        link = self._links.get()
        request = proto.RemoveObjectsRequest(namespace=link.location.namespace, ids=[id_])
        began = time.monotonic()
        try:
            link.write(calls.REMOVE_OBJECTS, request)
        except HoldfastError as error:
            link.explain(began, error)

    def list(self, wanted: Filter) -> builtins.list[Head]:
        return listing.list_all(self._links.get(), wanted)

    def heads(self, wanted: Filter) -> Iterator[Head]:
        return listing.stream_all(self._links.get(), wanted)
