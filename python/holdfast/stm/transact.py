"""Transactions: a function that reads and writes, run until what it did could be applied at once.

The model: each run reads the cluster, and writes are kept until it ends. Then one commit compares
what was read and writes what was written. If something has moved, the function runs again.

Invariants:

- The writes of at most one run are applied, and of that run all or none.
- Transactions of one store that touch the same variables commit one after the other; which is for
  speed alone (``queue``).
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Callable, TypeVar, cast

from holdfast.errors import Compacted, HoldfastError, Unavailable
from holdfast.watch import VariableChanged, VariableFilter

from .commit import Commit
from .errors import BusyRetry, ConcurrentUpdate, NothingRead
from .reading import remaining, until
from .transaction import Blocked, Interrupt, Isolation, Run, Transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.client import Client
    from holdfast.watch import Change

    from .copies import Writes
    from .queue import Queue, Touch, Turn
    from .reading import Reader
    from .value import Variable

T = TypeVar("T")

CONFLICT_PAUSE = 0.0005
"""Pause after a conflict, in seconds; doubled from run to run, with jitter."""
BUSY_PAUSE = 0.005
"""Pause while there is no leader, in seconds; doubled from run to run, with jitter."""
DOUBLINGS_MAX = 6
"""How often a pause is doubled."""
FILTERS_MAX = 64
"""Most filters of a watch for a change; beyond, all variables are watched."""


class Runner:
    """A transaction from its first run to its last.

    Args:
        reader: whose variables it reads.
        queue: where it waits for others of the same store.
        budget: of its commits, in seconds.
        isolation: what it may notice of others.
        writes: whether what it puts is written if the variable holds that already.
        timeout: how long it may run again and again, waits for changes not counted, in seconds.
    """

    def __init__(
        self,
        reader: Reader,
        queue: Queue,
        budget: float,
        *,
        isolation: Isolation,
        writes: Writes,
        timeout: float,
    ) -> None:
        self._reader = reader
        self._queue = queue
        self._budget = budget
        self._isolation = isolation
        self._writes = writes
        self._timeout = timeout
        self._deadline = until(timeout)
        # What the last run touched.
        self._footprint: Mapping[bytes, Touch] = {}
        self._turn: Turn | None = None
        # Runs in vain since the first one, or since the last wait for a change.
        self._vain = 0

    def run(self, function: Callable[[Transaction], T]) -> T:
        """Runs it until what it did was applied at once; see :meth:`Store.transact`."""
        try:
            while True:
                queue = None if self._footprint else self._queue
                run = Run(self._reader, self._isolation, self._deadline, queue)
                run.read_beforehand(self._footprint)
                returned = self._call(function, run)
                self._footprint = run.footprint()
                if isinstance(run.interrupt, HoldfastError):
                    raise run.interrupt
                if isinstance(run.interrupt, Blocked):
                    self._wait_for_change(run)
                elif run.interrupt is not None:
                    self._pause(_moved(), CONFLICT_PAUSE)
                elif self._commit(run):
                    return cast("T", returned)
        finally:
            self._give_turn_back()

    def _call(self, function: Callable[[Transaction], T], run: Run) -> T | None:
        """Calls it, and notes it if the run cannot go on; what it returns is then not looked at."""
        try:
            returned = function(Transaction(run))
            if self._isolation is Isolation.SERIALIZABLE_SNAPSHOT and run.interrupt is None:
                # At this level what is written must be as it was, too.
                run.read_writes()
        except Interrupt as interrupt:
            if interrupt.run is not run:
                raise  # of a transaction that this one is inside of
        except Exception:
            if run.interrupt is None:
                raise  # the function's own affair
        else:
            return returned
        finally:
            # Only the first run stands in line by itself, when there is no turn yet.
            self._turn = run.turn or self._turn
        return None

    def _commit(self, run: Run) -> bool:
        """Whether what a run did has been applied; if not, it is to run again, at once."""
        if not run.needs_commit():
            return True
        plan = run.plan(self._writes)
        if not self._take_turn():
            return False
        try:
            Commit(self._reader, self._budget, plan).commit_by(self._deadline)
        except ConcurrentUpdate as error:
            self._pause(error, CONFLICT_PAUSE)
        except BusyRetry as error:
            self._pause(error, BUSY_PAUSE)
        else:
            return True
        return False

    def _take_turn(self) -> bool:
        """Makes sure that no other transaction of this store commits what overlaps this one.

        False if another one has, probably, so that this run is in vain.
        """
        if self._turn is not None and self._turn.covers(self._footprint):
            return True
        # Given back first: whoever has a turn waits for no other.
        self._give_turn_back()
        self._turn = self._queue.take(self._footprint)
        has_waited = self._turn is not None and self._turn.has_waited
        return not has_waited or not self._isolation.keeps_reads

    def _give_turn_back(self) -> None:
        if self._turn is not None:
            self._queue.give_back(self._turn)
            self._turn = None

    def _pause(self, error: HoldfastError, shortest: float) -> None:
        """Waits before the next run, longer from run to run; if the time is over, raises this."""
        pause = random.uniform(0, shortest * 2 ** min(self._vain, DOUBLINGS_MAX))
        self._vain += 1
        if remaining(self._deadline) <= pause:
            raise error
        time.sleep(pause)

    def _wait_for_change(self, run: Run) -> None:
        """Waits until something that the run read has changed."""
        if run.oldest is None or not run.reads:
            raise NothingRead
        # Others may go on.
        self._give_turn_back()
        _changed(self._reader.client, run.reads, run.oldest)
        self._vain = 0
        self._deadline = until(self._timeout)


def _moved() -> BusyRetry:
    return BusyRetry("nothing was committed: others kept changing what the transaction reads")


def _changed(client: Client, reads: Mapping[bytes, Variable], oldest: int) -> None:
    """Waits until one of these variables is not as it was read, at this revision or later."""
    keys = reads if len(reads) <= FILTERS_MAX else [b""]
    filters = [VariableFilter(key) for key in keys]
    try:
        with client.watch(*filters, from_revision=oldest + 1) as watch:
            while True:
                with contextlib.suppress(Unavailable):  # it goes on as soon as there is a node
                    if _tells_of_change(watch.next(), reads):
                        return
    except Compacted:
        return  # what has changed is not known any more, so it is read anew


def _tells_of_change(change: Change, reads: Mapping[bytes, Variable]) -> bool:
    if not isinstance(change.event, VariableChanged):
        return False
    read = reads.get(change.event.key)
    return read is not None and read.mod_revision < change.revision
