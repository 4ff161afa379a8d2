"""Real Buildbot masters on a real cluster: directories, processes, signals, and what they did."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.support.scale import scale

from .probe import ANSWER, REQUEST
from .stamped import STAMPS

PYTHON = Path(__file__).parents[2]
BUILDBOT = [sys.executable, "-c", "from buildbot.scripts.runner import run; run()"]

LEASE = scale(3.0, 1.5)
"""Of masters that are killed, in seconds."""

CONFIG = """
from buildbot.plugins import changes, schedulers, util, worker
from tests.buildbot.probe import Probe
from tests.buildbot.stamped import StampedGitPoller, StampedPoller

c = BuildmasterConfig = {}
c['workers'] = [worker.Worker('w', 'secret')]
c['protocols'] = {'pb': {'port': 'tcp:0:interface=127.0.0.1'}}
c['builders'] = [
    util.BuilderConfig(name='b', workernames=['w'], factory=util.BuildFactory())
]
c['schedulers'] = [schedulers.AnyBranchScheduler(name='s', builderNames=['b'])]
c['buildbotNetUsageData'] = None
c['change_source'] = []
c['services'] = [Probe()]
"""


def now():
    """The clock of the stamps, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_until(what, within, why):
    """Waits for a condition to hold, at most so many seconds; returns what it says."""
    end = time.monotonic() + within
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, why() if callable(why) else why
        time.sleep(0.01)


class Repository:
    """A git repository with a history of one file."""

    def __init__(self, path):
        self.path = path
        self.revisions = []
        self._git("init", "-q", "--bare", "-b", "main", str(path), cwd="/")
        self.commit(1)

    def commit(self, count=1):
        """Adds commits; returns their revisions, oldest first."""
        stream = []
        parent = self.revisions[-1] if self.revisions else None
        first = len(self.revisions)
        for nth in range(first, first + count):
            text = f"commit {nth}"
            stream.append(
                f"commit refs/heads/main\nmark :{nth + 1}\n"
                f"committer Test <test@example.org> {1700000000 + nth} +0000\n"
                f"data {len(text)}\n{text}\n"
                + (f"from {parent}\n" if parent and nth == first else "")
                + f"M 100644 inline file\ndata {len(text)}\n{text}\n"
            )
        self._git("fast-import", "--quiet", input="\n".join(stream), cwd=self.path)
        listed = self._git("rev-list", "--reverse", "refs/heads/main", cwd=self.path)
        added = listed.split()[first:]
        self.revisions += added
        return added

    @staticmethod
    def _git(*args, cwd, **kwargs):
        return subprocess.run(
            ["git", *args], cwd=cwd, check=True, capture_output=True, text=True, **kwargs
        ).stdout


class Site:
    """Where masters live: a directory, and the package as if it were installed."""

    def __init__(self, path):
        self.path = path
        self._template = path / "template"
        self._installed = path / "installed"
        self._install()
        run = subprocess.run(
            [*BUILDBOT, "create-master", "-r", str(self._template)],
            env=self.env(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr

    def env(self):
        """Environment of Buildbot's programs."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        env["PYTHONPATH"] = os.pathsep.join(
            [str(PYTHON), str(self._installed), env.get("PYTHONPATH", "")]
        )
        return env

    def master(self, name, config, base=CONFIG):
        """A new master, not started."""
        path = self.path / name
        shutil.copytree(self._template, path)
        master = Master(self, path)
        master.configure(config, base)
        return master

    def _install(self):
        """What a wheel's metadata says, so that ``util.Holdfast`` is found as users find it."""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution("holdfast")
            return
        metadata = self._installed / "holdfast-0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: holdfast\nVersion: 0\n")
        (metadata / "entry_points.txt").write_text(entry_points())


def entry_points():
    """The entry points of the package, in the format of a wheel."""
    lines = []
    is_wanted = False
    for line in (PYTHON / "pyproject.toml").read_text().splitlines():
        if line.startswith("["):
            is_wanted = line.startswith("[project.entry-points.")
            if is_wanted:
                lines.append("[" + line.split('"')[1] + "]")
        elif is_wanted and "=" in line:
            lines.append(line.replace('"', ""))
    return "\n".join(lines) + "\n"


class Master:
    """One Buildbot master: its directory, and its process while there is one."""

    def __init__(self, site, path):
        self.site = site
        self.path = path
        self.process = None

    def configure(self, config, base=CONFIG):
        """Writes ``master.cfg``."""
        (self.path / "master.cfg").write_text(base + textwrap.dedent(config))

    def start(self):
        """Starts it; see :meth:`wait_running`."""
        assert self.process is None or self.process.poll() is not None
        self._log_from = len(self.log())
        self.process = subprocess.Popen(
            [*BUILDBOT, "start", "--nodaemon", str(self.path)],
            env=self.site.env(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        return self

    def wait_running(self, within=180):
        """Waits until the start that was begun last is over."""
        self.wait_log("BuildMaster is running", within)
        return self

    def wait_log(self, text, within=180):
        """Waits for a text in the log since the last start."""
        wait_until(
            lambda: text in self.log()[self._log_from :] or self.process.poll() is not None,
            within,
            lambda: f"no {text!r} in {self.path}: {self.log()[self._log_from :][-6000:]}",
        )
        assert text in self.log()[self._log_from :], f"{self.path} has ended: {self.log()[-6000:]}"

    def forget_log(self):
        """Has :meth:`wait_log` look only at what is logged from now on."""
        self._log_from = len(self.log())

    def log(self):
        """All that it has logged, in all its lives."""
        path = self.path / "twistd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def signal(self, number):
        """Sends its process a signal; returns when."""
        self.process.send_signal(number)
        return now()

    def kill(self):
        """Ends it the hard way; returns when."""
        at = self.signal(signal.SIGKILL)
        self.process.wait()
        return at

    def stop(self, within=60):
        """Ends it in good order, if it runs."""
        self.begin_to_stop()
        self.wait_stopped(within)

    def begin_to_stop(self):
        """Asks it to end in good order, if it runs; see :meth:`wait_stopped`."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)

    def wait_stopped(self, within=60):
        """Waits until it has ended; ends it the hard way, and fails, if it does not."""
        if self.process is None:
            return
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def stamps(self, what="begin", source=None):
        """When it began (or ended) polls, oldest first."""
        return [
            stamp["at"]
            for stamp in self._stamped()
            if stamp["what"] == what and source in (None, stamp["source"])
        ]

    def first_polls(self):
        """When it began to poll each of its change sources for the first time, by their names."""
        first = {}
        for stamp in self._stamped():
            first.setdefault(stamp["source"], stamp["at"])
        return first

    def is_polling(self):
        """Whether the poll that it began last has not ended; a killed master's never does."""
        return self.stamps("end")[-1:] < self.stamps()[-1:]

    def polls_since(self, at):
        """When it began polls after a moment."""
        return [stamp for stamp in self.stamps() if stamp > at]

    def ask(self, body, within=30):
        """Runs the body of a coroutine in it, with ``master``; returns what it returns.

        What it raises is returned as ``(name of the exception, traceback)``.
        """
        answer = self.path / ANSWER
        answer.unlink(missing_ok=True)
        request = self.path / REQUEST
        request.with_suffix(".new").write_text(textwrap.dedent(body))
        request.with_suffix(".new").rename(request)
        wait_until(answer.exists, within, lambda: f"no answer: {self.path}: {self.log()[-4000:]}")
        found = json.loads(answer.read_text())
        return found["returned"] if "returned" in found else (found["raised"], found["text"])

    def changes(self):
        """The revisions of the changes in its database, in the order in which they came."""
        database = sqlite3.connect(f"file:{self.path / 'state.sqlite'}?mode=ro", uri=True)
        try:
            rows = database.execute("SELECT revision FROM changes ORDER BY changeid").fetchall()
        finally:
            database.close()
        return [row[0] for row in rows]

    def _stamped(self):
        path = self.path / STAMPS
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]


def git_source(repository, **kwargs):
    """A line of ``master.cfg``: a GitPoller, called ``git``, that polls every second."""
    settings = {"name": "git", "branches": ["main"], "pollInterval": 1, "pollAtLaunch": True}
    settings.update(kwargs)
    return (
        f"c['change_source'].append(StampedGitPoller({str(repository.path)!r}, **{settings!r}))\n"
    )


def holdfast(cluster, namespace, **kwargs):
    """A line of ``master.cfg``: the plug-in."""
    settings = {"namespace": namespace, "lease": LEASE, **kwargs}
    return f"c['services'].append(util.Holdfast({cluster.text!r}, **{settings!r}))\n"


class Pair:
    """Two masters that share their change sources, and who of them polls."""

    def __init__(self, first, second):
        self.masters = (first, second)

    def start(self):
        """Starts those that do not run, and waits until they do."""
        started = [
            master.start()
            for master in self.masters
            if master.process is None or master.process.poll() is not None
        ]
        for master in started:
            master.wait_running()
        return self

    def stop(self):
        """Stops both, and fails if one does not end."""
        for master in self.masters:
            master.begin_to_stop()
        for master in self.masters:
            master.wait_stopped()

    def owner(self):
        """The one that polled last, and the other one."""
        first, second = self.masters
        is_first = max(first.stamps(), default=0.0) > max(second.stamps(), default=0.0)
        return (first, second) if is_first else (second, first)

    def wait_poll(self, at, within=30, master=None):
        """Waits until one (or that one) has begun a poll after a moment; returns when that was."""
        polled = [master] if master is not None else self.masters
        return min(
            wait_until(
                lambda: [stamp for one in polled for stamp in one.polls_since(at)],
                within,
                lambda: "\n".join(f"no poll: {one.path}: {one.log()[-4000:]}" for one in polled),
            )
        )

    def turns(self):
        """Who polled, in the order of all polls, each turn once: as many as there were owners."""
        polls = sorted(
            (stamp, nth) for nth, one in enumerate(self.masters) for stamp in one.stamps()
        )
        return [who for n, (_, who) in enumerate(polls) if n == 0 or polls[n - 1][1] != who]
