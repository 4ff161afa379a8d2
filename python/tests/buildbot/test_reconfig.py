"""The plug-in comes to running masters, and leaves them; and is looked at without a cluster."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess

import pytest
from buildbot.config.errors import ConfigErrors

from holdfast.buildbot import Holdfast
from tests.support.scale import bound

from .masters import BUILDBOT, Pair, Repository, git_source, holdfast, now, wait_until


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


def reconfigure(master, config):
    master.configure(config)
    master.forget_log()
    master.signal(signal.SIGHUP)
    master.wait_log("configuration update complete")


# B4: by SIGHUP it takes what polls already, and what that has seen; taken out it gives that back.
def test_comes_changes_and_goes_by_sighup(cluster, site, repository):
    without = git_source(repository, pollInterval=0.5)
    config = holdfast(cluster, "hot") + without
    rarely = git_source(repository, pollInterval=3600)
    both = Pair(site.master("hot-a", rarely), site.master("hot-b", rarely))
    try:
        for master in both.start().masters:
            wait_until(lambda master=master: master.stamps("end"), 30, "stock does not poll")
        seen = repository.commit(2)
        for master in both.masters:
            master.ask("[source] = master.change_svc; source.force()")
            wait_until(lambda master=master: master.changes() == seen, 30, "stock does not poll")

        # What nobody has seen yet is not taken for old by what is new.
        seen_by_owner = seen + repository.commit(2)
        reconfigure(both.masters[0], config)
        reconfigure(both.masters[1], config)
        at = now()
        owner, other = both.masters
        both.wait_poll(at, master=owner)
        added = repository.commit(2)
        seen_by_owner += added
        wait_until(lambda: owner.changes() == seen_by_owner, 30, "the owner does not poll")
        assert other.polls_since(at) == []
        assert other.changes() == seen

        # In a namespace of its own it shares with nobody.
        reconfigure(other, holdfast(cluster, "hot, elsewhere") + without)
        both.wait_poll(now(), master=other)
        reconfigure(other, config)
        at = now()
        both.wait_poll(at + 1, master=owner)
        assert other.polls_since(at) == []

        # The one that leaves polls on by itself; the other one is the only one in the cluster.
        reconfigure(owner, without)
        both.wait_poll(now(), within=bound(5), master=owner)
        both.wait_poll(now(), within=bound(5), master=other)
        local = "return [s.masterid for s in await master.db.changesources.getChangeSources()]"
        assert owner.ask(local) == [1]
        assert owner.ask("return type(master.db.state).__module__") == "buildbot.db.state"
        assert owner.ask("return type(master.data.updates.addChange).__name__") == "method"
    finally:
        both.stop()


@pytest.fixture
def deaf():
    """An endpoint where somebody listens, and nobody should come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def buildbot(site, *args):
    return subprocess.run(
        [*BUILDBOT, *args], env=site.env(), capture_output=True, text=True, check=False, timeout=60
    )


# B2: what only looks at the configuration connects to nothing.
@pytest.mark.parametrize("command", ["checkconfig", "upgrade-master"])
def test_connects_to_nothing(site, repository, deaf, command):
    port = deaf.getsockname()[1]
    line = f"c['services'].append(util.Holdfast('127.0.0.1:{port}'))\n"
    master = site.master(f"looked-at-{command}", line + git_source(repository))
    done = buildbot(site, command, str(master.path))
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(BlockingIOError):
        deaf.accept()
    assert not list(master.path.glob("holdfast*"))
    shutil.rmtree(master.path)


# G11: a mistake is told by name and value, by checkconfig.
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"endpoints": "ci-1"}, "endpoint 'ci-1' is not 'host:port'"),
        ({"endpoints": "ci-1:7480,"}, "endpoint '' is not 'host:port'"),
        ({"endpoints": []}, "endpoints is empty"),
        ({"namespace": "n" * 1025}, "namespace must have 1 to 1024 bytes: 'nnn"),
        ({"lease": 0.4}, "lease must be 0.5 to 86400.0 s, is 0.4"),
        ({"watchdog": -1}, "watchdog must be 0 or more seconds, is -1"),
        ({"master_name": ""}, "master_name must have 1 to 1024 bytes: ''"),
    ],
)
def test_mistakes_are_told(arguments, told):
    with pytest.raises(ConfigErrors) as raised:
        Holdfast(**{"endpoints": "ci-1:7480", **arguments})
    assert told in str(raised.value)
