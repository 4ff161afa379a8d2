"""What this master owns in the cluster: its lease, its place in the lines, its claims.

The lease is opened under the master's name, and renewed by the client library's thread. When it is
lost, all claims under it are lost at the same moment, and another one is opened, for as long as
the plug-in runs. With a lease, the master stands in line for each change source that it wants, and
the cluster says so when it is its turn: everything here is pushed, nothing asks again and again.

Invariants:

- A claim is taken away from the change source before anything else is done about its loss.
- A grant that nobody wants any more is given back at once.
- Whatever the watch tells is older or newer than what a call has answered, never "now": an event
  counts only if its revision is behind the token that is held.

All of it runs on the reactor's thread, and none of it blocks.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable, Protocol

from twisted.internet import defer, task

from holdfast.buildbot.claim import Claim
from holdfast.buildbot.cluster import RETRY_S
from holdfast.buildbot.notes import note, note_failure
from holdfast.errors import HoldfastError, LeaseHeld, LeaseLost, Refused

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from holdfast.buildbot.cluster import Cluster, SourceChange
    from holdfast.changesources import Fence
    from holdfast.lease import LeaseHolder, Loss

REFUSED_S = 5.0
"""Pause after a call that was refused, in seconds: the same call will be refused again, until
somebody makes room or mends the settings."""


class Owner(Protocol):
    """Who is told of what comes and goes."""

    def granted(self, source: str) -> None:
        """A change source is this master's now."""

    def lost(self, source: str) -> None:
        """A change source is not this master's any more."""


class _Wish:
    """A change source that this master wants, and where it stands with it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.source_id: int | None = None
        self.claim: Claim | None = None
        self.answered: defer.Deferred[None] | None = None
        """Fires with the cluster's first answer, while somebody waits for that."""

    def answer(self) -> None:
        if self.answered is not None and not self.answered.called:
            self.answered.callback(None)
        self.answered = None


class Ownership:
    """The lease of one master, and the claims under it.

    Args:
        cluster: where they are.
        owner: is told of grants and losses.
    """

    def __init__(self, cluster: Cluster, owner: Owner) -> None:
        self._cluster = cluster
        self._name = cluster.master_name
        self._owner = owner
        self._wishes: dict[str, _Wish] = {}
        self._lease: LeaseHolder | None = None
        self._is_watching = False
        self._running: list[defer.Deferred[None]] = []
        self._first_answer: defer.Deferred[None] | None = defer.Deferred()
        self._held_by: str | None = None
        self._is_in_trouble = False
        self._is_leaving = False

    @property
    def lease(self) -> LeaseHolder | None:
        """The lease, if there is a live one."""
        lease = self._lease
        return lease if lease is not None and lease.is_live else None

    def start(self) -> None:
        """Begins to hold a lease, one after the other, and to watch."""
        for run in (self._hold, self._watch):
            running = defer.Deferred.fromCoroutine(self._for_ever(run))
            note_failure(running, "holding a lease and watching")
            self._running.append(running)

    async def settled(self, seconds: float) -> None:
        """Waits until the cluster has answered whether there is a lease, at most so long."""
        first = self._first_answer
        if first is not None:
            await _at_most(seconds, _shared(first), self._cluster.reactor)

    def leave(self) -> None:
        """From now on places in lines are left to go with the lease."""
        self._is_leaving = True

    async def stop(self) -> None:
        """Gives everything back. What depended on it must have stopped before."""
        lease, self._lease = self._lease, None
        for running in self._running:
            running.cancel()
        self._wishes.clear()
        if lease is not None and lease.is_live:
            try:
                await self._cluster.close_lease(lease)
            except (HoldfastError, defer.TimeoutError) as error:
                note(f"the lease is left to run out: {error}")

    def abandon_lease(self) -> None:
        """Ends the lease at once, with all claims. May be called from any thread, and blocks."""
        lease = self._lease
        if lease is not None and lease.is_live:
            # It is over here whatever the cluster says; there it runs out at the latest.
            with contextlib.suppress(HoldfastError):
                self._cluster.abandon(lease)

    def claim_of(self, source: str) -> Claim | None:
        """The claim on a change source, if it holds at this moment."""
        wish = self._wishes.get(source)
        claim = wish.claim if wish is not None else None
        return claim if claim is not None and claim.is_live() else None

    def claims(self) -> list[Claim]:
        """All claims that hold at this moment."""
        found = (self.claim_of(source) for source in list(self._wishes))
        return [claim for claim in found if claim is not None]

    async def claim(self, source: str, seconds: float) -> bool:
        """Wants a change source from now on; returns whether it is owned already.

        If the cluster does not say so within ``seconds``, or somebody else owns it, it is waited
        for: :meth:`Owner.granted` tells of it.
        """
        wish = self._wishes.get(source)
        if wish is None or (wish.claim is not None and not wish.claim.is_live()):
            wish = self._wishes[source] = _Wish(source)
            if seconds > 0 and self.lease is not None and self._is_watching:
                wish.answered = defer.Deferred()
                answered = wish.answered
                self._join(wish)
                await _at_most(seconds, answered, self._cluster.reactor)
                wish.answered = None
            else:
                self._join(wish)
        return self.claim_of(source) is not None

    async def withdraw(self, source: str) -> None:
        """Does not want a change source any more: gives it back, or leaves the line."""
        wish = self._wishes.pop(source, None)
        lease = self.lease
        if wish is None or wish.source_id is None or lease is None:
            return
        try:
            if wish.claim is not None:
                wish.claim.revoke()
                await self._cluster.release(wish.claim.fence)
            elif not self._is_leaving:
                await self._cluster.stop_awaiting(lease, wish.source_id)
        except HoldfastError as error:
            # It goes with the lease.
            note(f"{source!r} is not given back yet: {error}")

    async def _for_ever(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Nobody would begin it anew, so what nobody expected ends only one try of it."""
        while True:
            try:
                await run()
            except defer.CancelledError:
                raise
            except Exception as error:
                note_failure(defer.fail(error), "holding a lease and watching")
            await task.deferLater(self._cluster.reactor, REFUSED_S)

    async def _hold(self) -> None:
        while True:
            pause = RETRY_S
            try:
                lease = await self._cluster.open_lease()
            except LeaseHeld as error:
                await self._report_rival(error)
                pause += error.held_by.remaining
            except Refused as error:
                note(f"no lease for {self._name!r}: {error}")
                pause = REFUSED_S
            except HoldfastError as error:
                self._note_trouble(f"the cluster cannot be reached, trying on: {error}")
            else:
                self._held_by = None
                self._is_in_trouble = False
                self._granted(lease)
                self._lost(lease, await self._cluster.lost(lease))
                continue
            self._answer_first()
            await task.deferLater(self._cluster.reactor, pause)

    def _note_trouble(self, text: str) -> None:
        """Says it once, until there is a lease again."""
        if not self._is_in_trouble:
            self._is_in_trouble = True
            note(text)

    async def _report_rival(self, error: LeaseHeld) -> None:
        """Says once of each rival who it is."""
        try:
            rival = await self._cluster.who_is_it()
        except HoldfastError:
            rival = "not known"
        if self._held_by != rival:
            self._held_by = rival
            note(
                f"refused: a second master under the name {self._name!r}. The first one "
                f"is {rival} (lease {error.held_by.lease_id}). This one owns no change source "
                "while that one lives; give it a name of its own with master_name"
            )

    def _granted(self, lease: LeaseHolder) -> None:
        self._lease = lease
        note(f"lease {lease.lease.id} as master {self._name!r}")
        introducing = defer.Deferred.fromCoroutine(self._cluster.introduce())
        note_failure(introducing, "telling who this is")
        self._ready()

    def _lost(self, lease: LeaseHolder, loss: Loss | None) -> None:
        if self._lease is lease:
            self._lease = None
        note(f"lease {lease.lease.id} is over: {loss.value if loss else 'unknown'}")
        for wish in list(self._wishes.values()):
            if wish.claim is not None and wish.claim.lease is lease:
                self._drop(wish)

    def _drop(self, wish: _Wish) -> None:
        """Its claim is over. Buildbot asks for it again when it has stopped."""
        if wish.claim is not None:
            wish.claim.revoke()
        if self._wishes.get(wish.source) is wish:
            del self._wishes[wish.source]
        note(f"{wish.source!r} is not owned by this master any more")
        self._owner.lost(wish.source)

    def _answer_first(self) -> None:
        first, self._first_answer = self._first_answer, None
        if first is not None:
            first.callback(None)

    def _ready(self) -> None:
        """Stands in line everywhere, if there is a lease for it, and a watch to be told by."""
        if self.lease is None or not self._is_watching:
            return
        self._answer_first()
        for wish in list(self._wishes.values()):
            if wish.claim is None:
                self._join(wish)

    def _join(self, wish: _Wish) -> None:
        lease = self.lease
        # Without a watch nothing would tell of the grant.
        if lease is not None and self._is_watching:
            joining = defer.Deferred.fromCoroutine(self._stand_in_line(wish, lease))
            note_failure(joining, f"waiting for {wish.source!r}")

    async def _stand_in_line(self, wish: _Wish, lease: LeaseHolder) -> None:
        while self._wishes.get(wish.source) is wish and wish.claim is None and lease.is_live:
            pause = RETRY_S
            try:
                if wish.source_id is None:
                    wish.source_id = await self._cluster.find_source_id(wish.source)
                fence = await self._cluster.await_claim(lease, wish.source_id)
            except LeaseLost:
                return
            except Refused as error:
                note(f"no place in line for {wish.source!r}: {error}")
                pause = REFUSED_S
            except HoldfastError as error:
                note(f"still to stand in line for {wish.source!r}: {error}")
            else:
                if fence is not None:
                    self._owns(wish.source, fence, lease)
                wish.answer()
                return
            await task.deferLater(self._cluster.reactor, pause)

    def _owns(self, source: str, fence: Fence, lease: LeaseHolder) -> None:
        """The change source was granted to this lease."""
        wish = self._wishes.get(source)
        if wish is None:
            giving_back = defer.Deferred.fromCoroutine(self._give_back(source, fence))
            note_failure(giving_back, f"giving back {source!r}")
            return
        if wish.claim is not None and wish.claim.fence.token >= fence.token:
            return
        wish.source_id = fence.changesource_id
        wish.claim = Claim(source, fence, lease)
        note(f"{source!r} is owned by this master, fence {fence.token}")
        if wish.answered is not None:
            wish.answer()
        else:
            self._owner.granted(source)

    async def _give_back(self, source: str, fence: Fence) -> None:
        try:
            await self._cluster.release(fence)
        except HoldfastError as error:
            note(f"{source!r} is given back with the lease: {error}")

    async def _watch(self) -> None:
        """Follows what happens to change sources, for as long as the plug-in runs."""
        while True:
            try:
                async for event in self._cluster.source_changes(self._now_watching):
                    self._seen(event)
            except HoldfastError as error:
                self._note_trouble(f"the watch begins anew: {error}")
            finally:
                self._is_watching = False
            await task.deferLater(self._cluster.reactor, RETRY_S)

    def _now_watching(self) -> None:
        self._is_watching = True
        self._ready()

    def _seen(self, change: SourceChange) -> None:
        lease = self.lease
        wish = self._wishes.get(change.source)
        if wish is not None and wish.claim is not None:
            # What is older than the claim says nothing about it.
            held = wish.claim.fence.token
            if change.revision > held and change.fence.token != held:
                self._drop(wish)
        elif (
            lease is not None
            and change.master_id == lease.lease.master_id
            # A grant that is younger than the lease was given to the lease.
            and change.fence.token > lease.lease.id
        ):
            self._owns(change.source, change.fence, lease)


async def _at_most(seconds: float, deferred: defer.Deferred[None], reactor: Any) -> None:
    """Waits for a Deferred, or until the time is over."""
    deferred.addTimeout(seconds, reactor)
    try:
        await deferred
    except defer.TimeoutError:
        return


def _shared(deferred: defer.Deferred[None]) -> defer.Deferred[None]:
    """Another Deferred that fires with the first one, and can be cancelled alone."""
    other: defer.Deferred[None] = defer.Deferred()

    def fire(_result: None) -> None:
        if not other.called:
            other.callback(None)

    deferred.addCallback(fire)
    return other
