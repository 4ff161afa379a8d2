"""How change sources are claimed for a connector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from buildbot.db.changesources import ChangeSourceAlreadyClaimedError
from twisted.internet.defer import Deferred

from holdfast._engine import calls
from holdfast._wire import changesources_pb2 as wire
from holdfast._wire import masters_pb2

if TYPE_CHECKING:
    from holdfast.buildbot.connectors.calls import Calls


class Claims(Protocol):
    """Claims change sources, named as in the cluster, for masters of the local database."""

    def claim(self, source: str, masterid: int) -> Deferred[None]:
        """Claims a change source for a master.

        Raises:
            ChangeSourceAlreadyClaimedError: somebody owns it; whatever else goes wrong, other
                exceptions.
        """

    def release(self, source: str) -> Deferred[None]:
        """Gives a change source back; does nothing to a claim that is not one's own."""


class PlainClaims:
    """Claims without a lease, as Buildbot makes them: they last until they are given back.

    Each master of the database claims under its name. What is given back is the claim that was
    made here, or one without a lease, as a dead process leaves it behind: never one that a living
    master holds under a lease, and never a successor's, although Buildbot's own connector deletes
    whatever is there.
    """

    def __init__(self, connection: Calls, masters: Any) -> None:
        self._calls = connection
        self._masters = masters
        self._tokens: dict[str, int] = {}

    def claim(self, source: str, masterid: int) -> Deferred[None]:
        """See :class:`Claims`."""
        return Deferred.fromCoroutine(self._claim(source, masterid))

    def release(self, source: str) -> Deferred[None]:
        """See :class:`Claims`."""
        return Deferred.fromCoroutine(self._release(source))

    async def find(self, source: str) -> int:
        """The cluster's id of a change source; makes it if there is none."""
        request = wire.FindChangeSourceIdRequest(namespace=self._calls.namespace, name=source)
        response = await self._calls.write(calls.FIND_CHANGE_SOURCE_ID, request)
        return response.changesource_id

    async def _claim(self, source: str, masterid: int) -> None:
        master = await self._masters.getMaster(masterid)
        if master is None:
            # In databases that check it Buildbot says the same.
            raise ChangeSourceAlreadyClaimedError(f"there is no master {masterid} to own {source}")
        namespace = self._calls.namespace
        find = masters_pb2.FindMasterIdRequest(namespace=namespace, name=master.name)
        found = await self._calls.write(calls.FIND_MASTER_ID, find)
        request = wire.SetChangeSourceMasterRequest(
            namespace=namespace,
            changesource_id=await self.find(source),
            master_id=found.master_id,
        )
        response = await self._calls.write(calls.SET_CHANGE_SOURCE_MASTER, request)
        if response.WhichOneof("outcome") == "already_claimed":
            holder = response.already_claimed.master_name
            raise ChangeSourceAlreadyClaimedError(f"{source} is owned by {holder}")
        self._tokens[source] = response.token

    async def _release(self, source: str) -> None:
        source_id = await self.find(source)
        token = self._tokens.pop(source, None) or await self._unleased(source_id)
        if token is None:
            return
        request = wire.ReleaseRequest(
            namespace=self._calls.namespace, changesource_id=source_id, token=token
        )
        await self._calls.write(calls.RELEASE, request)

    async def _unleased(self, source_id: int) -> int | None:
        """The token of a claim without a lease, if there is one."""
        request = wire.GetChangeSourceRequest(
            namespace=self._calls.namespace, changesource_id=source_id
        )
        response = await self._calls.read(calls.GET_CHANGE_SOURCE, request)
        claimant = response.changesource.claimant
        return None if claimant.lease_id else claimant.token or None
