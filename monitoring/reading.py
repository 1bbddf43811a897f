"""Logs of an environment, printed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from monitoring import logs
from monitoring.live import Loki, watching
from ops.config import Environment
from ops.console import Console
from ops.durations import period
from ops.errors import ConfigError, Refused

PAUSE = 1.0


def read(console: Console, env: Environment, query: str, since: str, limit: int, *, follow: bool) -> None:
    """Print lines, oldest first; with `follow`, for ever. Raises ConfigError, Refused."""
    if "loki" in env.monitoring.without:
        raise Refused(
            "logs are not collected",
            where=env.name,
            why="[monitoring] without names loki",
            fix="inv deploy.logs shows one container's",
        )
    try:
        start = time.time_ns() - round(period(since) * 10**9)
    except ValueError as error:
        raise ConfigError("since when?", why=f"{since!r} is not {error}", fix="--since 2h") from None
    asked = logs.question(env.app.name, query)
    with watching(env) as http:
        loki = Loki(http)
        found = logs.read(loki, asked, start, time.time_ns(), limit)
        _print(console, found)
        if follow:
            begin = found[-1].time + 1 if found else start
            _print(console, logs.follow(loki, asked, begin, time.time_ns, _pause))
        elif not found:
            console.say(f"nothing for {asked} in the last {since}", "yellow")


def _pause() -> None:
    threading.Event().wait(PAUSE)


def _print(console: Console, lines: Iterable[logs.Line]) -> None:
    for line in lines:
        if console.as_json:
            console.line(logs.document(line))
        else:
            console.quote(logs.text(line))
