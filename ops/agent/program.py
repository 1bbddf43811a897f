"""A program that runs here as root for a command elsewhere, and does not outlive it.

Its standard input is a pipe whose other end only this process holds: the end of that pipe tells the program that
whoever asked is gone, whether we were told so, were killed, or lost the line.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from typing import Any

PATIENCE = 5.0  # from the end of its input to SIGTERM
LAST_WORDS = 4000


class Cancelled(Exception):
    """Not begun, since everything was cancelled before."""


class Program:
    """The one program that runs at a time."""

    def __init__(self, cancel: threading.Event) -> None:
        self._cancel = cancel
        self._guard = threading.Lock()
        self._tether = -1
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, argv: list[str], stdin: str, tell: Callable[[str], None]) -> dict[str, Any]:
        """Run it to its end, telling every line it prints; returns its exit code and its last words."""
        with tempfile.TemporaryFile() as words:
            child = self._start(argv if os.geteuid() == 0 else ["sudo", "-n", "--", *argv], words.fileno())
            try:
                self._write(stdin)
                for line in child.stdout or ():
                    tell(line.decode("utf-8", "replace").rstrip("\n"))
                code = child.wait()
            finally:
                self.let_go()
                child.wait()
                if child.stdout:
                    child.stdout.close()
            words.seek(max(0, os.fstat(words.fileno()).st_size - LAST_WORDS))
            return {"code": code, "said": words.read().decode("utf-8", "replace").strip()}

    def _start(self, argv: list[str], words: int) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._cancel.is_set():
                raise Cancelled("cancelled before it was begun")
            ours, self._tether = os.pipe()
            try:
                self._child = subprocess.Popen(
                    argv, stdin=ours, stdout=subprocess.PIPE, stderr=words, cwd="/", start_new_session=True
                )
            except OSError:
                os.close(self._tether)
                self._tether = -1
                raise
            finally:
                os.close(ours)
            return self._child

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode() + b"\n" if text else b"")
        try:
            while rest:
                rest = rest[os.write(self._tether, rest) :]
        except OSError:
            pass  # it has ended already, or we have let go: its exit code tells

    def let_go(self) -> None:
        """End its input; where it does not end by itself after that, ask it to."""
        with self._guard:
            if self._tether < 0 or self._child is None:
                return
            os.close(self._tether)
            self._tether = -1
            if self._child.poll() is not None:
                return
            timer = threading.Timer(PATIENCE, _terminate, (self._child,))
            timer.daemon = True
            timer.start()


def _terminate(child: subprocess.Popen[bytes]) -> None:
    try:
        child.terminate()
    except PermissionError:  # sudo itself is root's; it passes the signal on
        subprocess.run(["sudo", "-n", "--", "kill", "-TERM", str(child.pid)], check=False)
