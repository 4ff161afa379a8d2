"""A real session-based script, on the backend of this machine, and GC3Pie's tools after it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gc3libs.persistence.store import make_store

from tests.gc3 import script
from tests.support.cluster import wait_until
from tests.support.scale import bound

PACKAGE = Path(__file__).parents[2]
LAUNCH = [sys.executable, str(PACKAGE / "data/scripts/holdfast-gc3")]
STEPS = 3

RESOURCES = """\
[auth/none]
type = none

[resource/localhost]
type = shellcmd
transport = local
auth = none
max_cores = {cores}
max_cores_per_job = 1
max_memory_per_core = 16 GiB
max_walltime = 9 hours
architecture = x86_64, i686
override = no
resourcedir = {directory}
"""


class Home:
    """A user's home, with GC3Pie's configuration in it."""

    def __init__(self, directory: Path, cores: int) -> None:
        self.directory = directory
        shutil.copy(script.__file__, directory / "script.py")
        resources = RESOURCES.format(cores=cores, directory=directory / "resource")
        (directory / "gc3pie.conf").write_text(resources)
        self.environment = {
            **os.environ,
            "HOME": str(directory),
            "PYTHONPATH": str(PACKAGE),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the launcher."""
        return subprocess.Popen(
            [*LAUNCH, *arguments],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> str:
        """What the launcher prints; it must succeed."""
        process = self.start(*arguments)
        try:
            printed, _ = process.communicate(timeout=bound(30))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, printed
        return printed

    def tool(self, name: str, *arguments: str) -> str:
        """What one of GC3Pie's tools prints about the session."""
        # So that it finds the classes of tasks.
        self.environment["PYTHONPATH"] = f"{PACKAGE}:{self.directory}"
        return self.run(name, "--config-files", "gc3pie.conf", "-s", "S", *arguments)

    def script(self, url: str) -> list[str]:
        """The command line of the script."""
        return ["script.py", "--config-files", "gc3pie.conf", "-s", "S", "-u", url, "-C", "1"]


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path, cores=STEPS)


@pytest.mark.usefixtures("local_backend")
def test_script_runs_to_its_end_and_tools_see_it(home, url):
    printed = home.run(*home.script(url))
    assert f"TERMINATED  {STEPS}/{STEPS}" in printed
    outputs = sorted(home.directory.glob("step-*/out.txt"))
    assert [output.read_text() for output in outputs] == [f"done step-{n}\n" for n in range(STEPS)]
    ids = make_store(url).list(class_name="Step", state="TERMINATED")
    assert (home.directory / "S/session_ids.txt").read_text().split() == ids
    assert len(ids) == STEPS
    assert home.tool("gselect", "--state", "TERMINATED").split()[-STEPS:] == ids
    # Not by an id: GC3Pie would then write an index that has no other task.
    assert home.tool("ginfo").count("returncode: 0") == STEPS
    # The script again: there is nothing left to do, and nothing is done twice.
    assert f"TERMINATED  {STEPS}/{STEPS}" in home.run(*home.script(url))
    assert make_store(url).list() == ids
    home.tool("gclean", *ids)
    assert make_store(url).list() == []


# P6: what was submitted before a crash is known after it.
@pytest.mark.usefixtures("local_backend")
def test_script_that_was_killed_goes_on(tmp_path, url):
    home = Home(tmp_path, cores=1)
    first = home.start(*home.script(url))
    store = make_store(url)
    try:
        wait_until(lambda: store.list(state="TERMINATED"), "a step is done", bound(20))
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    ids = store.list()
    assert len(ids) == STEPS
    assert f"TERMINATED  {STEPS}/{STEPS}" in home.run(*home.script(url))
    assert store.list(state="TERMINATED") == ids


def test_launcher_says_how_it_is_used(home):
    assert "usage: holdfast-gc3 TOOL|SCRIPT" in home.run("--help")
    for arguments, said in [([], "usage: holdfast-gc3"), (["gnothing"], "gnothing")]:
        process = home.start(*arguments)
        printed, _ = process.communicate(timeout=bound(10))
        assert said in printed
        assert process.returncode in (1, 2)


# B1
def test_launcher_without_gc3pie_says_so(tmp_path):
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text("import sys\nsys.modules['gc3libs'] = None\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PACKAGE}"}
    done = subprocess.run(
        [*LAUNCH, "gstat"], env=environment, capture_output=True, text=True, timeout=bound(10)
    )
    assert done.returncode == 2
    assert "GC3Pie is not installed" in done.stderr
