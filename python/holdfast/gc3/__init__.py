"""GC3Pie's jobs on a cluster.

Importing this module lets GC3Pie make stores of URLs such as
``holdfast://127.0.0.1:7480/jobs?peers=127.0.0.1:7490``: a session's ``store_or_url``, or the option
``-u`` of a session-based script. GC3Pie's own tools import nothing of ours; the command
``holdfast-gc3`` runs them with these stores registered.

``store`` the store, and which of its errors GC3Pie must not ignore · ``errors`` what is GC3Pie's
error as well as ours · ``trust`` what of a store is unpickled, from the environment · ``launcher``
the command.
"""

from __future__ import annotations

from holdfast.gc3.errors import LoadError, UnusableKey
from holdfast.gc3.store import HoldfastStore, register
from holdfast.persistence.errors import StoreUnavailable

__all__ = ["HoldfastStore", "LoadError", "StoreUnavailable", "UnusableKey"]

register()
