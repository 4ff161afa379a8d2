"""Objects as files of a directory, without a server.

``format`` the bytes of a file · ``directory`` what is in the directory, and how it changes ·
``next_id`` what it gives out · ``store`` the store. The Rust client keeps the same directories.
Many processes may use one, on one machine or over a file system that has locks (NFS 4 and later).
"""

from __future__ import annotations

from holdfast.persistence.files.store import FilesystemStore

__all__ = ["FilesystemStore"]
