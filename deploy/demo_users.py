"""The users of the demo: they read and write at every server's edge and remember what they saw."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deploy.sandbox_server import SandboxServer
from ops.agent.load import Load, Report, Sample
from ops.errors import Failed

PAGE = 100
PATIENCE = 30.0


class Answer(NamedTuple):
    """How long one request took, in seconds, and why it failed (empty: it did not)."""

    latency: float
    failure: str


@dataclass(frozen=True)
class Seen:
    """What users saw in a span of time."""

    requests: int
    failures: int
    p50: float
    p99: float


def seen(answers: Iterable[Answer]) -> Seen:
    """Sum up answers; the percentiles are of good ones."""
    known = list(answers)
    good = sorted(one.latency for one in known if not one.failure)
    return Seen(len(known), len(known) - len(good), percentile(good, 0.5), percentile(good, 0.99))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share does not exceed, 0 where there is none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


class Users:
    """The users of one server: half on fresh connections, half on kept ones, every fifth request a POST."""

    def __init__(self, server: SandboxServer, domain: str, rate: float) -> None:
        self.server = server
        self.domain = domain
        self.rate = rate
        self.answers: list[Answer] = []
        self.acknowledged: set[str] = set()
        self.serving = ""
        self.slot = ""
        self.report: Report | None = None
        self._tag = f"{server.name} {time.time_ns():x}"
        self._load = Load(
            ("127.0.0.1", server.http_port),
            domain,
            "/version",
            interval=1 / rate,
            timeout=10.0,
            post=self._post,
            on_answer=self._note,
        )

    def start(self) -> None:
        """Begin to send."""
        self._load.start()

    def stop(self) -> Report:
        """Stop and return what was seen in all."""
        self.report = self.report or self._load.stop()
        return self.report

    def now(self) -> Report:
        """Return what was seen so far."""
        return self.report or self._load.snapshot()

    def _post(self, number: int) -> tuple[str, bytes]:
        return "/posts", json.dumps({"title": f"{self._tag} {number}", "body": "high water at noon"}).encode()

    def _note(self, sample: Sample) -> None:
        """Runs in the load's threads; what it does to lists and sets is atomic."""
        self.answers.append(Answer(sample.latency, sample.failure))
        if sample.failure:
            return
        known = json.loads(sample.body)
        if sample.post >= 0:
            self.acknowledged.add(known["title"])
        else:
            self.serving, self.slot = known["release"], known["slot"]

    def lost(self) -> set[str]:
        """Return the acknowledged posts that the server's database does not have."""
        return self.acknowledged - self._titles()

    def _titles(self) -> set[str]:
        titles: set[str] = set()
        before = ""
        while page := self.ask(f"/posts?limit={PAGE}{before}")["posts"]:
            titles |= {post["title"] for post in page}
            before = f"&before={page[-1]['id']}"
        return titles

    def ask(self, path: str) -> dict[str, list[dict[str, str]]]:
        """Return the JSON at a path, asked as a browser would ask the server."""
        request = urllib.request.Request(f"{self.server.url}{path}", headers={"Host": self.domain})  # noqa: S310  # our own server
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            found: dict[str, list[dict[str, str]]] = json.load(answer)
        return found


class Crowd:
    """The users of all servers."""

    def __init__(self, users: Sequence[Users]) -> None:
        self.users = users

    def start(self) -> None:
        """Let all begin."""
        for one in self.users:
            one.start()

    def stop(self) -> None:
        """Let all stop."""
        for one in self.users:
            one.stop()

    def mark(self) -> list[int]:
        """Return where the answers to come begin, for `since`."""
        return [len(one.answers) for one in self.users]

    def since(self, mark: Sequence[int]) -> Seen:
        """Sum up the answers since then, of all servers."""
        return seen(answer for one, begin in zip(self.users, mark, strict=True) for answer in one.answers[begin:])

    def go_on(self, seconds: float) -> None:
        """Return when so many seconds' worth of requests were answered everywhere. Raises Failed when they are not."""
        wanted = [len(one.answers) + seconds * one.rate for one in self.users]
        wait_until(lambda: all(len(one.answers) >= enough for one, enough in zip(self.users, wanted, strict=True)))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what users see. Raises Failed when they do not see it for long."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise Failed("the users get no answers", fix="inv deploy.status in the demo's folder shows what runs")
        pause.wait(0.05)
