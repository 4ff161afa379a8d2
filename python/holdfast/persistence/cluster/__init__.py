"""Objects on a cluster.

``location`` where a cluster is, from a URI · ``link`` what one process has: an engine, and ids ·
``save`` the way in, ``upload`` of what does not fit into one request, in ``pieces`` · ``load`` the
way out · ``listing`` what there is · ``store`` the store.

# Invariants
- Nothing is sent before the first call, and each call is tried for as long as the store waits; a
  cluster that cannot be reached for longer makes the store *unavailable*, whatever was asked of it.
- Connections, sessions and ids belong to one process; a child that inherits them by a fork makes
  its own.
- What is loaded is true at one revision, level by level: an object that was changed after the root
  was read makes the load begin anew.
"""

from __future__ import annotations

from holdfast.persistence.cluster.store import ClusterStore

__all__ = ["ClusterStore"]
