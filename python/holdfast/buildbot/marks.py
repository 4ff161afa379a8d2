"""Marks of the changes that a change source has added, so that its next owner adds none twice (B8).

A poller first adds the changes that it has found and then stores how far it has come. A master
that dies in between has added changes that its successor finds once more. So each change leaves a
mark in the cluster as soon as it is added, and one that is marked is not added again. Behind the
state that a poll stores in the end the marks say nothing new, and are removed.

What remains is the one change that was in flight: added, and not marked yet.

The marks of a change source are the state of an object of their own, one key a change: a hash of
what the poller says of the change. They are written and removed under the fence of the claim.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from twisted.internet import task

from holdfast.buildbot.claim import ClaimLost
from holdfast.buildbot.cluster import RETRY_S
from holdfast.buildbot.notes import note
from holdfast.errors import HoldfastError, LeaseLost, Refused, SessionExpired, StaleFence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.buildbot.claim import Claim, Poll
    from holdfast.buildbot.cluster import Cluster

CLASS_NAME = "holdfast.buildbot.Marks"
"""Class of the objects in the cluster; their names are those of the change sources."""

IDENTIFYING = (
    "src",
    "revision",
    "branch",
    "repository",
    "project",
    "codebase",
    "author",
    "committer",
    "comments",
    "files",
    "when_timestamp",
)
"""What two readings of one change have in common. Not the category, which may be a function, nor
the properties, which may say when the change was read."""


class Marks:
    """The marks of one change source, as this master knows them while it owns it."""

    def __init__(self, cluster: Cluster, source: str) -> None:
        self._cluster = cluster
        self._source = source
        self._claim: Claim | None = None
        self._object_id = 0
        self._keys: set[str] = set()
        self.has_state = False
        """Whether polls of the change source read or store a state in the cluster at all."""

    async def load(self, claim: Claim) -> None:
        """Reads what earlier owners have left, once for each claim.

        Raises:
            HoldfastError: the cluster cannot be read; the poll is not to begin.
        """
        if self._claim is claim:
            return
        self._object_id = await self._cluster.find_object_id(self._source, CLASS_NAME)
        self._keys = set(await self._cluster.list_keys(self._object_id))
        self._claim = claim
        if self._keys:
            note(f"{self._source!r}: {len(self._keys)} changes were added before")

    def has(self, change: Mapping[str, Any]) -> bool:
        """Whether the change was added already, by whichever owner."""
        return _key(change) in self._keys

    async def put(self, poll: Poll, change: Mapping[str, Any]) -> None:
        """Marks a change that was just added.

        Tries for as long as the claim lives: a poll that went on without would add changes of which
        any number could come twice.

        Raises:
            ClaimLost: the claim was lost before the mark was written.
        """
        key = _key(change)
        value = json.dumps(str(change.get("revision"))).encode()
        while True:
            poll.check()
            try:
                await self._cluster.set_value(self._object_id, key, value, poll.claim.fence)
            except (LeaseLost, StaleFence) as error:
                raise ClaimLost(self._source) from error
            except HoldfastError as error:
                if isinstance(error, Refused) and not isinstance(error, SessionExpired):
                    # No room, for one. The change is added; the next owner may add it again.
                    note(f"{self._source!r}: change is not marked: {error}")
                    return
                note(f"{self._source!r}: trying on to mark a change: {error}")
                await task.deferLater(self._cluster.reactor, RETRY_S)
            else:
                self._keys.add(key)
                return

    async def settle(self, poll: Poll) -> None:
        """After a poll: removes the marks that its stored state has made needless.

        A poller that stores no state has none to lose: its marks go when it has come through.
        """
        is_needless = poll.stored or (poll.added > 0 and not self.has_state)
        if not is_needless:
            return
        for key in sorted(self._keys):
            try:
                await self._cluster.delete_value(self._object_id, key, poll.claim.fence)
            except HoldfastError as error:
                # The next poll removes it.
                note(f"{self._source!r}: marks are left: {error}")
                return
            self._keys.discard(key)


def _key(change: Mapping[str, Any]) -> str:
    told = [change.get(name) for name in IDENTIFYING]
    text = json.dumps(told, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
