"""What tests of a stack on an engine share."""

from __future__ import annotations

from typing import Any

from monitoring.files import PROJECT
from monitoring.server import COMPOSE

# Lines of an `ssh` that forwards the engine's socket: a link to it is one.
FORWARD = 'for word; do case "$word" in */engine.sock:*) ln -s "${word#*:}" "${word%%:*}";; esac; done'


def container(service: str, state: str = "running", status: str = "Up") -> dict[str, Any]:
    """Return what an engine's list says of a container of the stack."""
    labels = {f"{COMPOSE}.project": PROJECT, f"{COMPOSE}.service": service}
    return {"Id": f"{service}-id", "Names": [f"/{PROJECT}-{service}-1"], "State": state, "Status": status, "Labels": labels}
