"""Two masters under one name: the second one is refused, and told who is the first (M3)."""

from __future__ import annotations

import shutil

from holdfast.buildbot.cluster import INSTANCE_FILE
from tests.support.scale import bound

from .masters import Pair, Repository, git_source, holdfast, now

LEASE = 1.0


# M3: the first one does not notice; the second one takes its place when it is gone.
def test_second_master_of_a_name_is_refused(cluster, site, tmp_path):
    repository = Repository(tmp_path / "repository")
    config = holdfast(cluster, "rivals", lease=LEASE, master_name="the-one")
    config += git_source(repository)
    both = Pair(site.master("rivals-a", config), site.master("rivals-b", config))
    first, second = both.masters
    try:
        first.start().wait_running()
        both.wait_poll(0, master=first)
        # As in a copied directory: with the secret that the first one has shown.
        shutil.copy2(first.path / INSTANCE_FILE, second.path)
        second.start().wait_running()
        second.wait_log("refused: a second master under the name 'the-one'")
        said = next(line for line in second.log().splitlines() if "a second master" in line)
        assert str(first.path) in said
        assert f"pid {first.process.pid}" in said

        # Several of its tries later nothing has changed, and nothing more is said.
        first.forget_log()
        until = now() + 3 * LEASE
        both.wait_poll(until, master=first)
        assert second.stamps() == []
        assert second.log().count("a second master under the name") == 1
        assert "lease" not in first.log()[first._log_from :]

        at = first.kill()
        took = both.wait_poll(at, master=second) - at
        assert took <= bound(2 * LEASE + 0.5)
    finally:
        both.stop()
