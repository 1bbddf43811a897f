"""What the sandbox writes for the rest of Tidegate: host keys and an environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from deploy.sandbox_server import SandboxServer

USER = "deploy"


def known_hosts(servers: Sequence[SandboxServer]) -> str:
    """Render the servers' host keys the way OpenSSH reads them."""
    return "".join(f"[{server.address}]:{server.ssh_port} {server.host_key}\n" for server in servers)


def fragment(name: str, domain: str, servers: Sequence[SandboxServer]) -> str:
    """Render the servers as an environment of the configuration."""
    lines = [
        "# Written by `inv sandbox.up`; `inv sandbox.down` removes it.",
        f"[environments.{_key(name)}]",
        f"domain = {_text(domain)}",
        f"known_hosts = {_text(f'.tidegate/{name}/known_hosts')}",
        "hosts = [",
        *(f"    {_host(server, name)}," for server in servers),
        "]",
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file as a whole, or leave it alone where it says the same already."""
    if path.is_file() and path.read_text() == text:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode)
    draft.chmod(mode)
    draft.write_text(text)
    draft.replace(path)


def _host(server: SandboxServer, name: str) -> str:
    pairs = {
        "address": _text(server.address),
        "port": str(server.ssh_port),
        "user": _text(USER),
        "identity": _text(f".tidegate/{name}/id_ed25519"),
        "url": _text(server.url),
        **({"private": _text(server.private)} if server.private else {}),
    }
    return "{ " + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + " }"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a TOML basic string has JSON's escapes
