"""The command ``holdfast-gc3``: GC3Pie's tools, and scripts, with our stores registered.

Importing the package that this module is in has registered them.
"""

from __future__ import annotations

import os
import runpy
import sys

from gc3utils.frontend import main as run_tool

_USAGE = """\
usage: holdfast-gc3 TOOL|SCRIPT [ARGUMENTS]

Runs a tool of GC3Pie, or a script that uses it, with the stores of Holdfast registered:

  holdfast-gc3 gstat -s SESSION
  holdfast-gc3 ./jobs.py -s SESSION -u holdfast://127.0.0.1:7480/jobs

TOOL is one of GC3Pie's: gstat, gget, gkill, gclean, ginfo, gselect, gsession and others.
SCRIPT is the path of a file.
"""


def main() -> int:
    """Runs what the command line names; gives its exit status."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments else sys.stderr).write(_USAGE)
        return 0 if arguments else 2
    sys.argv = arguments
    if os.path.isfile(arguments[0]):
        # As the interpreter does it for a script.
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")
        return 0
    status: int | None = run_tool()
    return status or 0
