"""A program in a container: started by the engine, its words and its exit status by a thread of its own."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from backup.agent.errors import BackupError, Untried
from backup.agent.streams import FULL
from ops.agent.engine import Engine, EngineError

WORDS = 32 << 20  # bytes of output and of complaints that are kept; the earliest go first
GONE = 30.0  # seconds in which the engine has to notice that something ended
LOOK = 0.02
PIECE = 30_000  # characters in one variable, which may have 128 KiB


def asked(engine: Engine, method: str, path: str, body: Any = None, timeout: float = 60.0) -> Any:
    """Make one call of the engine. Raises Untried."""
    try:
        return engine.call(method, path, timeout, body)
    except EngineError as error:
        raise Untried("the engine refused", str(error)) from error


def called(argv: Sequence[str]) -> str:
    """Return what a command is called in an error: the program, or what a shell's script is told to be."""
    return argv[3] if argv[:2] == ["sh", "-c"] and len(argv) > 3 else argv[0]


class Program:
    """A program under way; `ended` is called, in a thread, as soon as it is over."""

    def __init__(
        self, engine: Engine, container: str, argv: Sequence[str], *,
        name: str = "", environment: Mapping[str, str] | None = None, ended: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.name = name or called(argv)
        self.code: int | None = None
        self.over = False
        self._out, self._err, self._trouble = bytearray(), bytearray(), ""
        self._engine, self._ended = engine, ended
        self._change = threading.Condition()
        wanted = {"Cmd": list(argv), "User": "0:0", "AttachStdout": True, "AttachStderr": True,
                  "Env": [f"{key}={value}" for key, value in (environment or {}).items()]}  # fmt: skip
        self._id = asked(engine, "POST", f"/containers/{quote(container)}/exec", wanted)["Id"]
        try:
            answer = engine.stream(f"/exec/{self._id}/start", {"Detach": False, "Tty": False})
        except EngineError as error:
            raise Untried(f"{self.name} could not be started", str(error)) from error
        threading.Thread(target=self._follow, args=(answer,), daemon=True).start()

    def _follow(self, answer: http.client.HTTPResponse) -> None:
        try:
            self._listen(answer)
            self.code = self._status()
        except (EngineError, OSError, http.client.HTTPException) as error:
            self._trouble = f"the engine lost it: {error}"
        finally:
            self.over = True
            self._ended()
            with self._change:
                self._change.notify_all()
            answer.close()

    def _listen(self, answer: http.client.HTTPResponse) -> None:
        while len(head := answer.read(8)) == 8:  # one byte of stream, three of nothing, four of size
            words = answer.read(int.from_bytes(head[4:], "big"))
            with self._change:
                kept = self._out if head[0] == 1 else self._err
                kept.extend(words)
                del kept[:-WORDS]
                self._change.notify_all()

    def _status(self) -> int | None:
        """Return the exit code; the engine may take a moment to learn it after the last word."""
        deadline = time.monotonic() + GONE
        while (known := self._engine.call("GET", f"/exec/{self._id}/json", GONE))["Running"]:
            if time.monotonic() > deadline:
                raise EngineError(f"exec {self._id} closed its output but still runs")
            with self._change:
                self._change.wait(LOOK)
        code = known["ExitCode"]
        return None if code is None else int(code)

    @property
    def out(self) -> str:
        """Return what it wrote so far."""
        return self._out.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """Return the end of what it complained of."""
        return self._err[-2000:].decode("utf-8", "replace").strip()

    def pid(self) -> int:
        """Return its process id as this machine has it, 0 before it has one."""
        return int(asked(self._engine, "GET", f"/exec/{self._id}/json")["Pid"])

    def wait(self, seconds: float) -> bool:
        """Wait so long; tells whether it is over."""
        with self._change:
            self._change.wait_for(lambda: self.over, seconds)
        return self.over

    def said(self, text: str, seconds: float | None) -> bool:
        """Wait until it wrote a text; False when it ended without, or in that time did not."""
        wanted = text.encode()
        with self._change:
            self._change.wait_for(lambda: self.over or wanted in self._out, seconds)
            return wanted in self._out

    def take(self, end: str) -> str | None:
        """Wait for what it writes up to a text, and return it without that; None when it ended first."""
        if not self.said(end, None):
            return None
        with self._change:
            found, _, rest = bytes(self._out).partition(end.encode())
            self._out = bytearray(rest)
        return found.decode("utf-8", "replace")

    def finish(self, seconds: float | None = None) -> str:
        """Wait until it is over and return what it wrote. Raises BackupError when it failed or takes longer."""
        with self._change:
            self._change.wait_for(lambda: self.over, seconds)
        if not self.over:
            raise BackupError(f"{self.name} did not end within {seconds:.0f} seconds", self.err)
        if failure := self.failure():
            raise failure
        return self.out

    def failure(self) -> BackupError | None:
        """Return why it failed, if it is over and did."""
        if not self.over or self.code == 0:
            return None
        ended = {None: "was killed", 137: "was killed", 143: "was killed", 126: "could not be started in its container"}
        how = ended.get(self.code, f"ended with exit code {self.code}")
        kind = Untried if self.code in ended or any(one in self.err for one in FULL) else BackupError  # as in streams.py
        return kind(f"{self.name} {how}", self.err or self._trouble or "it said nothing")


@dataclass(frozen=True)
class Place:
    """A container in which programs are run."""

    engine: Engine
    container: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def start(self, argv: Sequence[str], name: str = "", ended: Callable[[], None] = lambda: None) -> Program:
        """Start a program."""
        return Program(self.engine, self.container, argv, name=name, environment=self.environment, ended=ended)

    def run(self, argv: Sequence[str], feed: str = "", seconds: float | None = None) -> str:
        """Run a program on a text and return what it wrote."""
        # In the environment, which only root may read: arguments are seen by everybody who is on this machine.
        pieces = {f"TIDEGATE_{at}": feed[at : at + PIECE] for at in range(0, len(feed), PIECE)}
        script = f'printf "%s" "{"".join(f"${{{name}}}" for name in pieces)}" | "$@"'
        wanted = ["sh", "-c", script, "sh", *argv]
        return Program(self.engine, self.container, wanted, name=called(argv), environment={**self.environment, **pieces}).finish(
            seconds
        )
