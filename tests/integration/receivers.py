"""Whoever is told of alerts, for real: a web server and a mail server on loopback that keep what they get."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """What arrived, in order, and a way to wait for more of it."""

    def __init__(self) -> None:
        self._all: list[T] = []
        self._came = threading.Condition()

    def add(self, one: T) -> None:
        with self._came:
            self._all.append(one)
            self._came.notify_all()

    def all(self) -> list[T]:
        with self._came:
            return list(self._all)

    def first(self, wanted: Callable[[T], bool], timeout: float = 30.0) -> T:
        """Return the first that is wanted, once it is there."""
        with self._came:
            if not self._came.wait_for(lambda: any(map(wanted, self._all)), timeout):
                raise AssertionError(f"not among the {len(self._all)} that came: {self._all}")
            return next(one for one in self._all if wanted(one))


@dataclass(frozen=True)
class Post:
    path: str
    body: dict[str, Any]
    at: float = field(default_factory=time.time)

    @property
    def alerts(self) -> set[str]:
        """The names of the alerts in Alertmanager's own JSON."""
        return {alert["labels"]["alertname"] for alert in self.body.get("alerts", ())}


@contextmanager
def web(address: str = "127.0.0.1") -> Iterator[tuple[int, Kept[Post]]]:
    """Serve on a free port: 500 for /broken, 200 and "ok" (which is what Slack says) for all else."""
    kept: Kept[Post] = Kept()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = b"out of order" if self.path == "/broken" else b"ok"
            self.send_response(500 if self.path == "/broken" else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            kept.add(Post(self.path, body))

        def log_message(self, *_: object) -> None:
            pass

    with _serving(ThreadingHTTPServer((address, 0), Handler)) as port:
        yield port, kept


@dataclass(frozen=True)
class Mail:
    encrypted: bool
    login: str
    recipients: tuple[str, ...]
    message: EmailMessage

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    def part(self, kind: str) -> str:
        found = self.message.get_body((kind,))
        assert found is not None
        return str(found.get_content()).replace("\r\n", "\n")


@contextmanager
def mail(certificate: Path, key: Path) -> Iterator[tuple[int, Kept[Mail]]]:
    """Serve mail on a free port; who does not encrypt and log in gets no further."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    kept: Kept[Mail] = Kept()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if found := _Conversation(self.request, context).run():
                kept.add(found)

    with _serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield port, kept


class _Conversation:
    """As much of SMTP as a client needs that encrypts, logs in and sends one message."""

    def __init__(self, socket: Any, context: ssl.SSLContext) -> None:
        self._socket, self._context = socket, context
        self._lines = socket.makefile("rb")
        self._encrypted, self._login, self._text = False, "", b""
        self._recipients: list[str] = []

    def run(self) -> Mail | None:
        self._say("220 here")
        while line := self._lines.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            getattr(self, f"_{verb.lower()}")(rest)
            if verb == "QUIT":
                break
        self._lines.close()
        self._socket.close()
        message = email.message_from_bytes(self._text, policy=email.policy.default)
        return Mail(self._encrypted, self._login, tuple(self._recipients), message) if self._text else None

    def _say(self, *lines: str) -> None:
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def _ehlo(self, _: str) -> None:
        self._say("250-here", "250 AUTH PLAIN" if self._encrypted else "250 STARTTLS")

    def _starttls(self, _: str) -> None:
        self._say("220 go on")
        self._lines.close()
        self._socket = self._context.wrap_socket(self._socket, server_side=True)
        self._lines, self._encrypted = self._socket.makefile("rb"), True

    def _auth(self, rest: str) -> None:
        self._login = base64.b64decode(rest.split()[1]).decode().replace("\0", " ").strip()
        self._say("235 welcome")

    def _mail(self, _: str) -> None:
        self._say("250 fine" if self._login else "530 log in first")

    def _rcpt(self, rest: str) -> None:
        self._recipients.append(rest.partition("<")[2].partition(">")[0])
        self._say("250 fine")

    def _data(self, _: str) -> None:
        self._say("354 go on")
        self._text = b"".join(iter(self._lines.readline, b".\r\n"))
        self._say("250 have it")

    def _quit(self, _: str) -> None:
        self._say("221 bye")


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
