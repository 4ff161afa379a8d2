"""Buildbot on a cluster: masters that share the ownership of their change sources.

``Holdfast`` is the plug-in, for ``c['services']`` of a ``master.cfg``; ``connectors`` are stand-ins
for two of Buildbot's database connectors; ``sql`` moves state from and into Buildbot's databases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.buildbot.service import Holdfast

__all__ = ["Holdfast"]


def __getattr__(name: str) -> Any:
    # Not before it is asked for: what moves state needs no Buildbot, and no cluster.
    if name == "Holdfast":
        from holdfast.buildbot.service import Holdfast

        return Holdfast
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
