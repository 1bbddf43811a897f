"""How a deploy looks at an app's data and has it saved; tasks.py hands this to it, since the two know nothing of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from backup.client import Client
from backup.hosts import settled
from backup.settings import server_settings
from ops.config import Environment
from ops.errors import Failed, Partial
from ops.link import Link
from ops.secret import Secret
from ops.who import who


class DeployBackups:
    """The backups of an environment's servers; what a server has to know comes with the first question that may install."""

    def __init__(self, env: Environment, environ: Mapping[str, str], on_event: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._env = env
        self._environ = environ
        self._on_event = on_event

    @cached_property
    def _secrets(self) -> dict[str, Secret]:
        return settled(self._env, self._environ)

    def look(self, link: Link, *, install: bool) -> Mapping[str, Any] | None:
        """Return what the program says of the data; None where it is not installed and may not be."""
        found: Mapping[str, Any] | None = self._client(link).call("state") if install else Client(link, self._env).peek("state")
        return found

    def take(self, link: Link, id: str, release: str, *, first: bool) -> None:
        """Take a backup before a release and decode it in full. Raises Failed when any source failed, which fails the deploy."""
        arguments = ["--types", "deploy", "--id", id, "--before", release, "--by", who(), *(["--first"] if first else [])]
        try:
            self._client(link).call("run", *arguments, on_event=lambda event: self._on_event(link.name, event))
        except Partial as error:
            name = self._env.name
            fix = f"mend it, then inv deploy -e {name}; without a backup: inv deploy --skip-backup -e {name}"
            raise Failed(error.what, where=error.where, why=error.why, fix=fix) from error

    def _client(self, link: Link) -> Client:
        return Client(link, self._env, server_settings(self._env, link.host, self._secrets))
