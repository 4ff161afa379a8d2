"""Many change sources change hands at once."""

from __future__ import annotations

from tests.support.scale import bound, report, scale

from .masters import LEASE, Pair, holdfast, wait_until


# C6, B7: all change sources of a dead master poll at the other one within a second of its lease.
def test_all_sources_move_at_once(cluster, site):
    sources = scale(200, 20)
    config = holdfast(cluster, "many") + (
        f"c['change_source'] = [StampedPoller(name=f's{{n}}', pollInterval=3600)"
        f" for n in range({sources})]\n"
    )
    both = Pair(site.master("many-a", config), site.master("many-b", config))
    owner, heir = both.masters
    try:
        owner.start().wait_running()
        # Those that it got only behind the start have polled by themselves, and poll once more.
        owner.ask("return [s.force() for s in master.change_svc]")
        wait_until(lambda: len(owner.first_polls()) == sources, 60, "not all are polled")
        heir.start().wait_running()
        assert heir.stamps() == []
        at = owner.kill()
        wait_until(lambda: len(heir.first_polls()) == sources, 60, "not all have moved")
        polls = heir.first_polls().values()
        first, last = min(polls), max(polls)
        report(
            f"Buildbot, {sources} change sources of a dead master, lease {LEASE:.0f} s",
            f"the first polls {first - at:.2f} s after the kill, the last one {last - first:.3f} s "
            "behind it",
        )
        assert last - at <= LEASE + bound(1.0)
    finally:
        both.stop()
