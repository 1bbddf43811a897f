"""The agent's loop: requests as JSON lines on standard input, answers as JSON lines on standard output.

Requests are carried out one after the other in their order; `ping` and `cancel` are answered at once. What a program
prints comes before the answer, each line an object with the request's id. The agent ends when its input ends or when
nothing was heard for `SILENCE` seconds; the kernel frees the lock it holds and ends the program's input.
"""

from __future__ import annotations

import json
import os
import queue
import select
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ops.agent import facts, files, waits
from ops.agent.engine import Engine, EngineError
from ops.agent.load import Load
from ops.agent.program import Program

SILENCE = 60.0
LAST_WORDS = 10.0
PROBE_PATIENCE = 5.0


class Agent:
    """Everything a command can ask of a server, by the name of the method."""

    def __init__(self, socket_path: str, tell: Callable[..., None]) -> None:
        self._engine = Engine(socket_path)
        self._tell = tell
        self._request = 0
        self._cancel = threading.Event()
        self._program = Program(self._cancel)
        self._failure = ""
        self._prober: Load | None = None
        self._locks: list[int] = []
        self.operations: dict[str, Callable[..., Any]] = {
            "facts": facts.facts,
            "state_of": self._state_of,
            "answers": waits.answers,
            "http": waits.http_ask,
            "listening": lambda container: waits.listening(self._engine, container),
            "write": files.write,
            "move": files.move,
            "restage": files.restage,
            "settle": files.settle,
            "remove": files.remove,
            "read": files.read,
            "read_all": files.read_all,
            "append": files.append,
            "lock": self._lock,
            "look": self._look,
            "resume": self._resume,
            "engine": self._ask_engine,
            "execute": lambda **wanted: self._engine.execute(**wanted),
            "logs": lambda **wanted: self._engine.logs(**wanted),
            "run": self._run,
            "program": self._run_program,
            "digest": files.digest,
            "healthy": lambda **wanted: waits.healthy(self._engine, cancel=self._cancel, **wanted),
            "switch": lambda **wanted: waits.switch(self._engine, **wanted),
            "workers_gone": lambda **wanted: waits.workers_gone(self._engine, cancel=self._cancel, **wanted),
            "probe": self._probe,
            "probe_mark": self._probe_mark,
            "probe_report": self._probe_report,
        }

    def carry_out(self, request: dict[str, Any]) -> Any:
        """Carry out a request; after a failed one that nobody waits for, none but `resume` is carried out any more."""
        if self._failure and request["op"] != "resume":
            raise AfterFailure(self._failure)
        self._request = request["id"]
        try:
            return self.operations[request["op"]](**request["with"])
        except Exception as error:
            if request.get("post") == "must":
                self._failure = f"{request['op']} failed before: {error}"
            raise

    def _resume(self) -> None:
        self._failure = ""
        self._cancel.clear()

    def cancel(self) -> None:
        """Let every wait end at its next look, and a program at once."""
        self._cancel.set()
        self._program.let_go()

    def hello(self) -> dict[str, Any]:
        """Return the engine's version and the clock, or why the engine does not answer."""
        try:
            engine = self._engine.call("GET", "/version", 5.0)
        except Exception as error:
            engine = {"error": str(error)}
        return {"engine": engine, **facts.facts([], [])}

    def _lock(self, path: str, holder: dict[str, Any]) -> None:
        self._locks.append(files.lock(path, holder))

    def _ask_engine(self, sequences: list[list[list[Any]]]) -> list[Any]:
        """Carry out sequences of calls, at once; return what each ended with."""
        with ThreadPoolExecutor(max(1, len(sequences))) as pool:
            return list(pool.map(self._engine.sequence, sequences))

    def _run(
        self, begin: list[list[Any]], stop: list[list[Any]], end: list[list[Any]], container: str, timeout: float
    ) -> dict[str, Any]:
        """Run a container to its end and return how it ended and its last words; whatever happens, it is removed."""
        found: dict[str, Any] = {}
        try:
            self._engine.sequence(begin)
            found = waits.ended(self._engine, container, timeout, self._cancel)
            return {**found, "said": self._engine.logs(container, 40)}
        finally:
            if "code" not in found:
                self._engine.sequence(stop)
            self._engine.sequence(end)

    def _run_program(self, argv: list[str], stdin: str) -> dict[str, Any]:
        """Run a program as root; every line it prints is told before the answer."""
        return self._program.run(argv, stdin, lambda line: self._tell(id=self._request, line=line))

    def _state_of(self, container: str) -> str | None:
        try:
            return str(self._engine.inspect(container)["State"]["Status"])
        except EngineError:
            return None

    def _ask(self, path: str) -> Any:
        try:
            return self._engine.call("GET", path)
        except EngineError:
            return None

    def _look(self, folder: str, journal: str, edge: str, check: dict[str, Any], engine: dict[str, str]) -> dict[str, Any]:
        """Return in one answer all that files, nginx and the engine say of an app."""
        try:
            answering = waits.http_get(check["address"], check["port"], "/", check["host"], 2.0)
        except OSError:
            answering = (0, "")
        return {
            "engine": {name: self._ask(path) for name, path in engine.items()},
            "releases": {**files.read_all(folder, ".staged"), **files.read_all(folder, ".json")},
            "journal": files.read(journal, 16384) or "",
            "edge": files.read_all(edge, ".conf"),
            "pems": files.names(f"{edge}/../tls", ".pem"),
            "edge_answers": answering[0] != 0,
            "srv": facts.disk(folder),
            "answering": answering[1].strip() if answering[0] == 200 else None,
            **facts.facts([], []),
        }

    def _probe(self, address: str, port: int, host: str, path: str, interval: float) -> None:
        tls = None
        if port == 443:
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # over loopback; the certificate is for outside
        self._prober = Load((address, port), host, path, interval=interval, lanes=1, tls=tls)
        self._prober.start()

    def _probe_mark(self) -> None:
        if self._prober:
            self._prober.mark()

    def _probe_report(self, stop: bool, minimum: int) -> dict[str, Any] | None:
        if not self._prober:
            return None
        deadline = time.monotonic() + PROBE_PATIENCE
        while self._prober.snapshot().requests_since_mark < minimum and time.monotonic() < deadline:
            if self._cancel.wait(0.01):
                break
        report = self._prober.stop() if stop else self._prober.snapshot()
        return report.to_dict()


class AfterFailure(Exception):
    """Not done, because something asked for before it, which nobody waited for, had failed."""


def _work(agent: Agent, requests: queue.Queue[dict[str, Any] | None], answer: Callable[..., None]) -> None:
    while (request := requests.get()) is not None:
        try:
            result = agent.carry_out(request)
        except files.Busy as busy:
            answer(id=request["id"], error=str(busy), kind="Busy")
        except Exception as error:
            answer(id=request["id"], error=str(error) or repr(error), kind=type(error).__name__)
        else:
            answer(id=request["id"], result=result)


def main(socket_path: str) -> None:
    """Serve standard input until it ends."""
    os.umask(0o077)
    requests, guard = queue.Queue[Any](), threading.Lock()

    def answer(**fields: Any) -> None:
        with guard:
            sys.stdout.write(json.dumps(fields) + "\n")
            sys.stdout.flush()

    agent = Agent(socket_path, answer)

    answer(id=0, result=agent.hello())
    worker = threading.Thread(target=_work, args=(agent, requests, answer), daemon=True)
    worker.start()
    rest = b""
    while select.select([0], [], [], SILENCE)[0] and (data := os.read(0, 65536)):
        *lines, rest = (rest + data).split(b"\n")
        for request in map(json.loads, lines):
            if request["op"] == "cancel":
                agent.cancel()
            if request["op"] in ("ping", "cancel"):
                answer(id=request["id"], result=None)
            else:
                requests.put(request)
    agent.cancel()
    requests.put(None)
    worker.join(LAST_WORDS)
    os._exit(0)
