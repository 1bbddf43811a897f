"""The few engine calls that must happen on the server itself, next to what they wait for."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote


class EngineError(Exception):
    """The engine refused a call or could not be reached."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The Docker engine behind a unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def call(self, method: str, path: str, timeout: float = 10.0, body: Any = None) -> Any:
        """Make one call and return its decoded answer, None when it has no body."""
        return self._decoded(method, path, self._send(method, path, timeout, body))

    def sequence(self, calls: list[list[Any]]) -> Any:
        """Make calls of the form [method, path, body, fine statuses, timeout]; return the last one's answer."""
        found = None
        for method, path, body, fine, timeout in calls:
            status, answer = self._send(method, path, timeout, body)
            if status in fine:
                break
            found = self._decoded(method, path, (status, answer))
        return found

    def _send(self, method: str, path: str, timeout: float, body: Any) -> tuple[int, bytes]:
        connection = _UnixConnection(self._path, timeout)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the engine at {self._path} does not answer: {error!r}") from error
        finally:
            connection.close()

    def _decoded(self, method: str, path: str, answer: tuple[int, bytes]) -> Any:
        status, body = answer
        if status >= 400:
            raise EngineError(f"{method} {path.partition('?')[0]}: {status} {body.decode('utf-8', 'replace').strip()}")
        return json.loads(body) if body else None

    def execute(self, container: str, command: list[str], timeout: float) -> tuple[int, str]:
        """Run a command in a container; returns its exit code and the end of what it said."""
        wanted = {"Cmd": command, "AttachStdout": True, "AttachStderr": True, "Tty": True}
        id = self.call("POST", f"/containers/{quote(container)}/exec", body=wanted)["Id"]
        words = self._send("POST", f"/exec/{id}/start", timeout, {"Detach": False, "Tty": True})[1]
        return self.call("GET", f"/exec/{id}/json")["ExitCode"], words.decode("utf-8", "replace").strip()[-400:]

    def stream(self, path: str, body: Any) -> http.client.HTTPResponse:
        """Post and return the answer for the caller to read as it comes, however long that takes, and to close."""
        connection = _UnixConnection(self._path, 60.0)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", "Connection": "close"})
            connection.sock.settimeout(None)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise EngineError(f"the engine at {self._path} does not answer: {error!r}") from error
        if answer.status >= 400:
            self._decoded("POST", path, (answer.status, answer.read()))
        return answer

    def logs(self, container: str, lines: int) -> str:
        """Return the last lines that a container wrote."""
        path = f"/containers/{quote(container)}/logs?stdout=1&stderr=1&tail={lines}"
        rest, found = self._send("GET", path, 10.0, None)[1], b""
        while len(rest) >= 8:  # frames: one byte of stream, three of nothing, four of size
            size = int.from_bytes(rest[4:8], "big")
            found, rest = found + rest[8 : 8 + size], rest[8 + size :]
        return found.decode("utf-8", "replace").rstrip()

    def inspect(self, container: str) -> Any:
        """Return what the engine knows of a container; raises EngineError when there is none."""
        return self.call("GET", f"/containers/{quote(container)}/json")

    def signal(self, container: str, name: str) -> None:
        """Send a signal to a container's first process."""
        self.call("POST", f"/containers/{quote(container)}/kill?signal={name}")

    def events(self, containers: list[str]) -> socket.socket:
        """Open a stream that becomes readable when one of the containers changes; the caller closes it."""
        filters = quote(json.dumps({"container": containers, "event": ["die", "oom", "health_status", "start"]}))
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(10.0)
        stream.connect(self._path)
        stream.sendall(f"GET /events?filters={filters} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        stream.recv(65536)
        stream.setblocking(False)
        return stream
