"""One run of a transaction: what its function reads and writes.

There is no history of values in the cluster. So that all reads of a run are of one revision, each
further read looks whether the earlier ones still hold, and if they do, the whole run is of the
later revision.

Invariant: a run at a serializable level never sees two variables as they were not at one revision,
also one that is then given up.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NoReturn

from holdfast.errors import HoldfastError

from .commit import Plan
from .copies import Writes
from .key import Key, decode, encode
from .queue import Touch
from .reading import remaining
from .value import Content

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .queue import Queue, Turn
    from .reading import Reader
    from .value import Variable


class Isolation(enum.Enum):
    """How much of what others do a transaction may notice; as in etcd's STM."""

    SERIALIZABLE_SNAPSHOT = "serializable snapshot"
    """All reads are of one revision, and neither what was read nor what is written has been changed
    by others between it and the commit."""
    SERIALIZABLE = "serializable"
    """All reads are of one revision, and what was read has not been changed between it and the
    commit."""
    REPEATABLE_READS = "repeatable reads"
    """A variable reads the same however often it is read, and has not been changed between that and
    the commit; but two variables may never have had what was read of them at one time."""
    READ_COMMITTED = "read committed"
    """Each read is of what was committed by then, and nothing is compared: the writes are applied
    all at once, on top of whatever is there."""

    @property
    def keeps_reads(self) -> bool:
        """Whether a variable that was read once is not read again, and is compared."""
        return self is not Isolation.READ_COMMITTED

    @property
    def is_snapshot(self) -> bool:
        """Whether all reads are of one revision."""
        return self in (Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE)


class Interrupt(BaseException):
    """Ends a run that cannot go on; to be let through.

    It is no Exception, so that functions that catch those do not stop it. A run that it was raised
    in is never committed, whatever became of it.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(type(self).__doc__)
        self.run = run


class Moved(Interrupt):
    """Something that was read has changed: the function runs again."""


class Blocked(Interrupt):
    """The function runs again when something that it has read is changed."""


class Transaction:
    """One run of a transaction, for its function, and no longer than that runs.

    Not safe for several threads at a time.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def get(self, key: Key, default: Any = None) -> Any:
        """What a variable holds, a new copy each time; ``default`` if it is not there.

        A variable that this run has written holds that. Blocks if it was not read before.

        Raises:
            CodecError: it is a pickle and the store loads none, or it cannot be read.
            Unavailable: no node answered in time; the transaction ends with it.
        """
        content = self.get_content(key)
        if content is None:
            return default
        return content.decode(allow_pickle=self._run.reader.allow_pickle)

    def get_content(self, key: Key) -> Content | None:
        """As :meth:`get`, but encoded; None if it is not there."""
        encoded = encode(key)
        if encoded in self._run.writes:
            return self._run.writes[encoded]
        return self._run.read(encoded).content

    def put(self, key: Key, value: Any) -> None:
        """Has a variable hold a value once the transaction is applied. Encodes it at once.

        Raises CodecError if it cannot be encoded.
        """
        self.put_content(key, Content.of(value, allow_pickle=self._run.reader.allow_pickle))

    def put_content(self, key: Key, content: Content) -> None:
        """Has a variable hold this once the transaction is applied."""
        self._run.writes[encode(key)] = content

    def delete(self, key: Key) -> None:
        """Deletes a variable once the transaction is applied."""
        self._run.writes[encode(key)] = None

    def retry(self) -> NoReturn:
        """Ends this run; the function runs again once something that it has read is changed."""
        self._run.interrupt = Blocked(self._run)
        raise self._run.interrupt


class Run:
    """What a run has done so far.

    Args:
        reader: whose variables it reads.
        isolation: what it may notice of others.
        deadline: until when its reads may take, by the monotonic clock.
        queue: where it stands in line before it reads anything; None if it has a turn, or needs
            none.
    """

    def __init__(
        self, reader: Reader, isolation: Isolation, deadline: float, queue: Queue | None = None
    ) -> None:
        self.reader = reader
        self.reads: dict[bytes, Variable] = {}
        self.writes: dict[bytes, Content | None] = {}
        self.interrupt: Interrupt | HoldfastError | None = None
        """Why it cannot go on."""
        self.oldest: int | None = None
        """No read is of an earlier revision."""
        self.turn: Turn | None = None
        """To write what it read first, if it stood in line for that; to be given back."""
        self._isolation = isolation
        self._deadline = deadline
        self._queue = queue if isolation.keeps_reads else None
        # The revision that all reads are of, at the serializable levels; and what was read
        # beforehand.
        self._snapshot: int | None = None
        # Read because the last run read it; no read of this run before it is asked for.
        self._beforehand: dict[bytes, Variable] = {}

    def read_beforehand(self, footprint: Iterable[bytes]) -> None:
        """Reads what the last run touched, all at once. Raises as a read."""
        keys = list(footprint)
        if not keys or not self._isolation.keeps_reads:
            return
        try:
            revision, found = self.reader.get(keys, remaining(self._deadline))
        except HoldfastError as error:
            if error.reason == "TRANSACTION_TOO_LARGE":
                return  # they hold more than fits into one answer
            raise
        self._snapshot = self.oldest = revision
        self._beforehand = dict(zip(keys, found))

    def read(self, key: bytes) -> Variable:
        """A variable as the run sees it. Raises as a read, and Moved; both are noted."""
        self._ask_for(key)
        if not (key in self.reads and self._isolation.keeps_reads):
            if self._queue is not None:
                # Later, waiting would only make older what was read.
                self.turn, self._queue = self._queue.join(key), None
            self._fetch([key])
        return self.reads[key]

    def read_writes(self) -> None:
        """Reads what it writes and has not read. Raises as :meth:`read`."""
        for key in self.writes:
            self._ask_for(key)
        unread = [key for key in self.writes if key not in self.reads]
        if unread:
            self._fetch(unread)

    def footprint(self) -> Mapping[bytes, Touch]:
        """What it has touched."""
        footprint = dict.fromkeys(self.reads, Touch.READS)
        footprint.update(dict.fromkeys(self.writes, Touch.WRITES))
        return footprint

    def needs_commit(self) -> bool:
        """Whether the cluster has to look: something is written, or may never have been so."""
        if self.writes:
            return True
        is_of_one_revision = self._isolation.is_snapshot or len(self.reads) < 2
        return self._isolation.keeps_reads and not is_of_one_revision

    def plan(self, writes: Writes) -> Plan:
        """What is to be committed of it."""
        plan = Plan()
        # What is not compared may be otherwise by now.
        compared = self.reads if self._isolation.keeps_reads else {}
        for read in compared.values():
            plan.expect(read)
        for key, content in self.writes.items():
            is_there_already = key in compared and compared[key].content == content
            # To delete what is not there is no write either way.
            if is_there_already and (writes is Writes.CHANGED or content is None):
                continue
            if content is None:
                plan.delete(decode(key))
            else:
                plan.put(decode(key), content)
        return plan

    def _ask_for(self, key: bytes) -> None:
        """Has what was read beforehand be read by this run."""
        if key in self._beforehand:
            self.reads[key] = self._beforehand.pop(key)

    def _fetch(self, keys: list[bytes]) -> None:
        """Reads in such a way that the run sees what it may see."""
        try:
            revision, found = self.reader.get(keys, remaining(self._deadline))
            if self._isolation.is_snapshot and not self._is_of_snapshot(revision, found):
                self._extend_snapshot(keys, found)
            elif self._snapshot is None:
                self._snapshot = revision
        except (HoldfastError, Interrupt) as error:
            self.interrupt = error
            raise
        self.oldest = revision if self.oldest is None else min(self.oldest, revision)
        self.reads.update(zip(keys, found))

    def _is_of_snapshot(self, revision: int, found: Iterable[Variable]) -> bool:
        """Whether what was found at this revision was so at the run's one, too."""
        at = self._snapshot
        if at is None or revision == at:
            return True
        # An absent variable does not tell since when.
        return revision > at and all(0 < variable.mod_revision <= at for variable in found)

    def _extend_snapshot(self, keys: list[bytes], found: list[Variable]) -> None:
        """Takes in what was read at a later revision than the rest.

        Raises Moved if there is no revision at which all of it is so.
        """
        seen = {**self.reads, **dict(zip(keys, found))}
        revision, now = self.reader.versions(list(seen), remaining(self._deadline))
        if [one.mod_revision for one in now] != [one.mod_revision for one in seen.values()]:
            raise Moved(self)
        self._snapshot = revision
        # Nobody has asked whether it still holds.
        self._beforehand.clear()
