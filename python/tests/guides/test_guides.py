"""The guides that need nothing but the package itself; others run with what they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import binary, run_cluster
from tests.support.guide import ROOT, Guide, blocks

HERE = ["asyncio", "stm"]
ELSEWHERE = ["buildbot", "gc3pie"]


@pytest.mark.parametrize("name", HERE)
def test_all_blocks_of_the_guide_run(name: str, tmp_path: Path) -> None:
    page = ROOT / "docs" / f"guide-{name}.md"
    # A cluster of its own: a reader of the page begins with an empty one.
    with (
        run_cluster() as cluster,
        Guide(tmp_path, cluster.endpoints, cluster.environment, binary()) as guide,
    ):
        for block in blocks(page):
            guide.run(block)


def test_no_guide_is_left_out() -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("guide-*.md")}
    assert pages <= {f"guide-{name}" for name in HERE + ELSEWHERE}
