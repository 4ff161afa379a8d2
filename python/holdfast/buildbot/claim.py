"""A claim on a change source, and the poll that runs under it.

A claim is true only as long as its lease lives and the cluster has not given the change source to
somebody else. Whoever is about to do something that only the owner may do asks
:meth:`Claim.is_live` at that very moment: it looks at the clock and waits for nothing (B6).

What a poll calls does not know which poll called it, so the poll runs in a context of its own, in
which :data:`current` names it. Twisted keeps the context over every ``yield`` and ``await``.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Optional

from holdfast.errors import Refused

if TYPE_CHECKING:
    from holdfast.buildbot.marks import Marks
    from holdfast.changesources import Fence
    from holdfast.lease import LeaseHolder


class ClaimLost(Refused):
    """This master does not own the change source (any more), so nothing was done."""

    def __init__(self, source: str) -> None:
        message = f"change source {source!r} is not owned by this master any more"
        super().__init__("CLAIM_LOST", message, {"source": source})


class Claim:
    """The ownership of one change source under one lease."""

    def __init__(self, source: str, fence: Fence, lease: LeaseHolder) -> None:
        self.source = source
        self.fence = fence
        """Goes with what is written under the claim."""
        self.lease = lease
        self._is_revoked = False

    def is_live(self) -> bool:
        """Whether the claim still holds at this moment."""
        return not self._is_revoked and self.lease.is_live

    def check(self) -> None:
        """Raises :class:`ClaimLost` unless the claim still holds at this moment."""
        if not self.is_live():
            raise ClaimLost(self.source)

    def revoke(self) -> None:
        """It was given back, or the cluster gave it to somebody else."""
        self._is_revoked = True


class Poll:
    """One poll of a change source, from its start until its Deferred fires."""

    def __init__(self, claim: Claim, marks: Marks, poller: Any = None) -> None:
        self.claim = claim
        self.marks = marks
        self._poller = poller
        self.is_broken = False
        """Whether something that the poll asked for was refused. Pollers that catch errors would
        then store a state that says they have seen what they have not."""
        self.added = 0
        """How many changes it has added."""
        self.stored = False
        """Whether it has stored a state, and added nothing since."""

    @property
    def is_stopping(self) -> bool:
        """Whether Buildbot has asked it to come to an end before it is through."""
        return self._poller is not None and not self._poller.running

    def check(self) -> None:
        """Raises :class:`ClaimLost` unless the poll may go on."""
        if self.is_broken or not self.claim.is_live():
            self.is_broken = True
            raise ClaimLost(self.claim.source)


current: ContextVar[Optional[Poll]] = ContextVar("holdfast_poll", default=None)  # noqa: UP045
"""The poll that the running code belongs to; none outside of polls."""
