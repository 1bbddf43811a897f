"""One command on several servers at once: one that fails hides nothing of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from backup.client import Client
from backup.settings import needed_secrets, server_settings
from ops.config import Environment, HostAddress
from ops.errors import Failed, TidegateError
from ops.interrupts import no_more_interrupts, wait_for
from ops.link import Link
from ops.secret import Mask, Secret
from ops.secrets import resolve_secrets

_WORST_FIRST = (5, 70, 1, 6, 2, 4, 3)

Work = Callable[[Client], Any]


@dataclass(frozen=True)
class Done:
    """What each server answered, by its name, and what went wrong on the others."""

    results: Mapping[str, Any]
    errors: Mapping[str, TidegateError]

    @property
    def exit_code(self) -> int:
        """Return the exit code of the worst error."""
        codes = {error.exit_code for error in self.errors.values()}
        return next((code for code in _WORST_FIRST if code in codes), 0)

    def document(self) -> dict[str, Any]:
        """Return it for scripts."""
        errors = {
            name: {"error": error.what, "cause": error.why, "next": error.fix, "exit_code": error.exit_code}
            for name, error in self.errors.items()
        }
        return {"servers": dict(self.results), "errors": errors}

    def where_it_is(self, id: str) -> Done:
        """Leave out the servers that do not have a backup, unless none has it."""
        errors = {name: error for name, error in self.errors.items() if error.what != f"there is no backup {id}"}
        return Done(self.results, errors) if self.results or errors else self


def saving(env: Environment) -> tuple[HostAddress, ...]:
    """Return the hosts that have something to save."""
    backup = env.app.backup
    every = backup is not None and any(one.each for one in backup.sources.values())
    return env.hosts if every else env.hosts[:1]


def settled(env: Environment, environ: Mapping[str, str]) -> dict[str, Secret]:
    """Return the secrets that servers are told. Raises ConfigError for those without a value."""
    return resolve_secrets(env, needed_secrets(env), environ)


def on_each(env: Environment, work: Work, secrets: Mapping[str, Secret] | None, hosts: Sequence[HostAddress] = (),
            stop: threading.Event | None = None) -> Done:  # fmt: skip
    """Do something on every host that has something to save; with `secrets`, servers are told their settings first.

    Ctrl-C cancels it everywhere, sets `stop`, waits until all is undone and raises Failed.
    """
    chosen = hosts or saving(env)
    links = [Link(env, host) for host in chosen]
    with ThreadPoolExecutor(len(links)) as pool:
        clients = [Client(link, env, server_settings(env, link.host, secrets) if secrets is not None else None) for link in links]
        futures = [pool.submit(_attempt, work, client, secrets or {}) for client in clients]
        try:
            wait_for(futures)
        except KeyboardInterrupt:
            no_more_interrupts()
            if stop:
                stop.set()
            for link in links:
                link.cancel()
            said = "; ".join(f"{client.name}: {future.result()}" for client, future in zip(clients, futures, strict=True))
            raise Failed("interrupted", where=env.name, why=said, fix=f"inv backup.status -e {env.name}") from None
        finally:
            wait(futures)
            list(pool.map(Link.close, links))
    found = {client.name: future.result() for client, future in zip(clients, futures, strict=True)}
    return Done(
        {name: one for name, one in found.items() if not isinstance(one, TidegateError)},
        {name: one for name, one in found.items() if isinstance(one, TidegateError)},
    )


def _attempt(work: Work, client: Client, secrets: Mapping[str, Secret]) -> Any:
    try:
        with Mask(secrets):
            return work(client)
    except TidegateError as error:
        return error
    except OSError as error:  # of this machine: a full disk, a folder that is not ours
        return Failed(str(error), where=client.name)
