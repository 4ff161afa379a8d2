"""The wheel as users meet it: installs into an empty environment, works, leaves nothing behind.

scripts/test-python builds it and names its directory in ``HOLDFAST_WHEELS``.
"""

from __future__ import annotations

import json
import os
import pathlib
import sysconfig
import time
import zipfile

import pytest

from tests.support.scale import bound, report
from tests.wheel.environment import Environment

# Not Axon: its exceptions are those of holdfast.stm where it is installed.
UPSTREAM = ["buildbot", "gc3libs", "grpc", "sqlalchemy", "twisted"]
LIBRARIES = sysconfig.get_path("purelib")
"""Where the requirements of the wheel are, without the wheel: those of the tests' environment."""


@pytest.fixture(scope="module")
def wheels() -> pathlib.Path:
    directory = os.environ.get("HOLDFAST_WHEELS")
    if not directory:
        pytest.fail("HOLDFAST_WHEELS names no directory: scripts/test-python base builds the wheel")
    return pathlib.Path(directory)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheels: pathlib.Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel") / "environment", wheels)


class Installed(Environment):
    """An environment that the wheel was installed into."""

    def __init__(self, root: pathlib.Path, wheels: pathlib.Path) -> None:
        super().__init__(root, wheels)
        self.before = self.files()
        """What was there without it."""
        began = time.monotonic()
        # No index has its requirements: pip fails unless those of this environment are what it asks
        # for.
        self.install(PYTHONPATH=LIBRARIES)
        self.took = time.monotonic() - began
        """How long that was, in seconds."""


def test_one_wheel_has_the_server_the_package_and_both_licences(wheels: pathlib.Path) -> None:
    """B1."""
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith(".data/scripts/holdfast")]
    for licence in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert [name for name in names if name.endswith(f".dist-info/licenses/{licence}")]
    strangers = [name for name in names if not name.startswith(("holdfast/", "holdfast-"))]
    assert strangers == []
    assert [name for name in names if name.startswith("holdfast/") and "test" in name] == []
    report("size of the wheel", f"{wheel.stat().st_size / 2**20:.0f} MiB")


def test_a_cluster_runs_from_the_wheel(installed: Installed, tmp_path: pathlib.Path) -> None:
    """B1: the installed command is all that a cluster needs."""
    began = time.monotonic()
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOLDFAST_NAME": "wheel"}
    data = str(tmp_path / "data")
    installed.run("holdfast", "up", "--base-port", "0", "--data-dir", data, **variables)
    try:
        ready = installed.took + time.monotonic() - began
        installed.run("holdfast", "state", "set", "demo/one", "greeting", '"hello"', **variables)
        nodes = json.loads(installed.run("holdfast", "ps", "-o", "json", **variables))["nodes"]
        answer = installed.python(
            "from holdfast import Client\n"
            f"state = Client({nodes[0]['endpoint']!r}).state\n"
            "print(state.get(state.get_object_id('one', 'demo'), 'greeting').value)",
            PYTHONPATH=LIBRARIES,
        )
        assert answer.strip() == "b'\"hello\"'"
    finally:
        installed.run("holdfast", "down", "--purge", **variables)
    assert ready < bound(20)
    report("from an empty environment to a cluster", f"{ready:.1f} s")


def test_python_finds_the_package_and_its_requirements(installed: Installed) -> None:
    """B1, B2: what the wheel requires is enough to import it, and no upstream is imported."""
    found = installed.python(
        "import sys, holdfast, holdfast.stm, holdfast.persistence\n"
        f"print(holdfast.__file__, [name for name in {UPSTREAM} if name in sys.modules])",
        PYTHONPATH=LIBRARIES,
    )
    file, imported = found.split(maxsplit=1)
    assert pathlib.Path(file).is_relative_to(installed.root)
    assert imported.strip() == "[]"


def test_buildbot_finds_the_plugin_and_shells_the_launcher(installed: Installed) -> None:
    """B4."""
    found = installed.python(
        "from importlib.metadata import distribution\n"
        "for point in distribution('holdfast').entry_points:\n"
        "    print(point.group, point.name, point.value)"
    )
    assert found.splitlines() == ["buildbot.util Holdfast holdfast.buildbot:Holdfast"]
    launcher = (installed.root / "bin" / "holdfast-gc3").read_text("utf-8")
    assert launcher.startswith(f"#!{installed.root}/bin/python")


# The last one: nothing is installed any more.
def test_uninstalling_leaves_nothing_behind(installed: Installed) -> None:
    installed.run("python", "-m", "compileall", "-q", str(installed.root / "lib"))
    assert installed.files() > installed.before
    installed.pip("uninstall", "--yes", "holdfast")
    assert installed.files() == installed.before
