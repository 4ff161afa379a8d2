"""What the cluster knows is known by name: state is kept where it belongs, ids stay local (B4)."""

from __future__ import annotations

import pytest

from tests.support.scale import bound

from .masters import wait_until


@pytest.fixture(autouse=True)
def _other_ids(pair):
    """One more object in one of the databases: the same id is not the same thing in both."""
    pair.masters[0].ask("await master.db.state.getObjectId('shift', 'test')")


SET = "oid = await master.db.state.getObjectId({name!r}, {kind!r})\n" + (
    "await master.db.state.setState(oid, {key!r}, {value!r})"
)
GET = "oid = await master.db.state.getObjectId({name!r}, {kind!r})\n" + (
    "return await master.db.state.getState(oid, {key!r}, 'none')"
)


def put(master, name, kind, key, value):
    return master.ask(SET.format(name=name, kind=kind, key=key, value=value))


def get(master, name, kind, key):
    return master.ask(GET.format(name=name, kind=kind, key=key))


# B4: what no scheduler and no change source says is common to all masters.
def test_other_objects_are_shared(pair):
    first, second = pair.masters
    assert put(first, "mine", "tests.Mine", "key", [1, {"a": None}]) is None
    assert get(second, "mine", "tests.Mine", "key") == [1, {"a": None}]


# B4: what a scheduler says is about rows of its own master's database.
@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [
        ("n", "Nightly", "last_build"),
        ("n", "Nightly", "lastCodebases"),
        ("s", "buildbot.schedulers.basic.AnyBranchScheduler", "anything"),
        ("unknown", "Dependent", "upstream_bsids"),
    ],
)
def test_state_of_schedulers_stays_local(pair, name, kind, key):
    first, second = pair.masters
    assert put(first, name, kind, key, 7) is None
    assert get(first, name, kind, key) == 7
    assert get(second, name, kind, key) == "none"


# B6, S8: only the owner writes what its change source has seen.
def test_state_of_a_change_source_is_its_owners(pair):
    owner, other = pair.owner()
    kind = "StampedGitPoller"
    assert put(owner, "git", kind, "probe", "by the owner") is None
    assert get(other, "git", kind, "probe") == "by the owner"
    raised, text = put(other, "git", kind, "probe", "by another")
    assert raised == "ClaimLost", text
    assert get(owner, "git", kind, "probe") == "by the owner"


# B3: a value is created once, by whoever comes first.
def test_value_is_created_once_for_all(pair):
    first, second = pair.masters
    body = (
        "oid = await master.db.state.getObjectId('mine', 'tests.Mine')\n"
        "return await master.db.state.atomicCreateState(oid, 'once', lambda: {value!r})"
    )
    assert first.ask(body.format(value="first")) == "first"
    assert second.ask(body.format(value="second")) == "first"


# B4: each master sees its own ids, for itself and for others.
def test_change_sources_have_local_ids(pair):
    owner, other = pair.owner()
    body = """
    found = await master.db.changesources.getChangeSources()
    [source] = [one for one in found if one.name == 'git']
    held = await master.db.masters.getMaster(source.masterid)
    mine = await master.db.changesources.getChangeSources(masterid=master.masterid)
    return [held.name, master.name, len(mine), await master.db.changesources.getChangeSource(999)]
    """
    name = owner.ask("return master.name")
    assert owner.ask(body) == [name, name, 1, None]
    assert other.ask(body) == [name, other.ask("return master.name"), 0, None]


# Buildbot cleans up behind masters that it takes for dead: that frees nothing here.
def test_housekeeping_is_harmless(pair):
    owner, other = pair.owner()
    turns = len(pair.turns())
    body = """
    # As if the owner had not shown itself in this database for a day.
    import sqlalchemy as sa
    masters = master.db.model.masters
    def thd(conn):
        conn.execute(masters.update().where(masters.c.name != master.name).values(last_active=1))
        conn.commit()
    await master.db.changesources.getChangeSources()
    await master.db.pool.do(thd)
    await master.data.updates.expireMasters(forceHouseKeeping=True)
    for source in await master.db.changesources.getChangeSources():
        await master.db.changesources.setChangeSourceMaster(source.id, None)
    """
    assert other.ask(body) is None
    assert owner.ask(body) is None
    polls = len(owner.stamps())
    wait_until(lambda: len(owner.stamps()) > polls + 1, bound(5), "the owner does not poll")
    assert len(pair.turns()) == turns
