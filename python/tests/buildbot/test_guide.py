"""The guide for Buildbot does what it says; its configuration makes a master that polls."""

from __future__ import annotations

import shutil

from tests.support.cluster import binary
from tests.support.guide import ROOT, Guide, blocks

from .masters import Repository


def test_every_block_runs(cluster, site, tmp_path):
    repository = Repository(tmp_path / "repository")
    page = tmp_path / "page"
    page.mkdir()
    master = None
    with Guide(page, cluster.endpoints, cluster.environment, binary()) as guide:
        for block in blocks(ROOT / "docs" / "guide-buildbot.md"):
            guide.run(block)
            if block.file == "master.cfg":
                # There is no git.example.org here.
                text = (page / "master.cfg").read_text()
                text = text.replace("https://git.example.org/project", str(repository.path))
                master = site.master("guide", "", base=text)
                master.start().wait_log("gitpoller: processing")
    assert master is not None
    master.stop()
    shutil.rmtree(master.path)
