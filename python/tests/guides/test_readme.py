"""The Python of README.md runs; cluster-tests/tests/readme.rs runs the rest of it."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import binary, run_cluster
from tests.support.guide import ROOT, Guide, blocks


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    found = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
    assert found
    with (
        run_cluster() as cluster,
        Guide(tmp_path, cluster.endpoints, cluster.environment, binary()) as guide,
    ):
        for block in found:
            guide.run(block)
