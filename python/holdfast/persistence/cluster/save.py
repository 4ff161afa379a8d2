"""The way in: ids, and then one request, or an upload where that would be too large."""

from __future__ import annotations

import time

from holdfast._engine import calls
from holdfast._wire import objects_pb2 as proto
from holdfast.errors import HoldfastError, Refused
from holdfast.persistence.cluster.link import Link
from holdfast.persistence.cluster.pieces import BYTES_MAX, OBJECTS_MAX
from holdfast.persistence.cluster.upload import upload
from holdfast.persistence.record import Record

_BLOCK = 256
"""How many ids are leased at a time, if no more are needed: a save in 256 pays for them."""
_LEASE_MAX = 65_536
"""Most ids that one lease gives."""
_UPLOADS_MAX = 3
"""How often an upload is begun that lapses while the cluster cannot be reached."""


def lease(link: Link, count: int) -> list[int]:
    """So many ids that nobody has had.

    Raises:
        StoreUnavailable: None was given out, or it was and is forgone.
    """
    ids: list[int] = []
    while len(ids) < count:
        wanted = min(count - len(ids), _LEASE_MAX)
        with link.lock:
            taken = link.ids.take(wanted)
        if taken is None:
            block = _lease_block(link, max(wanted, _BLOCK))
            taken = list(block[:wanted])
            with link.lock:
                link.ids.keep(block[wanted:])
        ids += taken
    return ids


def reserve(link: Link, count: int) -> None:
    """Leases ids for the saves to come.

    Raises:
        StoreUnavailable: As :func:`lease`.
    """
    while count > 0:
        block = _lease_block(link, min(count, _LEASE_MAX))
        with link.lock:
            link.ids.keep(block)
        count -= len(block)


def save(link: Link, records: list[tuple[int, Record]]) -> None:
    """Saves all records, or none.

    Raises:
        StoreUnavailable: Its ``applied`` says whether they may have been saved.
        UnissuedId: One of their ids was never given out.
        StoreRefused: The cluster is full, say.
    """
    size = sum(record.request_bytes for _, record in records)
    began = time.monotonic()
    try:
        if len(records) <= OBJECTS_MAX and size <= BYTES_MAX:
            _save_small(link, records)
        else:
            _save_large(link, records)
    except HoldfastError as error:
        link.explain(began, error)


def _lease_block(link: Link, count: int) -> range:
    request = proto.LeaseIdsRequest(namespace=link.location.namespace, count=count)
    began = time.monotonic()
    try:
        leased = link.prepare(calls.LEASE_IDS, request)
    except HoldfastError as error:
        link.explain(began, error)
    return range(leased.first_id, leased.first_id + leased.count)


def _save_small(link: Link, records: list[tuple[int, Record]]) -> None:
    request = proto.SaveObjectsRequest(namespace=link.location.namespace)
    for id_, record in records:
        saved = request.objects.add(body=record.body)
        saved.record.id = id_
        saved.record.class_name = record.class_name
        saved.record.metadata.update(record.metadata)
    link.write(calls.SAVE_OBJECTS, request)


def _save_large(link: Link, records: list[tuple[int, Record]]) -> None:
    for _ in range(_UPLOADS_MAX - 1):
        try:
            return upload(link, records)
        except Refused as refusal:
            # It was over on the cluster's side: nothing of it is there, and nothing will be.
            if refusal.reason != "UNKNOWN_UPLOAD":
                raise
    return upload(link, records)
