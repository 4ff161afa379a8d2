"""One installation of Buildbot, and one pair of masters that most tests of the plug-in share.

Starting a master takes more than a second of processor time. So tests leave the pair as they
found it, or with masters that ``pair.start()`` starts again.
"""

from __future__ import annotations

import pytest

from tests.support.cluster import run_cluster

from .masters import LEASE, Pair, Repository, Site, git_source, holdfast

SCHEDULERS = """
c['schedulers'].append(
    schedulers.Nightly(name='n', builderNames=['b'], hour=3, onlyIfChanged=True)
)
"""
WATCHDOG = 2.5 * LEASE
"""Of the masters of ``pair``, in seconds."""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Where masters live."""
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def breakable():
    """The cluster of ``pair``; whole when a test ends."""
    with run_cluster() as own:
        yield own


@pytest.fixture(scope="session")
def _pair(breakable, site, tmp_path_factory):
    repository = Repository(tmp_path_factory.mktemp("pair") / "repository")
    config = holdfast(breakable, "pair", lease=LEASE, watchdog=WATCHDOG)
    config += git_source(repository) + SCHEDULERS
    config += f"from tests.buildbot import cut; cut.install(basedir, {breakable.text!r})\n"
    both = Pair(site.master("pair-a", config), site.master("pair-b", config))
    yield both
    both.stop()


@pytest.fixture
def pair(_pair):
    """Two masters that run, with a GitPoller of which one is the owner."""
    _pair.start()
    _pair.wait_poll(0)
    return _pair
