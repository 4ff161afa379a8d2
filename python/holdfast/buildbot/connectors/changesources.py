"""A stand-in for Buildbot's change source connector: who owns what is in the cluster (C, B3, B4).

Ids of change sources and masters are those of rows in the master's own database; to the cluster
both have names. A change source or master that the database does not know yet, because another
master brought it, gets a row when it is first seen.

Where this differs from Buildbot 4.3.0:

- ``setChangeSourceMaster(id, None)`` gives back the master's own claim, or one that nobody keeps
  alive, never one that somebody else has made meanwhile.
- Claiming for a master, or a change source, that has no row says *already claimed*, as
  Buildbot says where the database checks foreign keys; SQLite does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.db.changesources import (
    ChangeSourceAlreadyClaimedError,
    ChangeSourceModel,
    ChangeSourcesConnectorComponent,
)
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from holdfast._engine import calls
from holdfast._wire import changesources_pb2 as wire
from holdfast.buildbot.connectors.calls import Calls
from holdfast.buildbot.connectors.claims import Claims, PlainClaims

if TYPE_CHECKING:
    from holdfast.client import Client


log = Logger()


class ChangeSourcesConnector:
    """Stands in for ``master.db.changesources``.

    Args:
        stock: Buildbot's own connector, which goes on to give out ids.
        client: makes the calls; belongs to the caller.
        deadline: how long a call to the cluster may take, in seconds.
        claims: how change sources are claimed; without one, as Buildbot does it: until they are
            given back.

    All methods are for the reactor's thread. Reading raises
    :class:`holdfast.errors.HoldfastError` if the cluster does not answer in time.
    """

    def __init__(
        self,
        stock: ChangeSourcesConnectorComponent,
        client: Client,
        *,
        deadline: float = 5.0,
        claims: Claims | None = None,
    ) -> None:
        self.db = stock.db
        self.stock = stock
        self._calls = Calls(client, deadline)
        self._claims = claims or PlainClaims(self._calls, stock.db.masters)

    @property
    def master(self) -> Any:
        """Whose connector this is."""
        return self.db.master

    def findChangeSourceId(self, name: str) -> Deferred[int]:  # noqa: N802
        """The handle of a change source; makes one if there is none. Asks the local database."""
        found: Deferred[int] = self.stock.findChangeSourceId(name)
        return found

    def setChangeSourceMaster(  # noqa: N802
        self, changesourceid: int, masterid: int | None
    ) -> Deferred[None]:
        """Claims a change source for a master, or with None gives it back.

        Raises:
            ChangeSourceAlreadyClaimedError: it is owned, by the same master too. Whatever else
                goes wrong comes out as that as well, and is logged: anything else would hold up
                Buildbot's start for five minutes (B5).
        """
        return Deferred.fromCoroutine(self._set_master(changesourceid, masterid))

    def get_change_source_master(self, changesourceid: int) -> Deferred[int | None]:
        """The master that owns a change source; None if nobody does."""
        return Deferred.fromCoroutine(self._get_master(changesourceid))

    def getChangeSource(  # noqa: N802
        self, changesourceid: int
    ) -> Deferred[ChangeSourceModel | None]:
        """A change source and who owns it; None if there is none with this id."""
        return Deferred.fromCoroutine(self._get(changesourceid))

    def getChangeSources(  # noqa: N802
        self, active: bool | None = None, masterid: int | None = None
    ) -> Deferred[list[ChangeSourceModel]]:
        """Change sources and who owns them, of this master and of all others of the cluster.

        Args:
            active: True: those that somebody owns; False: those that nobody does.
            masterid: those that this master owns.
        """
        return Deferred.fromCoroutine(self._get_all(active, masterid))

    async def _set_master(self, changesourceid: int, masterid: int | None) -> None:
        try:
            name = await self._name(changesourceid)
            if masterid is None:
                if name is not None:
                    await self._claims.release(name)
            elif name is None:
                what = f"there is no change source {changesourceid} to own"
                raise ChangeSourceAlreadyClaimedError(what)
            else:
                await self._claims.claim(name, masterid)
        except ChangeSourceAlreadyClaimedError:
            raise
        except Exception as error:
            what = f"change source {changesourceid} could not go to master {masterid}"
            log.failure("{what}", what=what)
            raise ChangeSourceAlreadyClaimedError(f"{what}: {error}") from error

    async def _get_master(self, changesourceid: int) -> int | None:
        found = await self._get(changesourceid)
        return None if found is None else found.masterid

    async def _get(self, changesourceid: int) -> ChangeSourceModel | None:
        name = await self._name(changesourceid)
        if name is None:
            return None
        owner = (await self._owners()).get(name)
        masterid = None if owner is None else await self.db.masters.findMasterId(owner)
        return ChangeSourceModel(id=changesourceid, name=name, masterid=masterid)

    async def _get_all(self, active: bool | None, masterid: int | None) -> list[ChangeSourceModel]:
        if masterid is not None:
            if active is not None and not active:
                return []
            master = await self.db.masters.getMaster(masterid)
            wanted = None if master is None else master.name
        owners = await self._owners()
        ids = {source.name: source.id for source in await self.stock.getChangeSources()}
        masterids: dict[str | None, int | None] = {None: None}
        found = []
        for name in {**ids, **owners}:
            owner = owners.get(name)
            if masterid is not None:
                if owner is None or owner != wanted:
                    continue
            elif active is not None and bool(active) != (owner is not None):
                continue
            if owner not in masterids:
                masterids[owner] = await self.db.masters.findMasterId(owner)
            id_ = ids.get(name) or await self.stock.findChangeSourceId(name)
            found.append(ChangeSourceModel(id=id_, name=name, masterid=masterids[owner]))
        return sorted(found, key=lambda source: source.id)

    async def _owners(self) -> dict[str, str | None]:
        """The masters that own the cluster's change sources, all by name."""
        request = wire.ListChangeSourcesRequest(namespace=self._calls.namespace)
        response = await self._calls.read(calls.LIST_CHANGE_SOURCES, request)
        return {
            source.name: source.claimant.master_name or None for source in response.changesources
        }

    async def _name(self, changesourceid: int) -> str | None:
        source = await self.stock.getChangeSource(changesourceid)
        # Asked for an id that counts as false, it answers with some change source.
        return None if source is None or source.id != changesourceid else source.name
