"""What objects there are, all as they were at one revision."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holdfast._engine import calls
from holdfast._wire import objects_pb2 as proto
from holdfast.errors import HoldfastError
from holdfast.persistence.backend import Filter, Head
from holdfast.persistence.cluster.link import Link, is_worth_another

if TYPE_CHECKING:
    from collections.abc import Iterator


def list_all(link: Link, wanted: Filter) -> list[Head]:
    """The objects that pass. A stream that breaks is begun anew, at another node if need be.

    Raises:
        StoreUnavailable: For as long as the store waits.
    """
    began = time.monotonic()
    while True:
        try:
            return list(_heads(link, wanted))
        except HoldfastError as error:
            has_passed = time.monotonic() - began >= link.location.wait
            if has_passed or not is_worth_another(error):
                link.explain(began, error)


def stream_all(link: Link, wanted: Filter) -> Iterator[Head]:
    """The objects that pass, one by one.

    What has been handed out cannot be taken back, so that a stream that breaks ends.

    Raises:
        StoreUnavailable: It broke.
    """
    began = time.monotonic()
    try:
        yield from _heads(link, wanted)
    except HoldfastError as error:
        link.explain(began, error)


def _heads(link: Link, wanted: Filter) -> Iterator[Head]:
    # Nothing is of the class without a name, with which the cluster would list all.
    if wanted.class_name == "":
        return
    request = proto.ListStoredObjectsRequest(
        namespace=link.location.namespace,
        class_name=wanted.class_name or "",
        metadata=wanted.metadata,
    )
    for part in link.parts(calls.LIST_STORED_OBJECTS, request):
        for found in part.objects:
            yield Head(found.id, found.class_name, dict(found.metadata), found.body_bytes)
