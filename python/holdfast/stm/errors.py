"""Why a commit was not applied, or is not known to be (T3).

Where Axon is installed, ``BusyRetry`` and ``ConcurrentUpdate`` are subclasses of Axon's, so that
programs written for ``Axon.STM`` catch them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from holdfast.errors import Attempt, Header, HoldfastError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .commit import Commit
    from .value import Variable

NAMED_MAX = 4
"""Keys that a message names at most; the others are counted."""


def _axon(name: str) -> type[Exception]:
    """Axon's exception of this name, or Exception where there is no Axon."""
    try:
        found: type[Exception] = getattr(importlib.import_module("Axon.STM"), name)
    except Exception:  # a stray debug.conf in the working directory breaks the import
        return Exception
    return found


if TYPE_CHECKING:
    _AxonBusyRetry = Exception
    _AxonConcurrentUpdate = Exception
else:
    _AxonBusyRetry = _axon("BusyRetry")
    _AxonConcurrentUpdate = _axon("ConcurrentUpdate")


class BusyRetry(HoldfastError, _AxonBusyRetry):
    """Definitely not applied: the cluster could not be reached, or has no leader, for too long.

    Trying again is safe. Its ``__cause__`` is what happened.
    """

    def __init__(
        self, what: str = "busy", attempts: Sequence[Attempt] = (), header: Header | None = None
    ) -> None:
        self.attempts = tuple(attempts)
        self.header = header
        super().__init__(what, self.attempts, header)

    def __str__(self) -> str:
        return str(self.args[0])


class ConcurrentUpdate(HoldfastError, _AxonConcurrentUpdate):
    """Nothing was written: others have written what was compared.

    A copy that was refused so is out of date for good: take a new one.
    """

    def __init__(
        self, variables: Sequence[Variable] = (), total: int = 0, revision: int = 0
    ) -> None:
        self.variables = tuple(variables)
        """The variables as they are now: at most 256, and with what they hold only as long as all
        that takes no more than 1 MiB."""
        self.total = total
        """Of how many variables the comparison failed."""
        self.revision = revision
        """The revision at which these are the variables, or a later one."""
        super().__init__(self.variables, total, revision)

    def __str__(self) -> str:
        named = [repr(found.key) for found in self.variables[:NAMED_MAX]]
        more = f" and {self.total - len(named)} more" if self.total > len(named) else ""
        return f"nothing was committed: others have changed {', '.join(named)}{more}"


class CommitUncertain(OutcomeUnknown):
    """It may have been applied, or may still be: neither of the others.

    Committing again settles it, and applies it at most once, for as long as the session lasts
    (:class:`holdfast.Client`, ``session_idle``); afterwards the variables have to be read anew.
    """

    _label = "the outcome of the commit is unknown, commit again to settle it"
    commit: Commit | None = None
    """What to settle; None once this has been pickled."""


class NothingRead(HoldfastError):
    """A transaction waits for a change of what it read, and has read nothing."""

    def __init__(
        self, what: str = "the transaction waits for a change, and has read nothing"
    ) -> None:
        super().__init__(what)
