"""The state of a master that owns its change sources: kept where it belongs.

- A *change source's* state is kept in the cluster, and written under the fence of its claim: the
  next owner goes on where the last one stopped. The owner's database has a copy. It is where the
  cluster's begins when the plug-in is new, and where the master goes on when it is taken out.
- A *scheduler's* state is kept in the master's own database, as are its claims: it names rows there
  and says what was built there.
- Any other object's state is kept in the cluster, and common to all masters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from holdfast.buildbot.claim import ClaimLost, current
from holdfast.buildbot.connectors import StateConnector
from holdfast.buildbot.notes import note
from holdfast.errors import HoldfastError, LeaseLost, StaleFence

if TYPE_CHECKING:
    from buildbot.db.state import StateConnectorComponent

    from holdfast._wire.common_pb2 import Fence
    from holdfast.buildbot.claim import Claim
    from holdfast.buildbot.connectors.state import NamedObject
    from holdfast.client import Client

WWW = ("www", "buildbot.www.service.WWWService")
"""The object of the web server, whose start creates the secret of its sessions."""

_ABSENT = object()


class OwnedState(StateConnector):
    """Stands in for ``master.db.state``.

    Args:
        stock: Buildbot's own connector.
        client: makes the calls; belongs to the caller.
        deadline: how long a call to the cluster may take, in seconds.
        claim_of: the live claim on a change source, by name.

    What is written of a change source that this master does not own (any more) raises
    :class:`ClaimLost`, and changes nothing.
    """

    def __init__(
        self,
        stock: StateConnectorComponent,
        client: Client,
        *,
        deadline: float,
        claim_of: Callable[[str], Claim | None],
    ) -> None:
        super().__init__(stock, client, deadline=deadline)
        self._claim_of = claim_of

    def is_local(self, found: NamedObject, key: str) -> bool:
        """See :meth:`StateConnector.is_local`."""
        if self._is_source(found):
            return False
        is_scheduler = self._has(self.master.scheduler_manager, found) is not None
        return is_scheduler or super().is_local(found, key)

    def fence(self, found: NamedObject) -> Fence | None:
        """See :meth:`StateConnector.fence`."""
        source = self._has(self.master.change_svc, found)
        if source is None:
            return None
        poll = current.get()
        if poll is not None and poll.claim.source == source:
            poll.check()
            return poll.claim.fence.to_wire()
        claim = self._claim_of(source)
        if claim is None:
            raise ClaimLost(source)
        return claim.fence.to_wire()

    async def _get(self, objectid: int, key: str, default: Any) -> Any:
        found = await self._objects.get(objectid)
        if found is None or not self._is_source(found):
            return await super()._get(objectid, key, default)
        poll = current.get()
        if poll is not None:
            poll.marks.has_state = True
        value = await super()._get(objectid, key, _ABSENT)
        if value is _ABSENT:
            value = await self._begin(objectid, key)
        if value is not _ABSENT:
            return value
        if default is self.Thunk:
            raise KeyError(f"no such state value '{key}' for object {objectid}")
        return default

    async def _begin(self, objectid: int, key: str) -> Any:
        """What the local database has, which from here on is in the cluster."""
        before = await self.stock.getState(objectid, key, _ABSENT)
        if before is not _ABSENT:
            note(f"{key!r} of object {objectid} goes from this database to the cluster")
            return await super()._set(objectid, key, before)
        return _ABSENT

    async def _set(self, objectid: int, key: str, value: Any) -> Any:
        found = await self._objects.get(objectid)
        if found is None or not self._is_source(found):
            return await super()._set(objectid, key, value)
        poll = current.get()
        is_partial = poll is not None and poll.is_stopping and isinstance(value, dict)
        if is_partial:
            # A GitPoller that is stopped stores the branches that it has come to, and forgets the
            # others: what comes in there until the next poll would be missed.
            before = await self._get(objectid, key, {})
            value = {**before, **value} if isinstance(before, dict) else value
        try:
            stands = await super()._set(objectid, key, value)
        except (LeaseLost, StaleFence) as error:
            raise ClaimLost(found.name) from error
        # For the day on which the plug-in is taken out, or its cluster is lost.
        await self.stock.setState(objectid, key, value)
        if poll is not None:
            poll.marks.has_state = True
            poll.stored = not is_partial
        return stands

    async def _create(self, objectid: int, key: str, create: Callable[[], Any]) -> Any:
        try:
            return await super()._create(objectid, key, create)
        except HoldfastError as error:
            found = await self._objects.get(objectid)
            if found is None or (found.name, found.class_name) != WWW:
                raise
            # A start waits for no cluster (B5). Until the next one, sessions are this master's own.
            note(f"{key!r} of the web server is not shared: {error}")
            return await self.stock.atomicCreateState(objectid, key, create)

    def _is_source(self, found: NamedObject) -> bool:
        return self._has(self.master.change_svc, found) is not None

    def _has(self, manager: Any, found: NamedObject) -> str | None:
        """The name of the service whose object it is: of its class, or one that it extends."""
        names = manager.namedServices
        candidates = [found.name] if found.name in names else names
        last = found.class_name.rpartition(".")[2]
        for name in candidates:
            if found.name not in (name, self._cut_object_name(name)):
                continue
            if any(base.__name__ == last for base in type(names[name]).__mro__):
                return str(name)
        return None

    def _cut_object_name(self, name: str) -> Any:
        return self.stock.ensureLength(self.db.model.objects.c.name, name)
