"""How a database is reached: through the network of its container, or the server's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from backup.agent.errors import BackupError, Untried
from backup.agent.model import Settings, Source
from backup.agent.programs import Place
from backup.agent.toolbox import Kit, Toolbox, toolbox
from ops.agent.engine import Engine, EngineError


@dataclass(frozen=True)
class Reach:
    """A database's container or address, and the image that has its programs."""

    settings: Settings
    source: Source
    engine: Engine

    @property
    def host(self) -> str:
        """Return the address under which the database answers."""
        return "127.0.0.1" if self.source.container else self.source.address

    def image(self) -> str:
        """Return the image of the database's container, running or not, else the one that is configured."""
        known = self._container()
        if known is None and not self.source.image:
            raise self._missing("does not exist")
        return str(known["Image"]) if known else self.source.image

    def network(self) -> str:
        """Return the network for a toolbox that talks to the database. Raises BackupError when it does not run."""
        return f"container:{self._running()}" if self.source.container else "host"

    def toolbox(self, environment: Mapping[str, str], files: Mapping[str, str]) -> AbstractContextManager[Toolbox]:
        """Start a toolbox that reaches the database."""
        return toolbox(self.engine, self.settings, Kit(self.image(), self.network(), environment, files))

    def apart(self) -> AbstractContextManager[Toolbox]:
        """Start a toolbox that reaches nothing."""
        return toolbox(self.engine, self.settings, Kit(self.image()))

    @contextmanager
    def place(self, environment: Mapping[str, str]) -> Iterator[Place]:
        """Return where a short command is run: in the database's own container, which is fast, or in a toolbox."""
        if self.source.container:
            yield Place(self.engine, self._running(), environment)
        else:
            with toolbox(self.engine, self.settings, Kit(self.image(), "host", environment)) as box:
                yield box

    def _running(self) -> str:
        known = self._container()
        if known is None:
            raise self._missing("does not exist")
        state = known["State"]
        if state["Status"] != "running":
            raise self._missing(f"it is {state['Status']}, exit code {state['ExitCode']}")
        return str(known["Id"])

    def _missing(self, why: str) -> Untried:
        container = self.source.container
        return Untried(
            f"database container {container} is not running", why, f"docker start {container}; docker logs {container}"
        )

    def _container(self) -> dict[str, Any] | None:
        if not self.source.container:
            return None
        try:
            path = f"/containers/{quote(self.source.container)}/json"
            return dict(self.engine.call("GET", path, 30.0))
        except EngineError as error:
            if " 404 " in str(error):
                return None
            raise Untried("the engine refused", str(error)) from error


@contextmanager
def explained(fixes: Mapping[str, str]) -> Iterator[None]:
    """Add what can be done to the errors that are known by a text."""
    try:
        yield
    except BackupError as error:
        error.fix = error.fix or next((fix for text, fix in fixes.items() if text in error.why), "")
        raise
