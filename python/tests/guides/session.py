"""The interpreter in which the Python blocks of a guide run, one after the other.

Each line of standard input is a block, ``{"where": …, "code": …}`` in JSON; each is answered by
``{"output": …, "error": …}``: what it printed, and the traceback of what it raised, or null.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import os
import sys
import traceback
import types


def main() -> None:
    # What a block starts may print, but answers are ours alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # A module, so that what the guide's classes make can be pickled and loaded again.
    guide = types.ModuleType("__main__")
    sys.modules["__main__"] = guide
    for line in sys.stdin:
        block = json.loads(line)
        printed = io.StringIO()
        error = None
        # So that a traceback shows the lines of the guide.
        lines = block["code"].splitlines(keepends=True)
        linecache.cache[block["where"]] = (len(block["code"]), None, lines, block["where"])
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(block["code"], block["where"], "exec"), guide.__dict__)
        except BaseException:  # also a SystemExit is an answer
            error = traceback.format_exc()
        answers.write(json.dumps({"output": printed.getvalue(), "error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
