"""The blog as a real process on a port of its own, and a small client for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.example.databases import Database

EXAMPLE = Path(__file__).parents[2] / "example"


def start(database: Database, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `python -m blog ARGUMENTS` with this database and port 0: any free one."""
    return subprocess.Popen(
        [sys.executable, "-m", "blog", *arguments],
        env={**os.environ, "PYTHONPATH": str(EXAMPLE), **database.environment, "PORT": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(database: Database, *arguments: str) -> tuple[int, str]:
    """Run `python -m blog ARGUMENTS` to its end; return its exit code and output."""
    with start(database, *arguments) as process:
        output, _ = process.communicate(timeout=30)
        return process.returncode, output


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Return the next line of output that contains this text."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return line
    raise AssertionError(f"ended without {text!r}: {''.join(lines)}")


class Blog:
    """A serving blog; use it in a `with`."""

    def __init__(self, database: Database, **environment: str) -> None:
        self._process = start(database, **environment)
        self.port = 0

    def __enter__(self) -> Blog:
        self.port = int(wait_for(self._process, "running on").split("(")[0].strip().rsplit(":", 1)[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection that stays open between requests."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        connection.connect()
        return connection

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request on a connection of its own; return the status and the body."""
        connection = self.connect()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        """Get JSON."""
        status, body = self.request("GET", path)
        return status, json.loads(body)

    def post(self, data: object) -> tuple[int, Any]:
        """Post JSON to /posts."""
        status, body = self.request("POST", "/posts", json.dumps(data).encode())
        return status, json.loads(body)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Wait for the process to end and return its exit code; more than `timeout` seconds is an error."""
        return self._process.wait(timeout)
