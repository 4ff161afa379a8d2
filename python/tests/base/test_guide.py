"""The guide of the client does what it says."""

from __future__ import annotations

from tests.support.cluster import binary, run_cluster
from tests.support.guide import ROOT, Guide, blocks


def test_all_blocks_of_the_guide_run(tmp_path):
    # A cluster of its own: a reader of the page begins with an empty one.
    with (
        run_cluster() as cluster,
        Guide(tmp_path, cluster.endpoints, cluster.environment, binary()) as guide,
    ):
        for block in blocks(ROOT / "docs" / "guide-asyncio.md"):
            guide.run(block)
