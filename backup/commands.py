"""What `inv backup.…` does, one function a command; each tells a printer what happens where."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backup.agent.model import CHECKSUMS, LEVELS, new_id
from backup.client import Client
from backup.fetch import fetch as fetch_backups
from backup.hosts import Done, on_each, settled
from backup.progress import Printer
from backup.settings import backup_of
from ops.config import Environment
from ops.errors import ConfigError, Refused
from ops.secrets import resolve_secrets
from ops.who import who

ASKED_FOR = ("manual", "daily", "weekly", "monthly")

Environ = Mapping[str, str]


def run(env: Environment, environ: Environ, printer: Printer, kind: str = "manual") -> Done:
    """Take a backup on every server that has something to save, all under one id."""
    _one_of("--type", kind, ASKED_FOR)
    id = new_id(datetime.now(UTC), secrets.token_hex(3))
    return _ask(env, environ, printer, "run", "--types", kind, "--id", id, "--by", who())


def listing(env: Environment, environ: Environ, printer: Printer) -> Done:
    """List the backups; no secret is needed for that."""
    return _ask(env, None, printer, "list")


def status(env: Environment, environ: Environ, printer: Printer) -> Done:
    """Say how backups stand."""
    return _ask(env, environ, printer, "status")


def verify(env: Environment, environ: Environ, printer: Printer, id: str = "", level: str = "full") -> Done:
    """Verify a backup, the newest where none is named."""
    _one_of("--level", level, LEVELS)
    request = identity_request(env, environ) if level != CHECKSUMS else {}
    return _ask(env, environ, printer, "verify", *([id] if id else []), "--level", level, request=request).where_it_is(id)


def prune(env: Environment, environ: Environ, printer: Printer, *, dry_run: bool = False, thaw: bool = False) -> Done:
    """Delete what the policy does not keep; with `thaw` also where it stopped because something looks wrong."""
    return _ask(env, environ, printer, "prune", *(["--dry-run"] if dry_run else []), *(["--thaw"] if thaw else []))


def explain(env: Environment, environ: Environ, printer: Printer) -> Done:
    """Give the reason for every backup kept or due."""
    return _ask(env, environ, printer, "explain")


def pin(env: Environment, environ: Environ, printer: Printer, id: str, note: str) -> Done:
    """Keep a backup whatever the policy says."""
    return _ask(env, None, printer, "pin", id, note).where_it_is(id)


def unpin(env: Environment, environ: Environ, printer: Printer, id: str) -> Done:
    """Leave a backup to the policy again."""
    return _ask(env, None, printer, "unpin", id).where_it_is(id)


def fetch(env: Environment, environ: Environ, printer: Printer, id: str, to: str = "") -> Done:
    """Bring a backup here from every server that has it."""
    return fetch_backups(env, printer, _folder(env, to), id).where_it_is(id)


def pull(env: Environment, environ: Environ, printer: Printer, to: str = "") -> Done:
    """Bring every good backup here that is not here yet."""
    return fetch_backups(env, printer, _folder(env, to))


def _folder(env: Environment, to: str) -> Path:
    backup_of(env)
    return Path(to).absolute() if to else env.project_root / ".tidegate" / "backups" / env.name


def elsewhere(env: Environment, environ: Environ, printer: Printer) -> Done:
    """List what is in the second store."""
    return _ask(env, environ, printer, "elsewhere")


def retrieve(env: Environment, environ: Environ, printer: Printer, id: str) -> Done:
    """Bring a backup back from the second store to the servers that saved it there."""
    return _ask(env, environ, printer, "retrieve", id)


def undo_restore(env: Environment, environ: Environ, printer: Printer) -> Done:
    """Finish a restore that died, on every server, whatever ops.toml has become since."""

    def work(client: Client) -> Any:
        try:
            return client.call("restore-undo", on_event=lambda event: printer.event(client.name, event))
        except Refused as refused:
            if refused.what.startswith("there are no settings"):
                return {"id": None, "result": "nothing to undo"}
            raise

    with printer:
        return on_each(env, work, None, env.hosts)


def install(env: Environment, environ: Environ, printer: Printer) -> Done:
    """Put the program and its settings on the servers."""
    return on_each(env, Client.ensure, settled(env, environ))


def identity_request(env: Environment, environ: Environ) -> dict[str, Any]:
    """Return what a server needs to read encrypted backups, for one command only."""
    name = backup_of(env).identity
    return {"identity": resolve_secrets(env, (name,), environ)[name].reveal()} if name else {}


def _ask(env: Environment, environ: Environ | None, printer: Printer, command: str, *arguments: str,
         request: Mapping[str, Any] | None = None) -> Done:  # fmt: skip
    """Ask all servers the same; with `environ`, they are told the settings that ops.toml has now."""
    backup_of(env)

    def work(client: Client) -> Any:
        return client.call(command, *arguments, request=request, on_event=lambda event: printer.event(client.name, event))

    with printer:
        return on_each(env, work, settled(env, environ) if environ is not None else None)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{option} {value} is not one of {', '.join(known)}", fix=f"{option} {known[0]}")
