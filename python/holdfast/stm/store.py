"""The store: variables of a namespace, used as Axon's is."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from holdfast.client import Client
from holdfast.errors import Unavailable

from . import copies
from .commit import Commit, Plan
from .copies import Collection, Value, Writes
from .errors import BusyRetry
from .key import Key, Part, encode, encode_prefix
from .queue import Queue
from .reading import Reader, until
from .transact import Runner
from .transaction import Isolation, Transaction
from .value import Snapshot, Variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

T = TypeVar("T")

BUDGET = 0.25
"""How long a commit may take before it is given up, if it is certain that it was not applied.

In seconds (T3).
"""


class Store:
    """The variables of a namespace. Threads and forks may share it; nothing connects before a call.

    Unlike Axon's, which is one process's, it is shared by all that name the same cluster and
    namespace, and reading a variable does not create it. What Axon has raises Axon's exceptions.

    Args:
        client: the cluster: a :class:`holdfast.Client`, or endpoints as that takes them. None:
            those in ``HOLDFAST_ENDPOINTS``, else ``127.0.0.1:7480``.
        namespace: of the variables, if ``client`` is no client. None: ``HOLDFAST_NAMESPACE``, else
            ``default``.
        budget: after so many seconds a commit that was certainly not applied is given up with
            ``BusyRetry``. One that may have been applied goes on until the client's deadline.
        writes: what commits of copies write.
        allow_pickle: whether values that do not fit into JSON are pickled, and pickles are loaded.
            To load one runs whatever it says; without, programs that share a namespace need not
            trust each other.
    """

    def __init__(
        self,
        client: Client | str | Sequence[str] | None = None,
        *,
        namespace: str | None = None,
        budget: float = BUDGET,
        writes: Writes = Writes.ALL,
        allow_pickle: bool = True,
    ) -> None:
        if not isinstance(client, Client):
            client = Client(client, namespace=namespace)
        self.client = client
        self.allow_pickle = allow_pickle
        self._reader = Reader(client, allow_pickle=allow_pickle)
        self._queue = Queue()
        self._budget = budget
        self._writes = writes

    def with_budget(self, budget: float) -> Store:
        """The same store with another budget for commits, in seconds."""
        store = copy.copy(self)
        store._budget = budget
        return store

    def with_writes(self, writes: Writes) -> Store:
        """The same store, in which commits of copies write all of them, or only the changed."""
        store = copy.copy(self)
        store._writes = writes
        return store

    def usevar(self, key: Key, islocked: bool = False) -> Value:  # noqa: ARG002
        """A copy of a variable; of one that is not there, with version 0 and None in it.

        Linearizable, never a write, and blocks. ``islocked`` is Axon's, and makes no difference:
        there is nothing to lock.

        Raises:
            BusyRetry: no node answered within the client's deadline.
            TypeError, ValueError: it is no key.
        """
        return Value(self, self._use([key])[0])

    def using(self, *keys: Key) -> Collection:
        """Copies of several variables, all as they were at one revision.

        Raises as :meth:`usevar`, and LimitReached beyond 4,096 keys or 8 MiB.
        """
        collection = Collection()
        if keys:
            collection.update((found.key, Value(self, found)) for found in self._use(keys))
        collection.set_store(self)
        return collection

    def set(self, key: Key, value: Value) -> None:
        """Commits a copy under this key, which is mostly its own: :meth:`Value.commit`."""
        self.set_values({key: value})

    def set_values(self, D: Mapping[Key, Value]) -> None:  # noqa: N803
        """Commits copies, all or none: :meth:`Collection.commit`."""
        copies.commit(self, D, self._writes, until(self.client.engine.deadline))

    def dump(self) -> None:
        """Prints all variables, at one revision and in order of their keys, as Axon does."""
        found = self.snapshot().variables
        print("DEBUG: Store dump ------------------------------")
        for variable in found:
            print("     ", variable.key, ":", Value(self, variable))
        print()

    def read(self, *keys: Key, local: bool = False) -> Snapshot:
        """Several variables at one revision, in the order asked for.

        Linearizable; if ``local``, whatever the node that answers has applied, which may be out of
        date. Blocks. Raises Unavailable, and LimitReached beyond 4,096 keys or 8 MiB.
        """
        revision, found = self._reader.get([encode(key) for key in keys], local=local)
        return Snapshot(revision, tuple(found))

    def snapshot(self, prefix: Part = None) -> Snapshot:
        """All variables, with what they hold, at one revision, in order of their keys.

        With a prefix those whose keys begin with it: texts with a text, byte strings with a byte
        string, tuples with the parts of a tuple. Blocks. Raises Unavailable.
        """
        return self._collect(prefix, only_keys=False)

    def versions(self, prefix: Part = None) -> Snapshot:
        """As :meth:`snapshot`, without what the variables hold."""
        return self._collect(prefix, only_keys=True)

    def keys(self, prefix: Part = None) -> list[Key]:
        """The keys that are there, or that begin with a prefix, in order, at one revision.

        See :meth:`snapshot`.
        """
        return [found.key for found in self.versions(prefix).variables]

    def listing(self, prefix: Part = None) -> Iterator[Variable]:
        """As :meth:`snapshot`, one after the other: not all need to be in memory at once.

        Raises LimitReached (``SLOW_READER``) if it is left lying for 10 s.
        """
        for _, found in self._reader.listing(_prefix(prefix)):
            yield from found

    def delete(self, key: Key) -> bool:
        """Deletes a variable, whatever it holds; returns whether it was there. Blocks.

        Raises as :meth:`transact`.
        """

        def delete(transaction: Transaction) -> bool:
            was_there = transaction.get_content(key) is not None
            transaction.delete(key)
            return was_there

        return self.transact(delete)

    def prepare(self, plan: Plan) -> Commit:
        """A commit of one's own making; nothing is sent before :meth:`Commit.commit`.

        Raises BadRequest if it is too large.
        """
        return Commit(self._reader, self._budget, plan)

    def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        isolation: Isolation = Isolation.SERIALIZABLE_SNAPSHOT,
        writes: Writes = Writes.ALL,
        timeout: float | None = None,
    ) -> T:
        """Runs a function until what it did could be applied at once, exactly once. Blocks.

        The function reads and writes variables through the :class:`Transaction` that it is given,
        may run many times and should have no effects of its own. What its last run returned is
        returned. When it raises, nothing is written, and that is raised.

        Args:
            function: what to run.
            isolation: what it may notice of others.
            writes: whether what it puts is written if the variable holds that already.
            timeout: how long it may run again and again, in seconds, waits after
                :meth:`Transaction.retry` not counted; None: the client's deadline.

        Raises:
            ConcurrentUpdate, BusyRetry: for all that time others came between, or there was no
                leader; nothing was written.
            CommitUncertain: the last run may have been applied, or may still be; its ``commit``
                settles it.
            Unavailable: a read was not answered in time; nothing was written.
            NothingRead: the function waits for a change of what it read, and has read nothing.
            Refused: too large; nothing was written.
        """
        timeout = self.client.engine.deadline if timeout is None else timeout
        runner = Runner(
            self._reader,
            self._queue,
            self._budget,
            isolation=isolation,
            writes=writes,
            timeout=timeout,
        )
        return runner.run(function)

    def _use(self, keys: Sequence[Key]) -> list[Variable]:
        encoded = [encode(key) for key in keys]
        try:
            _, found = self._reader.get(encoded)
        except Unavailable as error:
            raise BusyRetry(f"busy: {error}", error.attempts, error.header) from error
        # As the caller spells them: 1.0 is the key 1.
        return [dataclasses.replace(one, key=key) for key, one in zip(keys, found)]

    def _collect(self, prefix: Part, *, only_keys: bool) -> Snapshot:
        parts = list(self._reader.listing(_prefix(prefix), only_keys=only_keys))
        variables = (variable for _, found in parts for variable in found)
        return Snapshot(parts[0][0], tuple(variables))


def _prefix(part: Any) -> bytes:
    """What encoded keys begin with; for None, all do."""
    return b"" if part is None else encode_prefix(part)
