"""The plug-in: ``c['services'] = [util.Holdfast('ci-1:7480,ci-2:7480,ci-3:7480')]``.

Buildbot configures its services before its change sources and schedulers, so when those ask for
their claims and their state, what they ask is the plug-in's already. At a SIGHUP it may come to
change sources that run: they step down, and claim anew in the cluster; and when it is taken out
they step down once more, and claim in the local database.

What it takes the place of: ``master.db.changesources``, ``master.db.state``, and the two methods
called ``addChange``. Nothing else of Buildbot is changed, and ``db.masters`` and ``db.schedulers``
least of all: local tables refer to their ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from buildbot import config
from buildbot.db.changesources import ChangeSourceAlreadyClaimedError
from buildbot.util import ComparableMixin
from buildbot.util.service import BuildbotService, ClusteredBuildbotService
from twisted.internet import defer

from holdfast.buildbot.changes import Changes
from holdfast.buildbot.cluster import BRIEF_S, DEADLINE_S, Cluster, ClusterSettings
from holdfast.buildbot.guard import Guard
from holdfast.buildbot.marks import Marks
from holdfast.buildbot.notes import note_failure
from holdfast.buildbot.owned_sources import OwnedSources
from holdfast.buildbot.owned_state import OwnedState
from holdfast.buildbot.ownership import Ownership
from holdfast.buildbot.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence

START_S = 4.0
"""How long a start waits for the cluster at most, in seconds; B5 promises 5."""
NAME_BYTES_MAX = 1024
LEASE_MIN_S = 0.5
LEASE_MAX_S = 86_400.0


class Holdfast(BuildbotService):
    """Shares the ownership of change sources with other masters, through a cluster.

    Args:
        endpoints: some of the cluster's nodes, as ``'host:port,host:port'`` or a list. None: those
            in ``HOLDFAST_ENDPOINTS``.
        namespace: what masters that share change sources have in common.
        master_name: what the master is called in the cluster; Buildbot's own name for it if not
            given, which is its host and directory. No two masters may have the same.
        lease: how long a master that has died keeps its change sources, in seconds: 0.5 to 86,400.
        watchdog: after how many seconds in which the reactor does nothing the master counts as
            dead, although it is not; 0: never.
    """

    name = "Holdfast"
    compare_attrs: ClassVar[Sequence[str]] = ("name", "_config_args", "_config_kwargs")

    def checkConfig(  # noqa: N802
        self,
        endpoints: str | Sequence[str] | None = None,
        *,
        namespace: str = "default",
        master_name: str | None = None,
        lease: float = 10.0,
        watchdog: float = 60.0,
    ) -> None:
        """Reports what is wrong with the arguments; connects to nothing (B2)."""
        super().checkConfig()
        nodes = endpoints.split(",") if isinstance(endpoints, str) else endpoints or ()
        if endpoints is not None and not list(nodes):
            config.error("Holdfast: endpoints is empty; name a node as 'host:port'")
        for node in nodes:
            host, colon, port = node.strip().rpartition(":")
            if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
                config.error(f"Holdfast: endpoint {node.strip()!r} is not 'host:port'")
        if not LEASE_MIN_S <= lease <= LEASE_MAX_S:
            config.error(f"Holdfast: lease must be {LEASE_MIN_S} to {LEASE_MAX_S} s, is {lease}")
        if watchdog < 0:
            config.error(f"Holdfast: watchdog must be 0 or more seconds, is {watchdog}")
        for setting, name in (("namespace", namespace), ("master_name", master_name)):
            if name is not None and not 0 < len(name.encode()) <= NAME_BYTES_MAX:
                config.error(f"Holdfast: {setting} must have 1 to {NAME_BYTES_MAX} bytes: {name!r}")

    def reconfigService(self, *args: Any, **kwargs: Any) -> None:  # noqa: N802
        """Takes the settings. They never change while it runs: see canReconfigWithSibling."""
        self._settings = ClusterSettings(*args, **kwargs)

    def canReconfigWithSibling(self, sibling: Any) -> bool:  # noqa: N802
        """Whether nothing is different; else it is stopped, and the sibling started."""
        return bool(
            super().canReconfigWithSibling(sibling) and ComparableMixin.isEquivalent(sibling, self)
        )

    def startService(self) -> defer.Deferred[None]:  # noqa: N802
        """Comes between Buildbot and its change sources. Waits for the cluster at most 4 s."""
        return defer.Deferred.fromCoroutine(self._start())

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802
        """Gives everything back, once nothing depends on it any more."""
        return defer.Deferred.fromCoroutine(self._stop())

    def claim(self, source: str, masterid: int) -> defer.Deferred[None]:
        """Claims a change source, or waits for it; see :class:`.connectors.Claims`."""
        return defer.Deferred.fromCoroutine(self._claim(source, masterid))

    def release(self, source: str) -> defer.Deferred[None]:
        """Gives back what is owned and does nothing any more; see :class:`.connectors.Claims`.

        Whoever else asks means well: Buildbot cleans up behind masters that it takes for dead, and
        behind itself before it stops its pollers.
        """
        return defer.Deferred.fromCoroutine(self._release(source))

    def owned(self) -> set[str]:
        """The names of the change sources that this master owns at this moment."""
        return {claim.source for claim in self._ownership.claims()}

    def granted(self, source: str) -> None:
        """See :class:`.ownership.Owner`."""
        if source in self._guards:
            self._guards[source].push()

    def lost(self, source: str) -> None:
        """See :class:`.ownership.Owner`."""
        if source in self._guards:
            self._guards[source].step_down()

    async def _start(self) -> None:
        await super().startService()
        master = self.master
        self._guards: dict[str, Guard] = {}
        self._is_leaving = False
        self._all_stopped: defer.Deferred[None] | None = None
        self._patient_until = master.reactor.seconds() + START_S
        self._cluster = Cluster(self._settings, master)
        self._ownership = Ownership(self._cluster, self)
        self._changes = Changes(master)
        self._sources = OwnedSources(
            master.db.changesources,
            self._cluster.client,
            deadline=BRIEF_S,
            claims=self,
            master_name=self._cluster.master_name,
            owned=self.owned,
        )
        self._state = OwnedState(
            master.db.state,
            self._cluster.client,
            deadline=DEADLINE_S,
            claim_of=self._ownership.claim_of,
        )

        self._watchdog = Watchdog(
            master.reactor, self._settings.watchdog, self._ownership.abandon_lease
        )

        self._ownership.start()
        self._watchdog.start()
        await self._ownership.settled(START_S)
        running = _running(master.change_svc)
        for service in running:
            await _rest(service)
            if service.active:
                service.active = False
                await defer.maybeDeferred(service.deactivate)
                await service._unclaimService()
        master.db.changesources = self._sources
        master.db.state = self._state
        self._changes.install()
        for service in running:
            _wake(service)

    async def _stop(self) -> None:
        try:
            await self._leave()
        except Exception as error:
            # Whatever it is, with an error here Buildbot would not come to its end.
            note_failure(defer.fail(error), "leaving the cluster")
        await super().stopService()

    async def _leave(self) -> None:
        master = self.master
        self._is_leaving = True
        self._ownership.leave()
        running = _running(master.change_svc)
        if master.running:
            # It is taken out of a master that goes on.
            for service in running:
                await self._guard(service).rest()
                await _rest(service)
        elif self._guards:
            # Buildbot stops the change sources at the same time.
            self._all_stopped = defer.Deferred()
            await self._all_stopped
        self._watchdog.stop()
        await self._ownership.stop()
        master.db.changesources = self._sources.stock
        master.db.state = self._state.stock
        self._changes.remove()
        for guard in self._guards.values():
            guard.remove()
        self._guards.clear()
        self._cluster.close()
        for service in running:
            _wake(service)

    async def _claim(self, source: str, masterid: int) -> None:
        service = self.master.change_svc.namedServices.get(source)
        if not isinstance(service, ClusteredBuildbotService) or masterid != self.master.masterid:
            # Nobody could stop what the plug-in does not know.
            what = f"{source} is no change source of this configuration"
            raise ChangeSourceAlreadyClaimedError(what)
        if self._is_leaving:
            raise ChangeSourceAlreadyClaimedError(f"{source} is being given back")
        self._guard(service)
        patience = self._patient_until - self.master.reactor.seconds()
        if not await self._ownership.claim(source, max(0.0, patience)):
            raise ChangeSourceAlreadyClaimedError(f"{source} is waited for")

    async def _release(self, source: str) -> None:
        guard = self._guards.get(source)
        if self._ownership.claim_of(source) is not None and (guard is None or guard.is_idle):
            await self._ownership.withdraw(source)

    def _guard(self, service: ClusteredBuildbotService) -> Guard:
        """The guard of a service; a new one if there is none, or its name had another service."""
        name = service.name
        guard = self._guards.get(name)
        if guard is None or guard.service is not service:
            guard = self._guards[name] = Guard(
                service,
                lambda: self._ownership.claim_of(name),
                lambda: defer.Deferred.fromCoroutine(self._withdraw(service)),
                Marks(self._cluster, name),
            )
        return guard

    async def _withdraw(self, service: ClusteredBuildbotService) -> None:
        """Buildbot has stopped a service."""
        guard = self._guards.get(service.name)
        if guard is None or guard.service is not service:
            return
        await self._ownership.withdraw(service.name)
        guard.remove()
        del self._guards[service.name]
        if self._all_stopped is not None and not self._guards:
            self._all_stopped.callback(None)


def _running(manager: Any) -> list[ClusteredBuildbotService]:
    return [
        service
        for service in manager
        if isinstance(service, ClusteredBuildbotService) and service.running
    ]


async def _rest(service: ClusteredBuildbotService) -> None:
    """Has Buildbot's activity poll of a service end, and the claim that it is about to make."""
    polling = service._stopActivityPolling()
    if polling is not None:
        await polling


def _wake(service: ClusteredBuildbotService) -> None:
    """Has a service that rests claim what it is about, at once."""
    if service.running and not service.active and service._activityPollCall is None:
        service._startActivityPolling()
