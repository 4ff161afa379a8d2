"""The change source connector says what Buildbot's own says, where that is right (C, B3, B5)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buildbot.db.changesources import ChangeSourceAlreadyClaimedError, ChangeSourceModel
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from holdfast import Client
from holdfast._engine import calls
from holdfast._wire import changesources_pb2, masters_pb2
from holdfast.buildbot.connectors import ChangeSourcesConnector
from holdfast.errors import HoldfastError
from tests.buildbot.connectors.databases import (
    Master,
    Reactor,
    insert,
    rows,
    running_master,
)
from tests.buildbot.connectors.outcome import Outcome, parameters
from tests.support.scale import report, scale

wait = Reactor.wait


@pytest.fixture
def master(tmp_path: Path, template: Path) -> Iterator[Master]:
    with running_master(tmp_path, template) as one:
        yield one


@pytest.fixture
def other(tmp_path: Path, template: Path) -> Iterator[Master]:
    """Another master, whose database gives out other ids."""
    with running_master(tmp_path, template, "other") as one:
        insert(one, one.db.model.masters, **master_row(40, "unrelated"))
        insert(one, one.db.model.changesources, id=50, name="unrelated", name_hash="x")
        yield one


@pytest.fixture
def sources(master: Master, client: Client) -> ChangeSourcesConnector:
    return ChangeSourcesConnector(master.db.changesources, client)


def master_row(id_: int, name: str) -> dict[str, Any]:
    return {"id": id_, "name": name, "name_hash": name, "active": 1, "last_active": 0}


def find(connector: ChangeSourcesConnector, source: str, master: str) -> tuple[int, int]:
    """The handles of a change source and a master."""
    masterid = wait(connector.db.masters.findMasterId, master)
    return wait(connector.findChangeSourceId, source), masterid


def owner(connector: ChangeSourcesConnector, source: int) -> int | None:
    found: int | None = wait(connector.getChangeSource, source).masterid
    return found


def lease(client: Client, name: str) -> int:
    """A lease of a master that lives on elsewhere."""
    request = masters_pb2.OpenLeaseRequest(
        namespace=client.namespace, name=name, instance=b"i" * 16, ttl_ms=600_000
    )
    return client.engine.write(calls.OPEN_LEASE, request).result().lease.lease_id


def claim(client: Client, source: str, lease_id: int) -> None:
    request = changesources_pb2.FindChangeSourceIdRequest(namespace=client.namespace, name=source)
    found = client.engine.write(calls.FIND_CHANGE_SOURCE_ID, request).result()
    claiming = changesources_pb2.ClaimRequest(
        namespace=client.namespace, changesource_id=found.changesource_id, lease_id=lease_id
    )
    assert client.engine.write(calls.CLAIM, claiming).result().token


# --- What Buildbot's own says -----------------------------------------------------------------

NAMES = ["git://a", "git://b", "\u00fc\U0001f600", "n" * 1000, "c"]
MASTERS = ["m1", "m2", "host:/srv/\u00fc"]
UNKNOWN_ID = 4711


# B3
@pytest.mark.parametrize("seed", range(scale(8, 2)))
def test_random_calls_get_what_buildbots_own_get(
    tmp_path: Path, template: Path, client: Client, seed: int
) -> None:
    steps = scale(1000, 80)
    choice = random.Random(seed)
    with (
        running_master(tmp_path, template, "a") as stock,
        running_master(tmp_path, template, "b") as ours,
    ):
        both = (stock.db.changesources, ChangeSourcesConnector(ours.db.changesources, client))
        known: dict[int, None] = {UNKNOWN_ID: None}
        masterids = [wait(m.db.masters.findMasterId, n) for m in (stock, ours) for n in MASTERS]
        assert masterids[:3] == masterids[3:]
        done = []
        for _ in range(steps):
            name, args = random_call(choice, list(known), masterids[:3])
            done.append(f"{name}{args}")
            theirs, mine = (Outcome(wait, getattr(one, name), *args) for one in both)
            assert theirs.ordered() == mine.ordered(), "\n".join(done[-20:])
            if name == "findChangeSourceId":
                known[mine.value] = None
        model = stock.db.model
        assert rows(stock, model.changesources) == rows(ours, model.changesources)
        assert rows(ours, model.changesource_masters) == []
        assert named(stock) == named(ours)
    report("change source connector: random calls with equal results, for each seed", steps)


def named(master: Master) -> list[tuple[Any, ...]]:
    """Masters with their ids."""
    return [row[:2] for row in rows(master, master.db.model.masters)]


def random_call(
    choice: random.Random, known: list[int], masterids: list[int]
) -> tuple[str, tuple[Any, ...]]:
    source = choice.choice(known)
    kind = choice.choices(["find", "claim", "release", "one", "owner", "all"], [2, 5, 3, 2, 1, 3])[
        0
    ]
    if kind == "find":
        return "findChangeSourceId", (choice.choice(NAMES),)
    if kind == "claim":
        # A claim on what has no row succeeds where the database checks no foreign keys.
        claimable = [id_ for id_ in known if id_ != UNKNOWN_ID]
        if claimable:
            return "setChangeSourceMaster", (choice.choice(claimable), choice.choice(masterids))
    if kind == "release":
        return "setChangeSourceMaster", (source, None)
    if kind == "one":
        return "getChangeSource", (source,)
    if kind == "owner":
        return "get_change_source_master", (source,)
    active = choice.choice([None, True, False])
    return "getChangeSources", (active, choice.choice([None, *masterids, UNKNOWN_ID]))


# B3
def test_results_are_of_buildbots_own_class(sources: ChangeSourcesConnector) -> None:
    source, masterid = find(sources, "s", "m")
    assert wait(sources.setChangeSourceMaster, source, masterid) is None
    expected = ChangeSourceModel(id=source, name="s", masterid=masterid)
    one = wait(sources.getChangeSource, source)
    assert type(one) is ChangeSourceModel
    assert one == expected
    assert wait(sources.getChangeSources) == [expected]
    assert wait(sources.getChangeSource, UNKNOWN_ID) is None
    assert wait(sources.getChangeSource, 0) is None


# B3
def test_signatures_are_buildbots(sources: ChangeSourcesConnector) -> None:
    for name in (
        "findChangeSourceId",
        "setChangeSourceMaster",
        "get_change_source_master",
        "getChangeSource",
        "getChangeSources",
    ):
        assert parameters(getattr(sources, name)) == parameters(getattr(sources.stock, name)), name


# B3
def test_callers_may_yield_and_await(sources: ChangeSourcesConnector) -> None:
    source, masterid = find(sources, "s", "m")

    @inlineCallbacks
    def yielding() -> Any:
        yield sources.setChangeSourceMaster(source, masterid)
        one = yield sources.getChangeSource(source)
        many = yield sources.getChangeSources(active=True)
        found = yield sources.findChangeSourceId("s")
        return one, many, found

    async def awaiting() -> Any:
        one = await sources.getChangeSource(source)
        many = await sources.getChangeSources(masterid=masterid)
        return one, many, await sources.findChangeSourceId("s")

    assert wait(yielding) == wait(lambda: Deferred.fromCoroutine(awaiting()))


# --- What others trip over --------------------------------------------------------------------


# C2
def test_an_unknown_master_on_a_claimed_source_is_told_that_it_is_claimed(
    sources: ChangeSourcesConnector,
) -> None:
    source, masterid = find(sources, "s", "m")
    for unknown in (UNKNOWN_ID, 0):
        with pytest.raises(ChangeSourceAlreadyClaimedError, match=f"there is no master {unknown} "):
            wait(sources.setChangeSourceMaster, source, unknown)
    wait(sources.setChangeSourceMaster, source, masterid)
    for claimer in (UNKNOWN_ID, masterid):
        with pytest.raises(ChangeSourceAlreadyClaimedError):
            wait(sources.setChangeSourceMaster, source, claimer)
    assert owner(sources, source) == masterid


# C2
def test_what_has_no_row_cannot_be_claimed(sources: ChangeSourcesConnector) -> None:
    _, masterid = find(sources, "s", "m")
    with pytest.raises(ChangeSourceAlreadyClaimedError, match="there is no change source 4711"):
        wait(sources.setChangeSourceMaster, UNKNOWN_ID, masterid)
    assert wait(sources.setChangeSourceMaster, UNKNOWN_ID, None) is None
    assert wait(sources.getChangeSources, True) == []


# C6
def test_a_release_never_frees_a_successors_claim(
    sources: ChangeSourcesConnector, other: Master, client: Client
) -> None:
    theirs = ChangeSourcesConnector(other.db.changesources, client)
    source, masterid = find(sources, "s", "m")
    their_source, their_masterid = find(theirs, "s", "other")
    wait(sources.setChangeSourceMaster, source, masterid)
    # Somebody clears up behind the first master, and another one takes over.
    wait(theirs.setChangeSourceMaster, their_source, None)
    wait(theirs.setChangeSourceMaster, their_source, their_masterid)
    wait(sources.setChangeSourceMaster, source, None)
    assert owner(theirs, their_source) == their_masterid
    wait(theirs.setChangeSourceMaster, their_source, None)
    assert owner(theirs, their_source) is None


# C6
def test_what_a_living_master_holds_is_not_cleared_up(
    sources: ChangeSourcesConnector, client: Client
) -> None:
    source, _ = find(sources, "s", "m")
    claim(client, "s", lease(client, "elsewhere"))
    wait(sources.setChangeSourceMaster, source, None)
    assert owner(sources, source) == wait(sources.db.masters.findMasterId, "elsewhere")


# B5
def test_whatever_goes_wrong_reads_as_already_claimed(master: Master) -> None:
    client = Client("127.0.0.1:1")
    sources = ChangeSourcesConnector(master.db.changesources, client, deadline=0.3)
    source, masterid = find(sources, "s", "m")
    for value in (masterid, None):
        with pytest.raises(ChangeSourceAlreadyClaimedError) as raised:
            wait(sources.setChangeSourceMaster, source, value)
        assert isinstance(raised.value.__cause__, HoldfastError)
    with pytest.raises(HoldfastError):
        wait(sources.getChangeSources)
    client.close()


# --- What a stand-in is for -------------------------------------------------------------------


# B4
def test_masters_meet_by_name_under_ids_of_their_own(
    sources: ChangeSourcesConnector, other: Master, client: Client
) -> None:
    theirs = ChangeSourcesConnector(other.db.changesources, client)
    source, masterid = find(sources, "s", "m")
    their_source, their_masterid = find(theirs, "s", "other")
    assert (source, masterid) != (their_source, their_masterid)
    wait(sources.setChangeSourceMaster, source, masterid)
    with pytest.raises(ChangeSourceAlreadyClaimedError, match="s is owned by m"):
        wait(theirs.setChangeSourceMaster, their_source, their_masterid)
    # The owner is shown under a handle of the database that is asked.
    shown = wait(other.db.masters.getMaster, owner(theirs, their_source))
    assert (shown.name, shown.active) == ("m", False)
    # What only the other master has is shown, too, and can be asked for.
    listed = wait(theirs.getChangeSources)
    assert [(one.id, one.name) for one in listed] == [(50, "unrelated"), (their_source, "s")]
    wait(theirs.setChangeSourceMaster, 50, their_masterid)
    unrelated = wait(sources.getChangeSources, None, wait(master_id_of, sources, "other"))
    assert [one.name for one in unrelated] == ["unrelated"]
    assert wait(sources.getChangeSource, unrelated[0].id) == unrelated[0]


def master_id_of(connector: ChangeSourcesConnector, name: str) -> Deferred[int]:
    found: Deferred[int] = connector.db.masters.findMasterId(name)
    return found


# C4
def test_of_many_that_claim_at_once_one_owns(
    sources: ChangeSourcesConnector, other: Master, client: Client
) -> None:
    theirs = ChangeSourcesConnector(other.db.changesources, client)
    wins = []
    for attempt in range(scale(200, 10)):
        source, masterid = find(sources, f"s{attempt}", "m")
        their_source, their_masterid = find(theirs, f"s{attempt}", "other")

        def both() -> Deferred[Any]:
            claims = [
                sources.setChangeSourceMaster(source, masterid),  # noqa: B023
                theirs.setChangeSourceMaster(their_source, their_masterid),  # noqa: B023
            ]
            return gatherResults([claim.addCallbacks(lambda _: 1, lambda _: 0) for claim in claims])

        won = wait(both)
        assert sum(won) == 1, attempt
        wins.append(won[0])
        shown = wait(other.db.masters.getMaster, owner(theirs, their_source))
        assert shown.name == ("m" if won[0] else "other")
    report("change sources claimed by two masters at once, one owner", len(wins))
