"""A commit: compares some variables and writes some, all or none.

Invariants:

- Everything is put together and checked before anything is sent.
- A commit has one number for as long as it may be applied, so however often it is sent, it is
  applied once. Only one that was definitely not applied gets another number.
- ``BusyRetry`` is never said of a commit that was applied.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast import errors
from holdfast._engine import calls
from holdfast._wire import stm_pb2
from holdfast.client import result_of

from .errors import BusyRetry, CommitUncertain, ConcurrentUpdate
from .key import Key, encode
from .reading import Reader, remaining, until
from .value import Content, Variable, from_wire

if TYPE_CHECKING:
    from holdfast._engine.engine import Pending

TRANSACTION_KEYS_MAX = 4096
"""Most variables that one commit compares and writes."""
TRANSACTION_BYTES_MAX = 8 << 20
"""Most bytes of a commit: its keys, as often as each is named, and its values (8 MiB)."""
VALUE_BYTES_MAX = 1 << 20
"""Longest value, in bytes (1 MiB)."""


@dataclass(frozen=True)
class _Expected:
    """What a variable must be."""

    version: int
    mod_revision: int | None


class Plan:
    """What a commit compares and writes; each key at most once in either."""

    def __init__(self) -> None:
        self._comparisons: dict[bytes, _Expected] = {}
        self._writes: dict[bytes, Content | None] = {}

    def expect(self, found: Variable) -> Plan:
        """The variable must be as it was found.

        By its modification revision, so that one deleted and created again is noticed.
        """
        expected = _Expected(found.version, found.mod_revision)
        self._comparisons[encode(found.key)] = expected
        return self

    def expect_version(self, key: Key, version: int) -> Plan:
        """The variable must have this version, however it came to it; 0: it must not be there."""
        self._comparisons[encode(key)] = _Expected(version, None)
        return self

    def put(self, key: Key, content: Content) -> Plan:
        """The variable is written, whether or not it is there."""
        self._writes[encode(key)] = content
        return self

    def delete(self, key: Key) -> Plan:
        """The variable is deleted, if it is there."""
        self._writes[encode(key)] = None
        return self

    @property
    def writes(self) -> dict[bytes, Content | None]:
        """What is written, by encoded key; None for what is deleted."""
        return self._writes

    def telling(self) -> dict[bytes, int]:
        """Variables that would be others for good, had this been applied, by encoded key.

        With the modification revisions that they were seen with.
        """
        seen = ((key, self._comparisons.get(key)) for key in self._writes)
        return {key: was.mod_revision for key, was in seen if was and was.mod_revision}

    def check(self) -> None:
        """Raises BadRequest if it is too large for the cluster (G9)."""
        sizes = [len(content.data) for content in self._writes.values() if content]
        largest = max(sizes, default=0)
        _check("VALUE_TOO_LARGE", "a value", "bytes", largest, VALUE_BYTES_MAX)
        keys = len(self._comparisons.keys() | self._writes.keys())
        _check("TRANSACTION_TOO_LARGE", "a transaction", "keys", keys, TRANSACTION_KEYS_MAX)
        size = sum(map(len, self._comparisons)) + sum(map(len, self._writes)) + sum(sizes)
        _check("TRANSACTION_TOO_LARGE", "a transaction", "bytes", size, TRANSACTION_BYTES_MAX)

    def to_wire(self, namespace: str) -> stm_pb2.CommitRequest:
        """The request, without its number."""
        comparisons = (
            stm_pb2.Comparison(key=key, version=was.version, mod_revision=was.mod_revision)
            for key, was in sorted(self._comparisons.items(), key=_first)
        )
        writes = (
            stm_pb2.VariableWrite(key=key, codec=content.codec.value, value=content.data)
            if content
            else stm_pb2.VariableWrite(key=key, delete=True)
            for key, content in sorted(self._writes.items(), key=_first)
        )
        return stm_pb2.CommitRequest(namespace=namespace, comparisons=comparisons, writes=writes)


def _first(item: tuple[bytes, object]) -> bytes:
    return item[0]


def _check(reason: str, what: str, unit: str, actual: int, allowed: int) -> None:
    if actual > allowed:
        fields = {"field": unit, "actual": str(actual), "allowed": str(allowed)}
        message = f"{what} has {actual} {unit}, and at most {allowed} are allowed"
        raise errors.BadRequest(reason, message, fields)


class Commit:
    """A commit on its way. Sending it again settles it: it is applied at most once.

    Stores make them (:meth:`Store.prepare`); not safe for several threads at a time.
    """

    def __init__(self, reader: Reader, budget: float, plan: Plan) -> None:
        plan.check()
        self._reader = reader
        self._budget = budget
        self._telling = plan.telling()
        self._request = plan.to_wire(reader.client.namespace)
        # While it may be applied; of the process that began it.
        self._pending: Pending[stm_pb2.CommitRequest, stm_pb2.CommitResponse] | None = None
        self._pid = 0
        # Once it has been applied.
        self._applied: int | None = None

    def commit(self) -> int:
        """Sends it, and returns the revision of what was written.

        That is the revision of a state in which all comparisons hold, if nothing is written. Once
        it was applied, sends nothing more. May be called again after any error. Blocks.

        Raises:
            ConcurrentUpdate: others have written what it compares; nothing was written.
            BusyRetry: definitely not applied, as there was no leader within the store's budget.
            CommitUncertain: it was sent, and not answered before the client's deadline.
            Refused: it compares a version that its variable never had; nothing was written.
        """
        return self.commit_by(until(self._reader.client.engine.deadline))

    def commit_by(self, deadline: float) -> int:
        """As :meth:`commit`, until ``deadline`` by the monotonic clock."""
        if self._applied is not None:
            return self._applied
        if self._pending is not None and self._pid != os.getpid():
            # A session never crosses a fork (G4).
            raise self._uncertain(errors.OutcomeUnknown(f"process {self._pid} has sent it"))
        try:
            response = self._send(deadline)
        except errors.OutcomeUnknown as error:
            if not self._is_unapplied(deadline):
                raise self._uncertain(error) from error
            self._pending = None
            raise _busy(error) from error
        except errors.Refused as error:
            self._pending = None
            if error.is_session_gone:
                raise _busy(error) from error
            raise
        except (errors.NotApplied, errors.Unavailable) as error:
            self._pending = None
            raise _busy(error) from error
        self._pending = None
        revision = response.header.revision
        if not response.committed:
            raise self._conflict(response)
        self._applied = revision
        return revision

    def _send(self, deadline: float) -> stm_pb2.CommitResponse:
        """Sends it under the number that it has, or a new one.

        Until the budget is over, and if it may have left by then, until the deadline.
        """
        left = remaining(deadline)
        if self._pending is None:
            engine = self._reader.client.engine
            began = engine.begin(calls.STM_COMMIT, self._request, deadline=min(self._budget, left))
            self._pending, self._pid = result_of(began), os.getpid()
            left = remaining(deadline)
        elif self._pending.is_decided:
            raise errors.OutcomeUnknown("its session is gone")
        budget = self._budget if self._budget < left else None
        return result_of(self._pending.send(deadline=left, budget=budget))

    def _is_unapplied(self, deadline: float) -> bool:
        """Whether it was not applied and never will be, so far as can be known.

        When its session is gone no copy of it can be applied any more, and then a variable tells
        that would be another one for good.
        """
        if self._pending is None or not self._pending.is_decided:
            return False
        try:
            _, found = self._reader.versions(list(self._telling), remaining(deadline))
        except errors.HoldfastError:
            return False  # it stays uncertain
        return any(now.mod_revision == self._telling[encode(now.key)] for now in found)

    def _uncertain(self, cause: errors.OutcomeUnknown) -> CommitUncertain:
        uncertain = CommitUncertain(cause.summary, cause.attempts, cause.header)
        uncertain.commit = self
        return uncertain

    def _conflict(self, response: stm_pb2.CommitResponse) -> ConcurrentUpdate:
        allow_pickle = self._reader.allow_pickle
        found = (
            from_wire(conflict.variable, conflict.has_value, allow_pickle)
            for conflict in response.conflicts
        )
        total = response.conflicts_total
        return ConcurrentUpdate(tuple(found), total, response.header.revision)


def _busy(cause: errors.HoldfastError) -> BusyRetry:
    return BusyRetry(f"busy, nothing was committed: {cause}", cause.attempts, cause.header)
