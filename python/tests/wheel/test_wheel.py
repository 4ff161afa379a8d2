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


@pytest.fixture
def environment(tmp_path: pathlib.Path, wheels: pathlib.Path) -> Environment:
    return Environment(tmp_path / "environment", wheels)


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


def test_a_cluster_runs_from_the_wheel(environment: Environment, tmp_path: pathlib.Path) -> None:
    """B1: the installed command is all that a cluster needs."""
    began = time.monotonic()
    environment.install("--no-deps")
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOLDFAST_NAME": "wheel"}
    data = str(tmp_path / "data")
    environment.run("holdfast", "up", "--base-port", "0", "--data-dir", data, **variables)
    try:
        ready = time.monotonic() - began
        environment.run("holdfast", "state", "set", "demo/one", "greeting", '"hello"', **variables)
        nodes = json.loads(environment.run("holdfast", "ps", "-o", "json", **variables))["nodes"]
        answer = environment.python(
            "from holdfast import Client\n"
            f"state = Client({nodes[0]['endpoint']!r}).state\n"
            "print(state.get(state.get_object_id('one', 'demo'), 'greeting').value)",
            PYTHONPATH=LIBRARIES,
        )
        assert answer.strip() == "b'\"hello\"'"
    finally:
        environment.run("holdfast", "down", "--purge", **variables)
    assert ready < bound(20)
    report("from an empty environment to a cluster", f"{ready:.1f} s")


def test_python_finds_the_package_and_its_requirements(environment: Environment) -> None:
    """B1, B2: what the wheel requires is enough to import it, and no upstream is imported."""
    # No index has them: pip fails unless those of this environment are what the wheel requires.
    environment.install(PYTHONPATH=LIBRARIES)
    found = environment.python(
        "import sys, holdfast, holdfast.stm, holdfast.persistence\n"
        f"print(holdfast.__file__, [name for name in {UPSTREAM} if name in sys.modules])",
        PYTHONPATH=LIBRARIES,
    )
    file, imported = found.split(maxsplit=1)
    assert pathlib.Path(file).is_relative_to(environment.root)
    assert imported.strip() == "[]"


def test_buildbot_finds_the_plugin_and_shells_the_launcher(environment: Environment) -> None:
    """B4."""
    environment.install("--no-deps")
    found = environment.python(
        "from importlib.metadata import distribution\n"
        "for point in distribution('holdfast').entry_points:\n"
        "    print(point.group, point.name, point.value)"
    )
    assert found.splitlines() == ["buildbot.util Holdfast holdfast.buildbot:Holdfast"]
    launcher = (environment.root / "bin" / "holdfast-gc3").read_text("utf-8")
    assert launcher.startswith(f"#!{environment.root}/bin/python")


def test_uninstalling_leaves_nothing_behind(environment: Environment) -> None:
    before = environment.files()
    environment.install("--no-deps")
    environment.run("python", "-m", "compileall", "-q", str(environment.root / "lib"))
    assert environment.files() > before
    environment.pip("uninstall", "--yes", "holdfast")
    assert environment.files() == before
