"""Asking the stack's services over the SSH link: they listen on their server's loopback only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from monitoring.files import FOLDER, OWNER
from ops.config import Environment
from ops.errors import ConfigError, Failed, Refused, Unreachable
from ops.link import AgentError, Link

_LINE = 5.0  # seconds that the way to the server may take besides
PORTS = {"grafana": 7810, "prometheus": 7811, "alertmanager": 7812, "loki": 7813}


class Http:
    """Requests to the loopback ports of one server."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.name = link.name

    def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
        """Return status and body. Raises Refused where nothing listens."""
        try:
            asked = self.link.send("http", method=method, port=port, path=path, body=body, timeout=timeout)
            answer = asked.result(timeout + _LINE)
        except TimeoutError:
            raise Unreachable(
                "no answer", where=self.name, why=f"waited {timeout + _LINE:.0f} s", fix="look at the line"
            ) from None
        except AgentError as error:
            service = next((name for name, known in PORTS.items() if known == port), str(port))
            raise Refused(
                f"{service} does not answer", where=self.name, why=error.what,
                fix=f"inv monitoring.status -e {self.link.environment}; inv monitoring.up -e {self.link.environment}",
            ) from None  # fmt: skip
        return answer["status"], answer["body"]


class Service:
    """One of the stack's services, by its JSON API."""

    def __init__(self, http: Http, name: str) -> None:
        self.http = http
        self.name = name

    def get(self, path: str, timeout: float = 10.0, **parameters: Any) -> Any:
        """Return the answer's data. Raises Failed with the service's own words, Refused where it does not answer."""
        query = f"?{urlencode(parameters, doseq=True)}" if parameters else ""
        status, body = self.http.ask("GET", PORTS[self.name], path + query, timeout=timeout)
        try:
            answer = json.loads(body)
        except ValueError:
            answer = {}
        if status != 200 or not isinstance(answer, dict) or answer.get("status") == "error":
            said = answer.get("error", body.strip()[:500]) if isinstance(answer, dict) else body[:500]
            kind = ConfigError if status == 400 else Failed
            raise kind(f"{self.name} refuses the question", where=self.http.name, why=f"{status}: {said}")
        return answer.get("data", answer)


class Prometheus(Service):
    """Prometheus, asked."""

    def __init__(self, http: Http) -> None:
        super().__init__(http, "prometheus")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now."""
        found: list[dict[str, Any]] = self.get("/api/v1/query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the one value of an expression, or None where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


class Loki(Service):
    """Loki, asked."""

    def __init__(self, http: Http) -> None:
        super().__init__(http, "loki")

    def query_range(self, query: str, start: int, end: int, limit: int, direction: str) -> list[dict[str, Any]]:
        """Return streams with their lines; start and end in nanoseconds since 1970."""
        found: list[dict[str, Any]] = self.get(
            "/loki/api/v1/query_range", timeout=60.0, query=query, start=start, end=end, limit=limit, direction=direction
        )["result"]
        return found


def _require_ours(env: Environment, link: Link) -> None:
    """Leave another environment's stack alone. Raises Refused, also where there is none."""
    owner = link.call("read", path=f"{FOLDER}/{OWNER}")
    if owner is None:
        raise Refused(f"{env.name} is not watched", where=link.name, fix=f"inv monitoring.up -e {env.name}")
    if (known := json.loads(owner)) != {"app": env.app.name, "environment": env.name}:
        raise Refused(
            f"the stack there watches {known['app']} in {known['environment']}", where=link.name, fix="name that one with -e"
        )


@contextmanager
def watching(env: Environment) -> Iterator[Http]:
    """Connect to the server with the stack for as long as the block runs."""
    link = Link(env, env.watcher)
    try:
        _require_ours(env, link)
        yield Http(link)
    finally:
        link.close()
