"""The wheel, put where nothing else is, and what it says there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = "#!{python}\nimport sys\nfrom tidegate import main\nsys.exit(main())\n"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Program:
    """A command line, and the folder in which it is typed."""

    command: tuple[str, ...]
    folder: Path
    path: str = ""

    def __call__(self, *words: str, **extra: str) -> Done:
        """Run it to its end."""
        done = subprocess.run(
            [*self.command, *words], cwd=self.folder, env=self.environment(**extra), capture_output=True, text=True, check=False
        )
        assert "/invoke/program.py" not in done.stderr, done.stderr  # a traceback of ours
        return Done(done.returncode, done.stdout, done.stderr)

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the variables: none of ours, and no coverage, whose warnings are no words of the program."""
        mine = {
            key: value for key, value in os.environ.items() if not key.startswith(("TIDEGATE_", "COVERAGE_", "COV_", "INVOKE_"))
        }
        return {**mine, "PYTHONPATH": self.path, "COLUMNS": "120", **extra}


def unpack(wheel: Path, to: Path) -> Path:
    """Put a wheel's files and its script where an installer would; return the script."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(to)
    script = to / "bin/tidegate"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    return script
