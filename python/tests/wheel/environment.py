"""A virtual environment to install the wheel into, which nothing else reaches."""

from __future__ import annotations

import pathlib
import subprocess
import sys


class Environment:
    """An empty virtual environment; what runs in it knows no other Python and no index.

    Args:
        root: where it is made.
        wheels: the one directory that ``pip`` looks for packages in.
    """

    def __init__(self, root: pathlib.Path, wheels: pathlib.Path) -> None:
        self.root = root
        self.wheels = wheels
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)

    def run(self, program: str, *arguments: str, **variables: str) -> str:
        """What a program of this environment prints; fails as it fails."""
        return self._run([str(self.root / "bin" / program), *arguments], variables)

    def python(self, program: str, **variables: str) -> str:
        """What a Python program prints."""
        return self.run("python", "-c", program, **variables)

    def install(self, *options: str, **variables: str) -> None:
        """Installs the wheel."""
        where = ["--no-index", "--find-links", str(self.wheels)]
        self.pip("install", *where, *options, "holdfast", **variables)

    def pip(self, *arguments: str, **variables: str) -> None:
        """Runs the pip of these tests on this environment."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        self._run([*pip, "--python", str(self.root), *arguments], variables)

    def files(self) -> set[str]:
        """The paths of all files and directories."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def _run(self, command: list[str], variables: dict[str, str]) -> str:
        done = subprocess.run(
            command,
            env={"PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "HOME": str(self.root), **variables},
            cwd=self.root,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout
