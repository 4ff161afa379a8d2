"""Guides whose code runs: the fenced blocks of a page, in order, on a real cluster.

What becomes of a block:

| block | |
|---|---|
| `sh` | runs in the guide's directory, and stops at the first command that fails |
| any that begins with a comment that is a file's name, such as `# jobs.py` | is written there |
| `python` | runs in one interpreter for the whole guide, so that blocks continue each other |
| `text` | nothing: something that is shown |

A line that ends in `#=> text` says what is printed: those texts are, in their order, lines of the
block's output; `…` stands for anything. Other lines may be between them.

In the page the cluster is at 127.0.0.1:7480, 7490 and 7500, in the test where there is room.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE_ENDPOINTS = ("127.0.0.1:7480", "127.0.0.1:7490", "127.0.0.1:7500")
BLOCK_SECONDS = 60
"""How long one block may take; a hang must end, nothing is measured."""

_FENCE = re.compile(r"^```(\w*)[ ]*$")
_FILE = re.compile(r"^# ([\w-]+\.\w+)$")
_EXPECTED = re.compile(r"#=> ?(.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        where: page and line, to be found by.
        language: as the fence says.
        code: what is between the fences.
    """

    where: str
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The file that the block is the text of, if it is one."""
        named = _FILE.match(self.code.split("\n", 1)[0])
        return named[1] if named else None

    def check(self, output: str) -> None:
        """Fails unless the output has the lines that the block says, in their order."""
        lines = iter(output.splitlines())
        for expected in _EXPECTED.findall(self.code):
            pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
            found = any(re.fullmatch(pattern, line.strip()) for line in lines)
            assert found, f"{self.where}: no line {expected!r} (in this order) in\n{output}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page; fails on a fence that is left open."""
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    code: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, code = (number, fence[1]), []
        elif opened is not None and line == "```":
            found.append(Block(f"{page.name}:{opened[0]}", opened[1], "\n".join(code) + "\n"))
            opened = None
        else:
            code.append(line)
    assert opened is None, f"{page.name}:{opened[0]}: a block without an end"
    return found


class Guide:
    """A page that is being worked through.

    Args:
        directory: an empty one, where its files go and its programs run.
        endpoints: those of the cluster.
        environment: of its programs, beside ``PATH`` and ``PYTHONPATH``.
        binary: what ``holdfast`` is.
    """

    def __init__(
        self,
        directory: Path,
        endpoints: Sequence[str],
        environment: Mapping[str, str],
        binary: str,
    ) -> None:
        self.directory = directory
        self._endpoints = dict(zip(PAGE_ENDPOINTS, endpoints))
        tools = directory / ".tools"
        tools.mkdir()
        (tools / "holdfast").symlink_to(binary)
        path = [str(tools), str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
        self.environment = {
            **environment,
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(ROOT / "python"),
            "HOLDFAST_ENDPOINTS": ",".join(endpoints),
        }
        self._session: _Session | None = None

    def __enter__(self) -> Guide:
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._session.close()

    def run(self, block: Block) -> None:
        """Does with a block what is to be done with it."""
        block = dataclasses.replace(block, code=self._here(block.code))
        if block.file is not None:
            (self.directory / block.file).write_text(block.code, "utf-8")
        elif block.language == "sh":
            block.check(self._shell(block))
        elif block.language == "python":
            if self._session is None:
                self._session = _Session(self.directory, self.environment)
            block.check(self._session.run(block))
        else:
            assert block.language == "text", f"{block.where}: what is {block.language!r}?"

    def _here(self, code: str) -> str:
        for page, here in self._endpoints.items():
            code = code.replace(page, here)
        return code

    def _shell(self, block: Block) -> str:
        done = subprocess.run(
            ["sh", "-eu"],
            input=block.code,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=BLOCK_SECONDS,
        )
        assert done.returncode == 0, f"{block.where}: {done.stdout}{done.stderr}"
        return done.stdout


class _Session:
    """The interpreter of a guide: ``tests.guides.session`` in a process of its own."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.guides.session"],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, block: Block) -> str:
        """What the block prints; fails with the traceback of what it raises."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = json.dumps({"where": block.where, "code": block.code})
        timer = threading.Timer(BLOCK_SECONDS, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(asked.encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert answer, f"{block.where}: its interpreter ended, or did nothing for {BLOCK_SECONDS} s"
        done = json.loads(answer)
        assert done["error"] is None, f"{block.where}:\n{done['output']}{done['error']}"
        return str(done["output"])

    def close(self) -> None:
        """Ends the interpreter, as a program ends: clients are given up in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(BLOCK_SECONDS)
        finally:
            self._process.kill()
