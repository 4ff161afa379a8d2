"""The messages of the wire API, generated from ``proto/``: see ``python/generate_wire.py``.

They are not part of what users may rely on.
"""
