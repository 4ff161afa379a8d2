"""The way out: level by level, one request each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

from holdfast._engine import calls
from holdfast._wire import objects_pb2 as proto
from holdfast.errors import HoldfastError
from holdfast.persistence import ids
from holdfast.persistence.backend import Absent
from holdfast.persistence.cluster.link import Link, is_worth_another
from holdfast.persistence.errors import DamagedObject, UnsteadyTree
from holdfast.persistence.record import BODY_BYTES_MAX, Record, Stored, split
from holdfast.persistence.tree import Growing

if TYPE_CHECKING:
    from collections.abc import Sequence

_IDS_MAX = 65_536
"""Most objects that one request asks for."""
_TRIES_MAX = 16
"""How often a load is begun whose objects are changed under it."""
_ABSENT_MAX = 3
"""How often one is begun that finds a reference to nothing: the object may have been removed only
after what refers to it was read."""


def load(link: Link, root: int, is_here: Callable[[int], bool]) -> dict[int, Stored]:
    """A tree as it was when its root was read, without those that are here.

    Raises:
        Absent: One of its objects is not there.
        StoreUnavailable: Never means that.
        UnsteadyTree: It was changed under each attempt.
        DamagedObject: Of what a node sent, or of what is stored.
    """
    absences = 0
    for _ in range(_TRIES_MAX):
        try:
            tree = _try(link, root, is_here)
        except Absent as absent:
            absences += 1
            # Nothing else was read before the root.
            if absent.parent is None or absences == _ABSENT_MAX:
                raise
            continue
        if tree is not None:
            return tree
    raise UnsteadyTree(str(root), _TRIES_MAX)


def _try(link: Link, root: int, is_here: Callable[[int], bool]) -> dict[int, Stored] | None:
    """The tree; none if it was changed meanwhile."""
    tree = Growing(root, is_here)
    at: int | None = None
    while wanted := tree.wanted:
        fetched = []
        for start in range(0, len(wanted), _IDS_MAX):
            asked = wanted[start : start + _IDS_MAX]
            level = _fetch(link, asked)
            at = level.revision if at is None else at
            for id_ in asked:
                if id_ not in level.found:
                    raise Absent(id_, tree.parent(id_))
                made, record = level.found[id_]
                # What has not changed since is as it was then.
                if made > at:
                    return None
                fetched.append(split(id_, record))
        tree.grow(fetched)
    return tree.objects


def _fetch(link: Link, asked: Sequence[int]) -> _Level:
    """Objects at one revision. A stream that breaks is begun anew, at another node if need be."""
    began = time.monotonic()
    while True:
        try:
            return _receive(link, asked)
        except DamagedObject:
            raise
        except HoldfastError as error:
            # Whoever was not reached has been tried for long enough; a stream that broke has not.
            has_passed = time.monotonic() - began >= link.location.wait
            if has_passed or not is_worth_another(error):
                link.explain(began, error)


def _receive(link: Link, asked: Sequence[int]) -> _Level:
    request = proto.LoadObjectsRequest(namespace=link.location.namespace, ids=asked)
    level = _Level()
    for part in link.parts(calls.LOAD_OBJECTS, request):
        level.revision = part.header.revision
        for piece in part.pieces:
            level.take_in(piece)
    level.close()
    return level


@dataclass
class _Level:
    """Objects at one revision, as their pieces come in."""

    revision: int = 0
    found: dict[int, tuple[int, Record]] = field(default_factory=dict)
    """By their ids, with the revision that made each; those that are not there are missing."""
    _open: proto.ObjectRecord | None = None
    """The object whose body is coming in."""
    _body: list[bytes] = field(default_factory=list)
    _left: int = 0

    def take_in(self, piece: proto.LoadPiece) -> None:
        kind = piece.WhichOneof("piece")
        if kind == "record":
            self.close()
            record = piece.record
            if not ids.is_id(record.id) or record.body_bytes > BODY_BYTES_MAX:
                raise _damaged(f"object {record.id} has a body of {record.body_bytes} bytes")
            self._open, self._body, self._left = record, [], record.body_bytes
        elif kind == "body":
            self._body.append(piece.body)
            self._left -= len(piece.body)
            if self._open is None or self._left < 0:
                raise _damaged("a body is longer than its object says")
        elif kind == "missing_id":
            self.close()

    def close(self) -> None:
        """No more of the object that came last will come."""
        record = self._open
        if record is None:
            return
        if self._left:
            raise _damaged(f"object {record.id} came without the last {self._left} bytes")
        kept = Record(record.class_name, dict(record.metadata), b"".join(self._body))
        self.found[record.id] = record.mod_revision, kept
        self._open = None


def _damaged(how: str) -> DamagedObject:
    return DamagedObject("what a node sent", how)
