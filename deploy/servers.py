"""Servers of an environment: making them ready, checking them, trusting their keys."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import bootstrap
from deploy.bases import ensure_base
from deploy.docker_server import DockerServer
from deploy.edge_setup import ensure_edge
from deploy.model import EDGE, EDGE_HOME, HOME, STATUS_PORT, ImageRef
from deploy.session import Doorstep, Session
from deploy.ship import Shipper
from deploy.this_machine import local_client
from ops.config import Environment, HostAddress
from ops.errors import Failed, TidegateError
from ops.link import Link, ssh_options

Say = Callable[[str, str], None]


def make_ready(env: Environment, say: Say, confirm: Callable[[str, Sequence[str]], bool]) -> bool:
    """Bring every server to where a deploy can begin; returns whether all was agreed to. Raises TidegateError."""
    agreed = [bootstrap.prepare(env, host, say, confirm) for host in env.hosts]
    if not all(agreed):
        return False
    with (
        Session(env, ships=True) as session,
        Shipper(_door(session), session.state, lambda: local_client().api) as shipper,
        ThreadPoolExecutor(len(env.hosts)) as pool,
    ):
        list(pool.map(lambda link: _ensure_edge(env, link, shipper, say), session.links))
    return True


def _door(session: Session) -> Doorstep:
    assert session.door, "a session that ships has one"
    return session.door


def _ensure_edge(env: Environment, link: Link, shipper: Shipper, say: Say) -> None:
    server = DockerServer(env, link, shipper, lambda done, total: None)

    def receive(image: str) -> None:
        ensure_base(image, lambda text: say(link.name, text))
        server.receive(ImageRef(image, image.rpartition(":")[2], ""))

    ensure_edge(link, server.engine, receive, lambda text: say(link.name, text))


@dataclass(frozen=True)
class Finding:
    """One thing checked on a server: `ok` is None where it is only told."""

    server: str
    what: str
    ok: bool | None
    found: str


def check(env: Environment) -> list[Finding]:
    """Look at every server, at once."""
    with ThreadPoolExecutor(len(env.hosts)) as pool:
        return [finding for found in pool.map(lambda host: _check(env, host), env.hosts) for finding in found]


def _check(env: Environment, host: HostAddress) -> list[Finding]:
    link = Link(env, host)
    try:
        hello = link.hello()
        facts = link.call("facts", folders=[HOME, EDGE_HOME, f"{HOME}/{env.app.name}"], ports=[80, 443, STATUS_PORT])
        edge = link.call("state_of", container=EDGE) if "error" not in hello["engine"] else None
        return [Finding(host.name, what, ok, found) for what, ok, found in _findings(env, hello, facts, edge)]
    except TidegateError as error:
        return [Finding(host.name, "reachable", False, str(error))]
    finally:
        link.close()


def _findings(
    env: Environment, hello: dict[str, Any], facts: dict[str, Any], edge: str | None
) -> list[tuple[str, bool | None, str]]:
    engine = hello["engine"]
    disk, memory = facts["disk"], facts["memory"]
    ours = edge == "running"
    ports = [port for port in (80, 443) if port in facts["listening"]]
    return [
        ("reachable", True, f"as {facts['user']}, host key trusted"),
        ("python3", True, facts["python"]),
        ("engine", "error" not in engine, engine.get("error") or f"{engine['Version']}, API {engine['ApiVersion']}"),
        ("edge nginx", ours, edge or "missing: inv server.bootstrap"),
        ("ports 80, 443", ours or not ports, "ours" if ours else f"taken: {ports}" if ports else "free"),
        ("disk", disk["free"] > 2 * 1024**3, f"{disk['free'] / 1e9:.1f} of {disk['total'] / 1e9:.1f} GB free"),
        ("memory", memory["free"] > 128 * 1024**2, f"{memory['free'] / 1e6:.0f} of {memory['total'] / 1e6:.0f} MB free"),
        ("clock", abs(hello["skew"]) < 5, f"{hello['skew']:+.1f} s from ours"),
        ("zstd", facts["zstd"], "there" if facts["zstd"] else "missing: inv server.bootstrap"),
        *(_folder(path, known) for path, known in facts["folders"].items()),
    ]  # fmt: skip


def _folder(path: str, known: dict[str, Any] | None) -> tuple[str, bool | None, str]:
    if known is None:
        return (path, None if path != HOME else False, "not there yet" if path != HOME else "missing: inv server.bootstrap")
    wanted = 0o711 if path == HOME else 0o700
    return (
        path,
        known["mode"] == wanted and known["writable"],
        f"{known['mode']:04o}" + ("" if known["writable"] else ", not ours"),
    )


@dataclass(frozen=True)
class HostKeys:
    """What a server shows of itself: lines for known_hosts and their fingerprints, and whether we trust it already."""

    server: str
    lines: tuple[str, ...]
    fingerprints: tuple[str, ...]
    trusted: bool


def fetch_keys(env: Environment, host: HostAddress) -> HostKeys:
    """Ask a server for its host key the way ssh would meet it, without logging in. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="tidegate-") as folder:
        file = Path(folder) / "known_hosts"
        replaced = [_instead(word, file) for word in ssh_options(env, host)]
        done = subprocess.run(["ssh", *replaced, "-o", "PreferredAuthentications=none", "-o", "HashKnownHosts=no", "--", host.address, "true"],
                              capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
        lines = tuple(file.read_text().splitlines()) if file.exists() else ()
        if not lines:
            raise Failed(
                "the server showed no host key",
                where=host.name,
                why=done.stderr.strip(),
                fix="check address and port in ops.toml",
            )
        shown = subprocess.run(["ssh-keygen", "-l", "-f", str(file)], capture_output=True, text=True, check=True).stdout
    return HostKeys(host.name, lines, tuple(shown.splitlines()), _trusted(env, lines))


def _instead(word: str, file: Path) -> str:
    if word.startswith("UserKnownHostsFile="):
        return f'UserKnownHostsFile="{file}"'
    return "StrictHostKeyChecking=accept-new" if word == "StrictHostKeyChecking=yes" else word


def _trusted(env: Environment, lines: tuple[str, ...]) -> bool:
    known = env.known_hosts.read_text().splitlines() if env.known_hosts.exists() else []
    return set(lines) <= set(known)


def trust(env: Environment, keys: HostKeys) -> None:
    """Add a server's keys to the environment's known_hosts."""
    with env.known_hosts.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in keys.lines)
