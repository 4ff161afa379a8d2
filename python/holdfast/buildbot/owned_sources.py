"""The change sources of a master that owns some of them under its lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from holdfast.buildbot.connectors import ChangeSourcesConnector
from holdfast.buildbot.notes import note
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from buildbot.db.changesources import ChangeSourceModel, ChangeSourcesConnectorComponent

    from holdfast.buildbot.connectors import Claims
    from holdfast.client import Client


class OwnedSources(ChangeSourcesConnector):
    """Stands in for ``master.db.changesources``.

    Args:
        stock: Buildbot's own connector.
        client: makes the calls; belongs to the caller.
        deadline: how long a call to the cluster may take, in seconds.
        claims: claims and gives back, for this master.
        master_name: what this master is called in the cluster.
        owned: the names of the change sources that this master owns at this moment.

    What this master owns it knows by itself: nothing that Buildbot does at a start or a stop asks
    the cluster. If the cluster cannot be asked, the change sources of others look free.
    """

    def __init__(
        self,
        stock: ChangeSourcesConnectorComponent,
        client: Client,
        *,
        deadline: float,
        claims: Claims,
        master_name: str,
        owned: Callable[[], set[str]],
    ) -> None:
        super().__init__(stock, client, deadline=deadline, claims=claims)
        self._master_name = master_name
        self._owned = owned

    async def _get_all(self, active: bool | None, masterid: int | None) -> list[ChangeSourceModel]:
        if masterid is None or masterid != self.master.masterid:
            return await super()._get_all(active, masterid)
        if active is not None and not active:
            return []
        mine = self._owned()
        found = [source for source in await self.stock.getChangeSources() if source.name in mine]
        for source in found:
            source.masterid = masterid
        return found

    async def _owners(self) -> dict[str, str | None]:
        owners: dict[str, str | None] = {}
        try:
            owners = await super()._owners()
        except HoldfastError as error:
            note(f"who owns the others' change sources is not known: {error}")
        # What the cluster still says of this master's lost claims is not so any more.
        for source, owner in owners.items():
            if owner == self._master_name:
                owners[source] = None
        return {**owners, **dict.fromkeys(self._owned(), self.master.name)}
