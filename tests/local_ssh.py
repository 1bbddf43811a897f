"""An `ssh` that runs the remote command on this machine, and what tests of connections share."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ops.config import App, Environment, HostAddress

if TYPE_CHECKING:
    import pytest

HOST = HostAddress(address="server.invalid", user="deploy")
MEASURED = "COVERAGE_PROCESS_CONFIG" in os.environ
SSH = """#!/bin/sh
{before}
while [ "$1" != "--" ]; do shift; done
shift 2
exec sh -c "$1"
"""
PYTHON = """#!/bin/sh
[ "$2" != -S ] || {{ shift 2; set -- -I "$@"; }}
exec {python} "$@"
"""
SUDO = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
shift
echo "$@" >> {log}
exec "$@"
"""


def environment(folder: Path, *hosts: HostAddress) -> Environment:
    """Return an environment of servers that are this machine."""
    return Environment(
        name="test",
        app=App(name="blog", port=3000),
        hosts=hosts or (HOST,),
        domains=("a.example",),
        known_hosts=folder / "known_hosts",
    )


def install_ssh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what puts an `ssh` first on the PATH that does something before it runs the remote command."""
    programs = folder / "bin"
    programs.mkdir()
    folders = folder / "folders"
    folders.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(folders))

    def write(before: str = "") -> None:
        _program(programs / "ssh", SSH.format(before=before))

    write()
    if MEASURED:  # coverage begins in the site module, which -S leaves out
        _program(programs / "python3", PYTHON.format(python=sys.executable))
    return write


def measured_python(folder: Path) -> str:
    """Return a python3 with coverage that begins where the data's names of files are relative to, wherever it is started."""
    program = folder / "bin" / "measured-python"
    _program(program, f'#!/bin/sh\ncd {Path(__file__).parents[1]}\nexec {sys.executable} "$@"\n')
    return str(program)


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def install_sudo(folder: Path) -> Path:
    """Put a `sudo` beside that `ssh` which asks nothing, changes nothing and writes what it ran into the file returned."""
    log = folder / "sudo.log"
    _program(folder / "bin" / "sudo", SUDO.format(log=log))
    return log


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something holds; tell whether it did in time."""
    tries = threading.Event()
    return any(condition() or tries.wait(0.02) for _ in range(int(seconds / 0.02)))
