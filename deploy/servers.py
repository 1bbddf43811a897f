"""Servers of an environment: making them ready, checking them, trusting their keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import bootstrap
from deploy.docker_server import DockerServer
from deploy.edge_setup import ensure_edge
from deploy.model import ImageRef
from deploy.session import Doorstep, Session
from deploy.ship import Shipper
from ops.bases import ensure_base
from ops.config import Environment, HostAddress
from ops.errors import Failed, TidegateError
from ops.link import Link, ssh_options
from ops.names import EDGE, EDGE_HOME, HOME, STATUS_PORT
from ops.this_machine import local_client

Say = Callable[[str, str], None]
_EDGE_WORK = "network, edge nginx and its files are checked and brought up to date"


def make_ready(env: Environment, say: Say, confirm: Callable[[str, Sequence[str]], bool]) -> bool:
    """Bring every server to where a deploy can begin; returns whether all was agreed to. Raises TidegateError.

    All servers are looked at and asked about, each once and with all that will be done, before the first is changed.
    """
    missing = {host: bootstrap.survey(env, host) for host in env.servers}
    if not all(confirm(host.name, _announced(lacks, edge=host in env.hosts)) for host, lacks in missing.items()):
        return False
    for host, lacks in missing.items():
        if lacks:
            bootstrap.carry_out(env, host, lacks, say)
    _ensure_edges(env, say)
    return True


def _announced(missing: Sequence[bootstrap.Missing], *, edge: bool) -> list[str]:
    lacks = [one.what for one in missing] or ["packages, engine and folders are there"]
    return [*lacks, *([_EDGE_WORK] if edge else [])]


def _ensure_edges(env: Environment, say: Say) -> None:
    with (
        Session(env, ships=True) as session,
        Shipper(_door(session), session.state, lambda: local_client().api) as shipper,
        ThreadPoolExecutor(len(env.hosts)) as pool,
    ):
        list(pool.map(lambda link: _ensure_edge(env, link, shipper, say), session.links))


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


def check(env: Environment, program: tuple[str, str] | None = None) -> list[Finding]:
    """Look at every server, at once; `program` is the path and the digest of one that is to be there."""
    with ThreadPoolExecutor(len(env.hosts)) as pool:
        return [finding for found in pool.map(lambda host: _check(env, host, program), env.hosts) for finding in found]


def _check(env: Environment, host: HostAddress, program: tuple[str, str] | None) -> list[Finding]:
    link = Link(env, host)
    try:
        hello = link.hello()
        facts = link.call("facts", folders=[HOME, EDGE_HOME, f"{HOME}/{env.app.name}"], ports=[80, 443, STATUS_PORT])
        edge = link.call("state_of", container=EDGE) if "error" not in hello["engine"] else None
        found = _findings(env, hello, facts, edge)
        found += [_program(link.call("digest", path=program[0]), program[1])] if program else []
        return [Finding(host.name, *one) for one in found]
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


def _program(there: str | None, ours: str) -> tuple[str, bool | None, str]:
    """Return the version of the backup program; another one is replaced before it is used."""
    if there is None:
        return "backup program", None, "not there yet: inv server.bootstrap, or the next backup installs it"
    same = there == ours
    return (
        "backup program",
        True if same else None,
        there[:12] + ("" if same else f", ours is {ours[:12]}: the next backup installs it"),
    )


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
    """What a server shows of itself: lines for known_hosts and their fingerprints, and whether we trust it already.

    `changed` has the fingerprints of other keys of the same type that known_hosts holds for it.
    """

    server: str
    lines: tuple[str, ...]
    fingerprints: tuple[str, ...]
    trusted: bool
    changed: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """What to tell before anybody agrees; nothing where the key is new or known."""
        if not self.changed:
            return ""
        return f"CHANGED, was {', '.join(self.changed)}: unless the server was installed anew, stop, it may not be yours"


def fetch_keys(env: Environment, host: HostAddress) -> HostKeys:
    """Ask a server for its host key the way ssh would meet it, without logging in. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="tidegate-") as folder:
        file = Path(folder) / "known_hosts"
        replaced = [_instead(word, file) for word in ssh_options(env, host)]
        done = subprocess.run(["ssh", *replaced, "-o", "PreferredAuthentications=none", "-o", "HashKnownHosts=no",
                               "-o", "GlobalKnownHostsFile=/dev/null", "--", host.address, "true"],
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
    known = _known(env.known_hosts)
    changed = tuple(_fingerprint(key) for line in known for key in _replaced(line, lines))
    trusted = not changed and all(any(_is_same(old, line) for old in known) for line in lines)
    return HostKeys(host.name, lines, tuple(shown.splitlines()), trusted, changed)


def _instead(word: str, file: Path) -> str:
    if word.startswith("UserKnownHostsFile="):
        return f'UserKnownHostsFile="{file}"'
    return "StrictHostKeyChecking=accept-new" if word == "StrictHostKeyChecking=yes" else word


def trust(env: Environment, keys: HostKeys) -> None:
    """Put a server's keys into the environment's known_hosts, in place of others of the same type for it."""
    path = env.known_hosts.resolve()
    kept = [line for old in _known(path) if (line := _without(old, keys.lines)) is not None]
    new = [line for line in keys.lines if not any(_is_same(old, line) for old in kept)]
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch()
    draft.chmod(path.stat().st_mode & 0o7777 if path.exists() else 0o644)
    draft.write_text("".join(f"{line}\n" for line in [*kept, *new]), encoding="utf-8", errors="surrogateescape")
    draft.replace(path)


def _known(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if path.exists() else []


def _parts(line: str) -> tuple[str, str, str]:
    """Return the hosts, type and key of a line; nothing for comments and for @cert-authority or @revoked."""
    words = line.split()
    return (words[0], words[1], words[2]) if len(words) > 2 and words[0][0] not in "#@" else ("", "", "")


def _names(pattern: str, name: str) -> bool:
    """Say whether one entry of a line's hosts, plain or hashed, is that name."""
    if not pattern.startswith("|1|"):
        return pattern.lower() == name.lower()
    try:
        salt, digest = (base64.b64decode(part) for part in pattern.split("|")[2:4])
    except ValueError:  # damaged; ssh passes over it too
        return False
    return hmac.digest(salt, name.encode(), "sha1") == digest


def _shared(old: str, new: str) -> list[str]:
    """Return the entries of an old line's hosts that a new line of the same type is about."""
    (patterns, old_type, _), (names, new_type, _) = _parts(old), _parts(new)
    if not new_type or old_type != new_type:
        return []
    return [one for one in patterns.split(",") if any(_names(one, name) for name in names.split(","))]


def _is_same(old: str, new: str) -> bool:
    return bool(_shared(old, new)) and _parts(old)[2] == _parts(new)[2]


def _replaced(old: str, lines: Sequence[str]) -> list[str]:
    """Return the key of an old line if one of the lines puts another in its place."""
    key = _parts(old)[2]
    return [key] if any(_shared(old, new) and _parts(new)[2] != key for new in lines) else []


def _without(old: str, lines: Sequence[str]) -> str | None:
    """Return an old line for those of its hosts that keep its key; None when none does."""
    gone = {one for new in lines if not _is_same(old, new) for one in _shared(old, new)}
    if not gone:
        return old
    hosts, _, rest = old.strip().partition(" ")
    left = [one for one in hosts.split(",") if one not in gone]
    return f"{','.join(left)} {rest}" if left else None


def _fingerprint(key: str) -> str:
    """Return a key's fingerprint as ssh shows it."""
    try:
        blob = base64.b64decode(key)
    except ValueError:
        return "a key that cannot be read"
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
