"""`inv backup.restore`: what would be replaced, by what, on which servers; then the servers do it by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backup.client import Client
from backup.commands import identity_request
from backup.hosts import Done, on_each, saving, settled
from backup.progress import Printer
from backup.settings import backup_of
from ops.config import Environment
from ops.errors import ConfigError, NeedsPerson, Refused
from ops.who import who

Environ = Mapping[str, str]


@dataclass(frozen=True)
class Replaced:
    """One source that a restore would replace: where, what it is now, and what the backup has instead."""

    server: str
    source: str
    what: str
    taken: str
    rows: int
    release: str


def plan(env: Environment, environ: Environ, id: str, only: Sequence[str]) -> list[Replaced]:
    """Say what a restore would replace. Raises ConfigError for sources that ops.toml does not have, Refused without the backup."""
    sources = backup_of(env).sources
    if unknown := sorted(set(only) - set(sources)):
        raise ConfigError(f"no source is called {', '.join(unknown)}", why=f"known are {', '.join(sources)}")
    done = on_each(env, lambda client: client.call("list"), settled(env, environ))
    if done.errors:
        raise next(iter(done.errors.values()))
    found = [
        Replaced(server, item["source"], _place(env, item["source"]), one["started"], sum(item["counts"].values()), one["release"])
        for server, listed in done.results.items() for one in listed["backups"] if one["id"] == id
        for item in one["items"] if not only or item["source"] in only
    ]  # fmt: skip
    if not found:
        raise Refused(f"no server has {id}" + (f" with {', '.join(only)}" if only else ""), fix=f"inv backup.list -e {env.name}")
    return found


def left_alone(env: Environment, planned: Sequence[Replaced]) -> list[str]:
    """Return the servers where nothing is restored: the app there is not paused, and writes on."""
    return [host.name for host in env.hosts if host.name not in {one.server for one in planned}]


def require_one_writer(env: Environment, planned: Sequence[Replaced]) -> None:
    """Refuse to replace a database that the app on other servers writes to as well: they are not paused. Raises Refused."""
    shared = sorted({one.source for one in planned if (known := backup_of(env).sources.get(one.source)) and not known.each})
    if shared and (others := left_alone(env, planned)):
        raise Refused(f"the app on {', '.join(others)} writes to {', '.join(shared)} as well and would not be paused",
                      why="what it writes until the restore is certain could be lost",
                      fix="stop the app's containers there first, then restore with --force")  # fmt: skip


def _place(env: Environment, source: str) -> str:
    """Return what a source is, as ops.toml has it."""
    known = backup_of(env).sources.get(source)
    if known is None:
        return "no longer in ops.toml"
    if known.database or known.container or known.address:
        return f"database {known.database or known.user or ''} in {known.container or known.address}"
    return f"{known.path or '/'} in volume {known.volume}" if known.volume else str(known.path)


def restore(
    env: Environment, environ: Environ, printer: Printer, id: str, planned: Sequence[Replaced], *, force: bool, skip_safety: bool
) -> Done:
    """Restore on every server that the plan names; each undoes itself when it fails or is cut off."""
    words = ["--by", who(), *(["--force"] if force else []), *(["--skip-safety"] if skip_safety else [])]
    request = identity_request(env, environ)
    hosts = tuple(host for host in saving(env) if host.name in {one.server for one in planned})

    def work(client: Client) -> Any:
        only = ",".join(one.source for one in planned if one.server == client.name)
        return client.call("restore", id, "--only", only, *words, request=request,
                           on_event=lambda event: printer.event(client.name, event))  # fmt: skip

    with printer:
        done = on_each(env, work, settled(env, environ), hosts)
    if done.results and done.errors:
        mixed = f"{', '.join(done.results)} has the restored data, {', '.join(done.errors)} its own"
        back = "; ".join(f"inv backup.restore {one['safety']}" for one in done.results.values() if one.get("safety"))
        errors = {name: NeedsPerson(mixed, where=name, why=str(error), fix=f"restore again, or go back: {back}")
                  for name, error in done.errors.items()}  # fmt: skip
        return Done(done.results, errors)
    return done
