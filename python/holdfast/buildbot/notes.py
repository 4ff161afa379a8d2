"""What the plug-in writes into Buildbot's log, marked ``[holdfast#info]`` and alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

_log = Logger("holdfast")


def note(text: str) -> None:
    """Writes a line for whoever runs the master."""
    _log.info("{text}", text=text)


def note_failure(deferred: Deferred[Any], doing: str) -> None:
    """Writes down what nobody expected to go wrong, and lets it go at that."""

    def noted(failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure("while {doing}", failure, doing=doing)

    deferred.addErrback(noted)
