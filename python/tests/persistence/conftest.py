"""Stores to test: ``open_store(place, **options)`` opens the store of a place.

The same place twice is the same objects, as two processes would see them; another place is empty.
"""

from __future__ import annotations

import pytest

from holdfast.persistence import FilesystemStore


@pytest.fixture(params=["files"])
def open_store(request, tmp_path):
    def open_files(place="store", **options):
        return FilesystemStore(tmp_path / place, **options)

    return {"files": open_files}[request.param]
