"""What stands between Buildbot and one of its change sources.

Buildbot claims a change source once and then believes for ever that it owns it (see
``ClusteredBuildbotService`` in ``buildbot/util/service.py``). A guard makes that belief true again:

- every poll begins with a look at the claim, and runs in a context that names it (B6);
- when the claim is lost the change source is deactivated and waits for its turn again, exactly as
  Buildbot does it at a start (B6);
- when the claim comes, the timer of Buildbot's own activity poll is set to now, and what it then
  activates polls at once (B7). The activity poll itself is never called: two at a time would
  activate twice;
- when Buildbot stops it, its place in the line goes as well.

All of it runs on the reactor's thread.
"""

from __future__ import annotations

import contextvars
import inspect
from typing import TYPE_CHECKING, Any, Callable

from buildbot.util import poll as buildbot_poll
from twisted.internet import defer

from holdfast.buildbot.notes import note, note_failure
from holdfast.errors import HoldfastError

from .claim import Poll, current

if TYPE_CHECKING:
    from buildbot.util.service import ClusteredBuildbotService

    from holdfast.buildbot.claim import Claim
    from holdfast.buildbot.marks import Marks


class Guard:
    """Guards one service for as long as it is this master's change source of that name.

    Args:
        service: the change source.
        claim_of: its live claim, or None; looks at the clock.
        withdraw: called when Buildbot has stopped the service: the claim and the place in the line
            are to go.
        marks: of the changes that polls of the change source have added.
    """

    def __init__(
        self,
        service: ClusteredBuildbotService,
        claim_of: Callable[[], Claim | None],
        withdraw: Callable[[], defer.Deferred[None]],
        marks: Marks,
    ) -> None:
        self.service = service
        self._claim_of = claim_of
        self._withdraw = withdraw
        self._marks = marks
        self._is_pushed = False
        self._is_resting = False
        self._stepping_down: defer.Deferred[None] | None = None
        self._pollers: list[tuple[Any, Callable[[Any], Any]]] = []
        self._install()

    @property
    def is_idle(self) -> bool:
        """Whether the change source does nothing that only the owner may do."""
        return not self.service.active and self._stepping_down is None

    def push(self) -> None:
        """The claim has come: lets Buildbot's activity poll find it, now."""
        self._is_pushed = True
        timer = getattr(self.service._activityPollCall, "call", None)
        if timer is not None and timer.active():
            timer.reset(0)
        # Without a timer an activity poll is on its way, and asks for the claim itself.

    def step_down(self) -> defer.Deferred[None]:
        """Deactivates the change source, and has it wait for its turn again.

        Fires when it does nothing any more; at once if it was not active.
        """
        done: defer.Deferred[None] = defer.Deferred()
        if self._stepping_down is None and self.service.active:
            self._stepping_down = defer.Deferred.fromCoroutine(self._deactivate())
            note_failure(self._stepping_down, f"{self.service.name!r} steps down")
            self._stepping_down.addCallback(self._stepped_down)
        if self._stepping_down is None:
            done.callback(None)
        else:
            self._stepping_down.chainDeferred(done)
        return done

    def rest(self) -> defer.Deferred[None]:
        """As :meth:`step_down`, and it does not wait for its turn until somebody else wakes it."""
        self._is_resting = True
        return self.step_down()

    def remove(self) -> None:
        """Leaves the service as it was."""
        for poller, function in self._pollers:
            poller.fn = function
        self._pollers = []
        del self.service.activate
        del self.service.stopService

    def _install(self) -> None:
        service = self.service
        for name in dir(type(service)):
            if isinstance(inspect.getattr_static(type(service), name), buildbot_poll._Descriptor):
                poller = getattr(service, name)
                self._pollers.append((poller, poller.fn))
                poller.fn = self._guarded(poller)
        service.activate = self._activated(service.activate)
        service.stopService = self._stopped(service.stopService)

    def _guarded(self, poller: Any) -> Callable[[Any], Any]:
        function = poller.fn

        async def poll(instance: Any) -> None:
            claim = self._claim_of()
            if claim is None:
                return
            try:
                await self._marks.load(claim)
            except HoldfastError as error:
                note(f"{self.service.name!r} does not poll: {error}")
                return
            if not claim.is_live():
                return
            polling = Poll(claim, self._marks, poller)
            await _run_in(polling, function, instance)
            if polling.is_broken:
                # What the poller remembers is not what it has done. It reads its state again when
                # it is activated again.
                self.step_down()
            else:
                await self._marks.settle(polling)

        return lambda instance: defer.Deferred.fromCoroutine(poll(instance))

    def _activated(self, activate: Callable[[], Any]) -> Callable[[], Any]:
        async def activated() -> None:
            claim = self._claim_of()
            if claim is not None:
                # What it reads and stores at its start is as much the owner's affair as a poll.
                await _run_in(Poll(claim, self._marks), activate)
            if self._is_pushed and hasattr(self.service, "force"):
                self.service.force()
            self._is_pushed = False

        return lambda: defer.Deferred.fromCoroutine(activated())

    def _stopped(self, stop: Callable[[], Any]) -> Callable[[], Any]:
        async def stopped() -> None:
            if self._stepping_down is not None:
                await self.step_down()
            try:
                await defer.maybeDeferred(stop)
            finally:
                await self._withdraw()

        return lambda: defer.Deferred.fromCoroutine(stopped())

    async def _deactivate(self) -> None:
        service = self.service
        if service._activityPollCall is not None:
            # It is only being activated; what that starts is to be stopped behind it.
            await service._activityPollDeferred
        if service.active:
            service.active = False
            await defer.maybeDeferred(service.deactivate)

    def _stepped_down(self, _result: Any) -> None:
        self._stepping_down = None
        service = self.service
        if service.running and not self._is_resting and service._activityPollCall is None:
            service._startActivityPolling()


def _run_in(poll: Poll, function: Callable[..., Any], *args: Any) -> defer.Deferred[Any]:
    """Runs a function in a context in which ``poll`` is the current one."""
    context = contextvars.copy_context()
    context.run(current.set, poll)
    return context.run(defer.maybeDeferred, function, *args)
