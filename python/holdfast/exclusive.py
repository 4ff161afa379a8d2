"""Creating a value by a callback that runs in one place of the cluster at a time (S5).

The model: a caller asks for the right to create. It is told the value, or has the right, or stands
in line; then it watches the key, and is told the value when there is one, or that it is its turn.
Whoever has the right runs the callback, renews the right meanwhile, and writes what the callback
made under the right's token. If it dies, the cluster gives the right to the next in line.

Invariants:
- The callback runs only with the right, which is counted as a lease is (``life``): from before the
  first transmission of the call that gave it, less a margin. The callback can ask whether it holds.
- What the callback made is written only if the right is still this caller's when the write is
  applied: that is for the cluster to decide, not for a clock.
- A caller that goes away gives up its place, unless it dies: then its time runs out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from holdfast._engine import boottime, calls, task
from holdfast._engine.deadline import Deadline
from holdfast._engine.life import RENEWAL_MIN, Life, Loss, counted, pause
from holdfast._wire import state_pb2
from holdfast.errors import (
    Compacted,
    CreationLost,
    Header,
    HoldfastError,
    NotApplied,
    OutcomeUnknown,
    Unavailable,
)
from holdfast.watch import CreatorChanged, StateFilter, StatePut, Watch

if TYPE_CHECKING:
    from holdfast._engine.context import Context

log = logging.getLogger("holdfast")

_WAIT_MIN = 0.01
"""Shortest wait that the cluster takes, in seconds."""


class Creator:
    """The right to create a value, as the callback has it."""

    def __init__(self, token: int, life: Life) -> None:
        self.token = token
        """What the right is held under. It rises from one creator of a value to the next, so that
        whatever the callback does can tell an earlier one's late effects."""
        self._life = life

    @property
    def is_live(self) -> bool:
        """Whether the right still holds at this moment. Looks at the clock; waits for nothing."""
        return self._life.loss() is None


@dataclass(frozen=True)
class Found:
    """The value that there is."""

    value: bytes
    mod_revision: int
    revision: int


@dataclass(frozen=True)
class _Creating:
    token: int
    ttl: float


@dataclass(frozen=True)
class _Waiting:
    token: int


# How a caller stands; None: it neither waits nor has the right, and there is no value (any more).
_Told = Union[Found, _Creating, _Waiting, None]


@dataclass(frozen=True)
class Key:
    """A key, and the client to make calls about it with."""

    context: Context
    object_id: int
    name: str

    def at_most(self, seconds: float) -> Key:
        """The same with no more time for a call than this."""
        return Key(self.context.at_most(seconds), self.object_id, self.name)

    async def ask(self, ttl: float, wait: float) -> _Told:
        """Asks for the right."""
        request = state_pb2.AskToCreateRequest(
            namespace=self.context.namespace,
            object_id=self.object_id,
            name=self.name,
            ttl_ms=round(ttl * 1000),
            wait_ms=round(wait * 1000),
        )
        response = await self.context.write(calls.ASK_TO_CREATE, request)
        return _told(response)

    async def keep(self, token: int) -> _Told:
        """Renews the right, or asks how a caller stands that waits."""
        request = state_pb2.KeepCreatingRequest(
            namespace=self.context.namespace,
            object_id=self.object_id,
            name=self.name,
            token=token,
        )
        try:
            response = await self.context.write(calls.KEEP_CREATING, request)
        except CreationLost:
            return None
        return _told(response)

    async def abandon(self, token: int) -> None:
        """Gives up the right, or the place in line; left alone, it runs out."""
        request = state_pb2.AbandonCreatingRequest(
            namespace=self.context.namespace,
            object_id=self.object_id,
            name=self.name,
            token=token,
        )
        try:
            await self.context.write(calls.ABANDON_CREATING, request)
        except HoldfastError as error:
            log.debug("the right to create %d is left to run out: %s", token, error)


class Tenure:
    """The time of a creator."""

    def __init__(self, key: Key, token: int, ttl: float, life: Life, began: float) -> None:
        self._key = key
        self._ttl = ttl
        self._life = life
        self.creator = Creator(token, life)
        self._renewals = task.spawn(self._renew(began))

    def end(self) -> None:
        """It is over, and there is nothing to give up."""
        self._life.end(Loss.CLOSED)
        self._renewals.cancel()

    async def give_up(self) -> None:
        """Lets the next in line have the right.

        Here and not behind the caller's back: a program may end with this.
        """
        self.end()
        await self._key.at_most(self._ttl).abandon(self.creator.token)

    async def _renew(self, began: float) -> None:
        """Renews the right until it is lost."""
        pausing = self._ttl / 3
        while await self._life.sleep_until(began + pausing) is None:
            began = boottime.now()
            key = self._key.at_most(self._life.remaining() - RENEWAL_MIN)
            try:
                told = await key.keep(self.creator.token)
            except HoldfastError as error:
                log.warning("right to create not renewed, trying again: %s", error)
                pausing = boottime.now() - began + pause(self._ttl)
                continue
            if not isinstance(told, _Creating):
                self._life.end(Loss.ENDED)
                return
            ttl = min(told.ttl, self._ttl)
            # The clock first: an answer that comes too late revives nothing.
            if not self._life.extend(began + counted(ttl)):
                return
            pausing = ttl / 3


async def wait_for_right(key: Key, ttl: float, wait: float) -> Found | Tenure:
    """The value of a key, or the right to create it.

    Raises:
        NotApplied: there was neither in time. Nobody has run a callback.
    """
    caller = _Caller(key, ttl, Deadline(wait))
    try:
        outcome = await caller.stand_in_line()
    except (OutcomeUnknown, Unavailable) as error:
        raise NotApplied(error.summary, error.attempts, error.header) from error
    finally:
        caller.leave()
    if outcome is None:
        raise NotApplied(f"others were still creating {key.name!r} after {wait} s")
    return outcome


class _Caller:
    """A caller that waits for a value, or for the right to create it."""

    def __init__(self, key: Key, ttl: float, deadline: Deadline) -> None:
        self._key = key
        self._ttl = ttl
        self._deadline = deadline
        # Its place in line, to be given up if it goes away.
        self._token: int | None = None
        self._watch: Watch | None = None

    async def stand_in_line(self) -> Found | Tenure | None:
        """The value or the right; None if there was neither for too long."""
        while not self._deadline.has_passed():
            began = boottime.now()
            key = self._key.at_most(self._deadline.remaining())
            if self._token is None:
                told = await key.ask(self._ttl, max(self._deadline.remaining(), _WAIT_MIN))
            else:
                told = await key.keep(self._token)
            if told is None:
                self._token = None
                continue
            if isinstance(told, Found):
                self._token = None
                return told
            self._token = told.token
            if isinstance(told, _Creating):
                ttl = min(told.ttl, self._ttl)
                life = Life(began + counted(ttl))
                # An answer that came too late for that is asked for again.
                if life.loss() is None:
                    self._token = None
                    return Tenure(self._key, told.token, ttl, life, began)
            elif self._watch is None:
                # From here on nothing is missed, once it has been asked again how it stands.
                filters = [StateFilter(self._key.object_id, self._key.name)]
                self._watch = await Watch.open(key.context, filters, None)
            else:
                found = await self._wait_for_news(self._watch, told.token)
                if found is not None:
                    self._token = None
                    return found
        return None

    def leave(self) -> None:
        """Gives up what there is to give up, in the background."""
        if self._watch is not None:
            self._watch.close()
        if self._token is not None:
            task.spawn(self._key.abandon(self._token))

    async def _wait_for_news(self, watch: Watch, token: int) -> Found | None:
        """The value, once there is one; None when the caller may stand otherwise than before."""
        news = task.start(self._news(watch, token))
        try:
            return await task.within(self._deadline.remaining(), news)
        except TimeoutError:
            return None
        except Compacted:
            self._watch = None
            return None

    async def _news(self, watch: Watch, token: int) -> Found | None:
        while True:
            try:
                change = await watch.next()
            except Unavailable:
                continue  # It goes on as soon as there is a node; the deadline says for how long.
            event = change.event
            # The filter passes every name that begins with ours.
            if isinstance(event, StatePut) and event.name == self._key.name:
                return Found(event.value, change.revision, change.revision)
            if (
                isinstance(event, CreatorChanged)
                and event.name == self._key.name
                and (event.token is None or event.token >= token)
            ):
                return None


def _told(response: state_pb2.AskToCreateResponse | state_pb2.KeepCreatingResponse) -> _Told:
    outcome = response.WhichOneof("outcome")
    if outcome == "exists":
        exists = response.exists
        if exists.is_gone:
            return None
        return Found(exists.value, exists.mod_revision, response.header.revision)
    if outcome == "creating":
        return _Creating(response.creating.token, response.creating.ttl_ms / 1000)
    if outcome == "waiting":
        return _Waiting(response.waiting.token)
    raise OutcomeUnknown(
        "the answer to AskToCreate says nothing about its outcome",
        header=Header.of(response.header),
    )
