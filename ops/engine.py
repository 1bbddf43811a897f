"""The Docker SDK on a unix socket, local or forwarded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import APIClient

# The SDK imports paramiko (0.3 s) for its own ssh:// transport, which is not used here; a deploy is timed.
_held_back = sys.modules.get("paramiko")
if _held_back is None:
    sys.modules["paramiko"] = None  # type: ignore[assignment]  # the documented way to make an import fail
try:
    import docker
    from docker import errors
finally:
    if _held_back is None:
        del sys.modules["paramiko"]

EngineError = errors.APIError
NotFound = errors.NotFound


def connect(socket: Path, version: str, timeout: float = 60.0) -> APIClient:
    """Return a client for the engine behind a socket; `version` (as the engine named it) saves the round trip of asking."""
    return docker.APIClient(base_url=f"unix://{socket}", version=version, timeout=timeout)  # type: ignore[arg-type]  # fractions are fine
