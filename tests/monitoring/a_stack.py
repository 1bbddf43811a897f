"""A stack's services as far as they are asked: one real HTTP server on loopback, reached through a real agent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from monitoring import live, server
from monitoring.files import OWNER
from monitoring.live import PORTS
from ops.link import Link
from tests.local_ssh import HOST, environment, install_ssh

if TYPE_CHECKING:
    import pytest

Said = str | tuple[int, str]
Answer = Said | Callable[[], Said]


class Stack(ThreadingHTTPServer):
    """Answers by path; what is not known is not there."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, str]:
        self.asked.append(path)
        found = self.answers.get(path.partition("?")[0], (404, "nothing here"))
        text = found() if callable(found) else found
        return text if isinstance(text, tuple) else (200, text)


class _Handler(BaseHTTPRequestHandler):
    server: Stack

    def do_GET(self) -> None:
        status, text = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """Serve for as long as the block runs, in place of every service."""
    with Stack() as found:
        Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        for name in PORTS:
            monkeypatch.setitem(PORTS, name, found.server_port)
        yield found
        found.shutdown()


@contextmanager
def link(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """Connect to this machine as to a server."""
    install_ssh(folder, monkeypatch)
    found = Link(environment(folder), HOST)
    try:
        yield found
    finally:
        found.close()


def owned(folder: Path, monkeypatch: pytest.MonkeyPatch, app: str = "blog", environment: str = "test") -> None:
    """Have the server say, in a folder of this machine, whose stack it is; what is locked is there too."""
    monkeypatch.setattr(live, "FOLDER", str(folder))
    monkeypatch.setattr(server, "HOME", str(folder))
    (folder / OWNER).write_text(json.dumps({"app": app, "environment": environment}))


def targets(*found: dict[str, Any]) -> str:
    """Return what Prometheus says of its targets."""
    return json.dumps({"status": "success", "data": {"activeTargets": list(found)}})


def target(job: str, host: str, error: str | None = None, health: str = "") -> dict[str, Any]:
    """Return a target that answers, or one that does not."""
    labels = {"job": job, "instance": host} | ({"host": host} if host else {})
    return {"labels": labels, "health": health or ("up" if error is None else "down"), "lastError": error or ""}
