"""What tests of a stack on an engine share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitoring.files import PROJECT
from monitoring.server import COMPOSE
from tests.local_ssh import install_ssh

if TYPE_CHECKING:
    import pytest

# Lines of an `ssh` that forwards the engine's socket: a link to it is one.
_FORWARD = 'for word; do case "$word" in */engine.sock:*) ln -s "${word#*:}" "${word%%:*}";; esac; done'


def container(service: str, state: str = "running", status: str = "Up") -> dict[str, Any]:
    """Return what an engine's list says of a container of the stack."""
    labels = {f"{COMPOSE}.project": PROJECT, f"{COMPOSE}.service": service}
    return {"Id": f"{service}-id", "Names": [f"/{PROJECT}-{service}-1"], "State": state, "Status": status, "Labels": labels}


def install_forwarding_ssh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an `ssh` that leads to this machine and its engine's socket."""
    install_ssh(folder, monkeypatch)(_FORWARD)
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent))  # the name of a socket has 107 characters at most
