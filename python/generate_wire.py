#!/usr/bin/env python3
"""Generates holdfast/_wire from the definitions in proto/, or looks whether it is up to date.

The generator is grpcio-tools 1.71.2: what it writes loads on protobuf 5.29 and the two majors
after it, what newer ones write locks users out (B1). Two things are mended:

- messages import each other by where they lie in the package, not by ``holdfast.v1``;
- stubs say of what a mapping is, so that ``mypy --strict`` takes them.

Service stubs are not generated: they have no types, and ``holdfast/_engine/calls.py`` names each
call with those of its messages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tempfile

TOOLS = "1.71.2"
HERE = pathlib.Path(__file__).resolve().parent
DEFINITIONS = HERE.parent / "proto" / "proto"
WIRE = HERE / "holdfast" / "_wire"


def generate() -> dict[str, str]:
    """The texts of all generated files, by name."""
    sources = sorted(DEFINITIONS.glob("holdfast/v1/*.proto"))
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{DEFINITIONS}"]
            + [f"--python_out={out}", f"--pyi_out={out}"]
            + [str(source) for source in sources],
            check=True,
        )
        written = pathlib.Path(out, "holdfast", "v1").iterdir()
        return {path.name: mend(path.read_text("utf-8")) for path in written}


def mend(text: str) -> str:
    """What the generator should have written."""
    text = text.replace("from holdfast.v1 import ", "from holdfast._wire import ")
    text = text.replace(", _Mapping]", ", _Mapping[str, _Any]]")
    if "_Any]" in text:
        text = text.replace("from typing import ", "from typing import Any as _Any, ", 1)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


def present() -> dict[str, str]:
    """The texts of the generated files that are in the tree."""
    return {path.name: path.read_text("utf-8") for path in WIRE.glob("*_pb2.py*")}


def main() -> None:
    """Writes or, with ``--check``, compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    arguments = parser.parse_args()
    found = importlib.metadata.version("grpcio-tools")
    if found != TOOLS:
        raise SystemExit(f"grpcio-tools {found} generates something else: install {TOOLS}")
    wanted, have = generate(), present()
    differing = sorted(
        name for name in wanted.keys() | have.keys() if wanted.get(name) != have.get(name)
    )
    if arguments.check and differing:
        raise SystemExit(f"out of date: {', '.join(differing)}: run {sys.argv[0]}")
    if not arguments.check:
        for name in differing:
            (WIRE / name).unlink(missing_ok=True)
        for name in differing:
            if name in wanted:
                (WIRE / name).write_text(wanted[name], "utf-8")


if __name__ == "__main__":
    main()
