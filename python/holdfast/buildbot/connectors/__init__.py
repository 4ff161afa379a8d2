"""Stand-ins for two of Buildbot's database connectors, on a cluster (B3).

:class:`StateConnector` does for ``master.db.state``, and :class:`ChangeSourcesConnector` for
``master.db.changesources``, what Buildbot's own do, for masters that each have a database of their
own. Ids stay handles of that database, and the cluster is addressed by name: so they mean the same
before and after a stand-in is put in its place or taken away, and to tables that refer to them
(B4).

Methods return Deferreds, have Buildbot's signatures, and raise its exceptions.
"""

from __future__ import annotations

from holdfast.buildbot.connectors.changesources import ChangeSourcesConnector
from holdfast.buildbot.connectors.claims import Claims, PlainClaims
from holdfast.buildbot.connectors.state import LOCAL_KEYS, StateConnector

__all__ = ["LOCAL_KEYS", "ChangeSourcesConnector", "Claims", "PlainClaims", "StateConnector"]
