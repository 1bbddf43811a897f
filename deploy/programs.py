"""Programs of this machine that look at an app: found, run, and said how to be installed when missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.errors import Refused
from ops.this_machine import tail

PATIENCE = 900.0
INSTALL = {
    "pip-audit": "pipx install pip-audit",
    "cargo-audit": "cargo install cargo-audit --locked",
    "npm": "install Node.js with npm: apt-get install npm",
}


def which(name: str) -> str | None:
    """Return where a program is: beside this Python, on the PATH, or where cargo installs."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), str(Path("~/.cargo/bin").expanduser())]
    return shutil.which(name, path=os.pathsep.join(places))


def find(name: str) -> str:
    """Return where a program is. Raises Refused with the command that installs it."""
    if program := which(name):
        return program
    raise Refused(f"{name} is not installed", fix=INSTALL[name])


def run(command: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder until it ends. Raises Refused when it takes too long."""
    ours: Mapping[str, str] = {**os.environ, **environment}
    try:
        return subprocess.run(
            command, cwd=folder, env=ours, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        name = Path(command[0]).name
        raise Refused(f"{name} did not end within {PATIENCE:g} s", fix="run it again when the network is better") from error


def said(done: subprocess.CompletedProcess[str], lines: int = 1) -> str:
    """Return the last lines that a program wrote before it failed."""
    return tail(done.stderr, lines) or tail(done.stdout, lines) or f"exit code {done.returncode}, and not a word"
