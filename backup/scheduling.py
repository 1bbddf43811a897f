"""`inv backup.schedule`: every server is looked at and asked about before the first is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backup import schedule as schedules
from backup.client import Client
from backup.hosts import Done, on_each, saving, settled
from backup.progress import Printer
from ops.config import Environment
from ops.host import Host

Confirm = Callable[[str, Sequence[str]], bool]


def schedule(env: Environment, environ: Mapping[str, str], printer: Printer, confirm: Confirm, *, remove: bool) -> Done | None:
    """Install the schedule on every server that has something to save, or take it away; None when a person says no."""
    settings = settled(env, environ) if not remove else None
    kept = () if remove else saving(env)  # a server that has nothing to save any more may have a schedule still
    for address in env.hosts:
        with Host(env, address) as host:
            todo = (
                [one.what for one in schedules.survey(env, host)]
                if address in kept
                else ["take away its schedule, if it has one"]
            )
        if not confirm(address.name, todo):
            return None

    def work(client: Client) -> dict[str, Any]:
        if client.host in kept:
            client.ensure()
        with Host(env, client.host) as host:
            if client.host not in kept:
                return {"removed": schedules.remove(env, host, printer.note)}
            found = schedules.install(env, host, printer.note, datetime.now(UTC))
            return {"by": found.by, "minute": found.minute, "next": [f"{when:%Y-%m-%dT%H:%M:%SZ}" for when in found.next]}

    with printer:
        return on_each(env, work, settings, env.hosts)
