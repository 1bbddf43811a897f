"""An `ssh` that runs the remote command on this machine, and what tests of connections share."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ops.config import App, Environment, HostAddress

if TYPE_CHECKING:
    import pytest

HOST = HostAddress(address="server.invalid", user="deploy")
SSH = """#!/bin/sh
{before}
while [ "$1" != "--" ]; do shift; done
shift 2
exec sh -c "$1"
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
        program = programs / "ssh"
        program.write_text(SSH.format(before=before))
        program.chmod(0o755)

    write()
    return write


def install_sudo(folder: Path) -> Path:
    """Put a `sudo` beside that `ssh` which asks nothing, changes nothing and writes what it ran into the file returned."""
    log = folder / "sudo.log"
    program = folder / "bin" / "sudo"
    program.write_text(SUDO.format(log=log))
    program.chmod(0o755)
    return log


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something holds; tell whether it did in time."""
    tries = threading.Event()
    return any(condition() or tries.wait(0.02) for _ in range(int(seconds / 0.02)))
