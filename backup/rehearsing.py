"""`inv backup.rehearse`: the next version's migration on a copy of the data, where it harms nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backup.client import Client
from backup.commands import identity_request
from backup.hosts import Done, on_each, saving, settled
from backup.progress import Printer
from ops.config import Environment, HostAddress
from ops.secret import Mask, Secret


@dataclass(frozen=True)
class Trial:
    """What runs on the copy: an image that is on the servers, its command and its environment; `timeout` in seconds."""

    image: str
    command: Sequence[str]
    environment: Mapping[str, str | Secret]
    timeout: float


def _where(env: Environment) -> tuple[HostAddress, ...]:
    """Return the hosts on which a deploy would migrate, of those that have something to save."""
    every = env.app.migrate is not None and env.app.migrate.on == "each"
    return saving(env) if every else saving(env)[:1]


def rehearse(env: Environment, environ: Mapping[str, str], printer: Printer, id: str, trial: Trial) -> Done:
    """Rehearse wherever a deploy would migrate; the environment's secrets travel over standard input only."""
    request: dict[str, Any] = {
        **identity_request(env, environ), "image": trial.image, "command": list(trial.command), "timeout": trial.timeout,
        "environment": {key: value.reveal() if isinstance(value, Secret) else value for key, value in trial.environment.items()},
        "volumes": {f"{env.app.name}_{name}": path for name, path in env.app.volumes.items()},
    }  # fmt: skip

    def work(client: Client) -> Any:
        words = [id] if id else []
        return client.call("rehearse", *words, request=request, on_event=lambda event: printer.event(client.name, event))

    with printer, Mask(trial.environment):
        return on_each(env, work, settled(env, environ), _where(env))
