"""A drill of one environment: the chain of its stack, and its receivers."""

from __future__ import annotations

from monitoring.alertmanager import destinations
from monitoring.drill import FILE, Report, drill
from monitoring.files import PROJECT
from monitoring.live import Http, watching
from monitoring.server import Server
from ops.config import Environment
from ops.names import METRICS

LOG_LINES = 200


class DrillFile:
    """The file that makes the drill's alert fire, on the server with the stack."""

    def __init__(self, http: Http) -> None:
        self._link = http.link

    def put(self, text: str) -> None:
        """Write it, atomically, for the node exporter to read."""
        self._link.call("write", path=f"{METRICS}/{FILE}", text=text, mode=0o644)

    def remove(self) -> None:
        """Remove it, if it is there."""
        self._link.call("remove", path=f"{METRICS}/{FILE}")


def drill_of(env: Environment, timeout: float) -> Report:
    """Fire a synthetic alert and wait until everybody who is told of alerts has it. Raises Refused where nobody is told."""
    names = [one.name for one in destinations(env.monitoring)]
    with watching(env) as http:
        server = Server(http.link)
        server.lock("monitoring.drill")  # two at once would take each other's file away

        def log() -> str:
            return server.engine.logs(f"{PROJECT}-alertmanager-1", tail=LOG_LINES).decode("utf-8", "replace")

        return drill(http, DrillFile(http), names, timeout, log)
