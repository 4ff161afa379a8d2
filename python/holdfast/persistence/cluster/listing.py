"""What objects there are, all as they were at one revision.

All that one listing hands out is of one revision, whatever becomes of the nodes that it comes from.
The cluster reads no revision but its newest: a listing that broke off after some of it was handed
out is therefore gone on with if nothing has been written meanwhile, which is seen by the revision,
and else ends.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from holdfast._engine import calls
from holdfast._wire import objects_pb2 as proto
from holdfast.errors import HoldfastError
from holdfast.persistence.backend import Filter, Head
from holdfast.persistence.cluster.link import Link, is_worth_another
from holdfast.persistence.errors import ListingBrokenOff

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


def list_all(link: Link, wanted: Filter) -> list[Head]:
    """The objects that pass. A stream that breaks is begun anew, at another node if need be.

    Raises:
        StoreUnavailable: For as long as the store waits.
    """
    if _is_nothing(wanted):
        return []
    began = time.monotonic()
    while True:
        try:
            return [_head(found) for part in _parts(link, wanted, 0) for found in part.objects]
        except HoldfastError as error:
            has_passed = time.monotonic() - began >= link.location.wait
            if has_passed or not is_worth_another(error):
                link.explain(began, error)


def stream_all(link: Link, wanted: Filter) -> Iterator[Head]:
    """The objects that pass, one by one.

    Raises:
        StoreUnavailable: For as long as the store waits.
        ListingBrokenOff: Half way, and something has been written since.
    """
    if _is_nothing(wanted):
        return
    with contextlib.closing(_Listing(link, wanted)) as listing:
        while (part := listing.next()) is not None:
            for found in part.objects:
                listing.handed_out += 1
                listing.last_id = found.id
                yield _head(found)


class _Listing:
    """A listing on its way."""

    def __init__(self, link: Link, wanted: Filter) -> None:
        self._link = link
        self._wanted = wanted
        self._parts: Generator[proto.ListStoredObjectsResponse, None, None] | None = None
        self._revision = 0
        """Of all that was handed out."""
        self.handed_out = 0
        self.last_id = 0
        """The last one that was handed out; 0 as long as none was."""

    def next(self) -> proto.ListStoredObjectsResponse | None:
        """The next part; none behind the last one.

        A stream that breaks is opened anew, at another node if need be, behind what was handed out.
        """
        began = time.monotonic()
        broke: HoldfastError | None = None
        while True:
            if self._parts is None:
                self._parts = _parts(self._link, self._wanted, self.last_id)
            try:
                part = next(self._parts, None)
            except HoldfastError as error:
                has_passed = time.monotonic() - began >= self._link.location.wait
                if has_passed or not is_worth_another(error):
                    self._link.explain(began, error)
                self._parts, broke = None, error
                continue
            if part is None:
                return None
            if broke and self.handed_out and part.header.revision != self._revision:
                name = self._link.location.name
                raise ListingBrokenOff(name, self.handed_out, str(broke)) from broke
            self._revision = part.header.revision
            return part

    def close(self) -> None:
        """Ends the stream, if there is one."""
        if self._parts is not None:
            self._parts.close()


def _is_nothing(wanted: Filter) -> bool:
    """Nothing is of the class without a name, with which the cluster would list all."""
    return wanted.class_name == ""


def _parts(
    link: Link, wanted: Filter, after_id: int
) -> Generator[proto.ListStoredObjectsResponse, None, None]:
    request = proto.ListStoredObjectsRequest(
        namespace=link.location.namespace,
        class_name=wanted.class_name or "",
        metadata=wanted.metadata,
        after_id=after_id,
    )
    return link.parts(calls.LIST_STORED_OBJECTS, request)


def _head(found: proto.ObjectRecord) -> Head:
    return Head(found.id, found.class_name, dict(found.metadata), found.body_bytes)
