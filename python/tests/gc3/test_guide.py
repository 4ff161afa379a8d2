"""The guide for GC3Pie runs, where GC3Pie is."""

from __future__ import annotations

import sys

import pytest

from tests.support.cluster import binary, run_cluster
from tests.support.guide import ROOT, Guide, blocks


@pytest.mark.usefixtures("local_backend")
def test_all_blocks_of_the_guide_run(tmp_path):
    with run_cluster() as cluster:
        environment = {**cluster.environment, "HOME": str(tmp_path)}
        with Guide(tmp_path, cluster.endpoints, environment, binary()) as guide:
            launcher = tmp_path / ".tools/holdfast-gc3"
            script = ROOT / "python/data/scripts/holdfast-gc3"
            launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
            launcher.chmod(0o755)
            for block in blocks(ROOT / "docs/guide-gc3pie.md"):
                guide.run(block)
