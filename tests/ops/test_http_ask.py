"""Asking a service on a server's loopback, as the agent does it: a real one here."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from ops.agent.waits import http_ask

HANGING = Event()


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked; /broken with what is no HTTP, /slow not at all, /large with a lot."""

    def do_GET(self) -> None:
        if self.path == "/broken":
            self.wfile.write(b"no HTTP at all\r\n\r\n")
            return
        if self.path == "/slow":
            HANGING.wait(10)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        told = {"method": self.command, "path": self.path, "kind": self.headers.get("Content-Type"), "body": body}
        text = json.dumps(told).encode() if self.path != "/large" else "ü".encode() * 300_000 + b"\xff"
        self.send_response(503 if self.path == "/down" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        HANGING.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("method", "body", "kind"),
    [
        ("GET", None, None),
        ("DELETE", None, None),
        ("POST", '{"a": "ü"}', "application/json"),
        ("POST", "[]", "application/json"),
        ("POST", "query=up&time=1", "application/x-www-form-urlencoded"),
        ("POST", "", None),
    ],
)
def test_a_service_is_asked_as_its_api_wants_it(port: int, method: str, body: str | None, kind: str | None) -> None:
    found = http_ask(method, port, "/api?x=1", body, 5.0)
    assert found["status"] == 200
    assert json.loads(found["body"]) == {"method": method, "path": "/api?x=1", "kind": kind, "body": body or ""}


def test_a_refusal_is_an_answer_too(port: int) -> None:
    assert http_ask("GET", port, "/down", None, 5.0)["status"] == 503


def test_an_answer_comes_whole_and_what_is_no_text_in_it_is_marked(port: int) -> None:
    assert http_ask("GET", port, "/large", None, 5.0)["body"] == "ü" * 300_000 + "\N{REPLACEMENT CHARACTER}"


def test_where_nothing_answers_in_time_or_in_http_it_is_an_error_of_the_system(port: int) -> None:
    with pytest.raises(OSError, match="not an HTTP answer"):
        http_ask("GET", port, "/broken", None, 5.0)
    with pytest.raises(TimeoutError):
        http_ask("GET", port, "/slow", None, 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        http_ask("GET", free, "/", None, 5.0)
