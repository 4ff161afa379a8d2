"""What stands before ``addChange``: the claim of the poll that found the change, and the marks.

A change that no poll has found, from a web hook or ``buildbot sendchange``, passes as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from twisted.internet import defer

from holdfast.buildbot.claim import current
from holdfast.buildbot.notes import note
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from buildbot.master import BuildMaster


class Changes:
    """Takes the place of two methods called ``addChange``: of the data API and of the database."""

    def __init__(self, master: BuildMaster) -> None:
        self._master = master
        self._add: Callable[..., Any] = master.data.updates.addChange
        self._add_row: Callable[..., Any] = master.db.changes.addChange

    def install(self) -> None:
        """Takes their place."""
        self._master.data.updates.addChange = self.add_change
        self._master.db.changes.addChange = self.add_row

    def remove(self) -> None:
        """Gives their place back."""
        self._master.data.updates.addChange = self._add
        # The database's was the class's own.
        del self._master.db.changes.addChange

    def add_change(self, *args: Any, **change: Any) -> defer.Deferred[int | None]:
        """``addChange`` of the data API. None instead of an id if the change was added before.

        Raises:
            ClaimLost: the poll that found the change has lost its claim. Nothing was added; or the
                change was, and not marked, so that the poll must not go on.
        """
        return defer.Deferred.fromCoroutine(self._add_marked(*args, **change))

    def add_row(self, *args: Any, **change: Any) -> Any:
        """``addChange`` of the database: the last look at the claim, as the row is written."""
        poll = current.get()
        if poll is not None:
            poll.check()
        return self._add_row(*args, **change)

    async def _add_marked(self, *args: Any, **change: Any) -> int | None:
        poll = current.get()
        if poll is None:
            added: int = await self._add(*args, **change)
            return added
        poll.check()
        try:
            await poll.marks.load(poll.claim)
            if poll.marks.has(change):
                note(f"change {change.get('revision')} was added before")
                return None
            poll.check()
        except HoldfastError:
            # A poller that catches this would store that it has seen the rest as well.
            poll.is_broken = True
            raise
        added = await self._add(*args, **change)
        poll.added += 1
        poll.stored = False
        try:
            await poll.marks.put(poll, change)
        except BaseException:
            poll.is_broken = True
            raise
        return added
