"""Client of Holdfast, a Raft-replicated store of coordination state.

Nothing here connects at import or in a constructor (B2).
"""

from __future__ import annotations
