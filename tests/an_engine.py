"""An engine as far as it is asked: real HTTP on a unix socket, whose answers a test says."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import unquote

Said = Callable[[Any], Any]
VERSION = {"Version": "28.2.2", "ApiVersion": "1.44", "Os": "linux", "Arch": "amd64"}


def framed(*lines: str, stream: int = 1) -> bytes:
    """Return lines as an engine sends those of a container without a terminal."""
    return b"".join(bytes([stream, 0, 0, 0]) + len(line.encode()).to_bytes(4, "big") + line.encode() for line in lines)


class Engine(ThreadingMixIn, UnixStreamServer):
    """Answers by method and path without version and query; a status alone is refused with it, what is not known with a 404."""

    daemon_threads = True

    def __init__(self, socket: Path) -> None:
        super().__init__(str(socket), _Handler)
        self.socket_path = socket
        self.answers: dict[str, Any] = {"GET /version": VERSION, "GET /_ping": b"OK"}
        self.asked: list[str] = []
        self.bodies: dict[str, Any] = {}
        self.query = ""
        self.ends = threading.Event()
        self.happened = threading.Event()

    def container(self, name: str, *, pid: int = 0, restarts: int = 0, check: dict[str, Any] | None = None, **state: Any) -> None:
        """Have a container; `state` is what differs from one that runs."""
        known = {"Status": "running", "Running": True, "Pid": pid, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00.5Z", **state}
        config = {"Healthcheck": check} if check else {}
        self.answers[f"GET /containers/{name}/json"] = {"State": known, "RestartCount": restarts, "Config": config}

    def fails(self, what: str, status: int, words: str) -> None:
        """Have a call refused in these words."""
        self.answers[what] = (status, words)

    def execs(self, name: str, answer: Callable[[list[str]], tuple[int, str]]) -> None:
        """Have commands in a container answered: exit code and words."""
        ended: list[int] = []

        def start(asked: Any) -> bytes:
            code, said = answer(self.bodies[f"POST /containers/{name}/exec"]["Cmd"])
            ended.append(code)
            return said.encode() if asked["Tty"] else framed(said)

        self.answers |= {
            f"POST /containers/{name}/exec": {"Id": "e1"},
            "POST /exec/e1/start": start,
            "GET /exec/e1/json": lambda _: {"ExitCode": ended[-1]},
        }

    def answer(self, what: str, body: Any) -> tuple[int, bytes]:
        """Return status and body."""
        self.asked.append(what)
        self.bodies[what] = body
        found = self.answers.get(what, 404)
        found = found(body) if callable(found) else found
        if isinstance(found, int):
            found = found, f"refused with {found}"
        if isinstance(found, tuple):
            return found[0], json.dumps({"message": found[1]}).encode()
        return 200, found if isinstance(found, bytes) else json.dumps(found).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Engine
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        path = re.sub(r"^/v1\.\d+", "", unquote(self.path.partition("?")[0]))
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/events":
            return self._events()
        self.server.query = self.path.partition("?")[2]
        status, body = self.server.answer(f"{self.command} {path}", json.loads(data) if data[:1] in (b"{", b"[") else data)
        self.send_response(status)
        self.close_connection = path.endswith("/start") and path.startswith("/exec/")  # the SDK reads on to its end
        if not self.close_connection:
            self.send_header("Content-Length", str(len(body)))
        try:
            self.end_headers()
            self.wfile.write(body)
        except BrokenPipeError:
            pass  # whoever asked has given up

    do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = _serve

    def _events(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.ends.wait(0.01):
            if self.server.happened.is_set():
                self.server.happened.clear()
                self.wfile.write(b"{}\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """Serve for as long as the block runs."""
    with Engine(folder / "engine.sock") as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.ends.set()
        found.shutdown()
