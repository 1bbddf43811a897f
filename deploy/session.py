"""The connections of a command to its servers, opened before anything slow is loaded.

Only light imports here: ssh authenticates in its own process while the rest of the program is still being read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.config import Environment
from ops.errors import ConfigError
from ops.link import Link


@dataclass(frozen=True)
class Doorstep:
    """A loopback port that listens already, and the unguessable name of the repository behind it."""

    listener: socket.socket
    token: str

    @property
    def port(self) -> int:
        """Return the port."""
        return int(self.listener.getsockname()[1])


def cache_folder(root: Path) -> Path:
    """Return where a project's layers and registry are remembered: outside of it, where no build and no commit takes them in."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(named) if named.startswith("/") else Path("~/.cache").expanduser()
    return home / "tidegate" / hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]


def reserve(state: Path) -> Doorstep:
    """Listen on the port of last time if it is free: by that name the local engine remembers what it pushed."""
    memory = state / "registry.json"
    port, token = _recall(memory)
    door = Doorstep(_listen(port), token or secrets.token_hex(16))
    try:
        _remember(memory, door)
    except OSError as error:
        door.listener.close()
        fix = "set XDG_CACHE_HOME to a folder that can be written"
        raise ConfigError("the cache cannot be written", where=str(state), why=error.strerror or "", fix=fix) from None
    return door


def _remember(memory: Path, door: Doorstep) -> None:
    memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = memory.with_name(f"{memory.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps({"token": door.token, "port": door.port}))
    draft.replace(memory)


def _recall(memory: Path) -> tuple[int, str]:
    """Return the port and the name of last time; none where the file is not what we write."""
    try:
        known = json.loads(memory.read_text())
        port, token = int(known["port"]), str(known["token"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0, ""
    genuine = 0 < port < 65536 and re.fullmatch(r"[0-9a-f]{32}", token)
    return (port, token) if genuine else (0, "")


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError:
        return socket.create_server(("127.0.0.1", 0), backlog=64)


class Session:
    """An environment's servers, being connected; a context manager. With `ships`, they can reach back to us."""

    def __init__(self, env: Environment, *, ships: bool) -> None:
        self.env = env
        self.state = cache_folder(env.project_root)
        self.door = reserve(self.state) if ships else None
        port = self.door.port if self.door else None
        self.links = [Link(env, host, callback_port=port) for host in env.hosts]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: Any) -> None:
        with ThreadPoolExecutor(len(self.links)) as pool:
            list(pool.map(lambda link: link.close(), self.links))
        if self.door:
            self.door.listener.close()
