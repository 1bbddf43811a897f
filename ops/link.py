"""One OpenSSH connection to a server: the agent's session, the engine's socket and, on wish, a port back to us.

All three ride on the same connection, so a deploy authenticates once per host and every further call costs one round trip.
"""

from __future__ import annotations

import itertools
import json
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from functools import cache
from pathlib import Path
from typing import Any

from ops.config import Environment, HostAddress
from ops.errors import Locked, Refused, TidegateError, Unreachable
from ops.given_ssh import trusted_files
from ops.shell import sh

ENGINE_SOCKET = "/var/run/docker.sock"
HEARTBEAT = 5.0
FIRST_WORDS, LAST_WORDS = 60.0, 10.0
_MODULES = ("files", "engine", "waits", "facts", "load", "program", "main")
_LOADER = "import sys,zlib;b=sys.stdin.buffer.raw;n=int(sys.argv[1]);d=b''\nwhile len(d)<n:d+=b.read(n-len(d))or sys.exit(1)\nexec(zlib.decompress(d))"
_UNPACK = """
import sys, types
for name in ("ops", "ops.agent"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, source in SOURCES.items():
    module = sys.modules["ops.agent." + name] = types.ModuleType("ops.agent." + name)
    exec(compile(source, "tidegate-agent/" + name + ".py", "exec"), module.__dict__)
    setattr(sys.modules["ops.agent"], name, module)
module.main(SOCKET)
"""


class AgentError(TidegateError):
    """An operation on the server failed; `kind` is the name of the exception there."""

    def __init__(self, what: str, *, where: str, kind: str) -> None:
        super().__init__(what, where=where)
        self.kind = kind


class _Answer(Future[Any]):
    """What an operation ends with, after the lines that its program prints; None is the last."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: queue.SimpleQueue[str | None] = queue.SimpleQueue()


@cache
def packed_agent(socket_path: str) -> bytes:
    """Return the agent's program, compressed, as it is sent to a server."""
    folder = Path(__file__).parent / "agent"
    sources = {name: _without_docstrings((folder / f"{name}.py").read_text()) for name in _MODULES}
    return zlib.compress(f"SOURCES={sources!r}\nSOCKET={socket_path!r}\n{_UNPACK}".encode(), 9)


def _without_docstrings(source: str) -> str:
    """Leave them out; all else stays on its line, which is what a traceback names."""
    return re.sub(
        r'^( *)"""(?:[^"]|"(?!""))*"""\n',
        lambda found: (found[1] and f"{found[1]}...") + "\n" * found[0].count("\n"), source, flags=re.MULTILINE,
    )  # fmt: skip


def ssh_options(environment: Environment, host: HostAddress) -> list[str]:
    """Return the OpenSSH options for a host: strict host keys, no prompts, dead lines noticed."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": " ".join(f'"{path}"' for path in trusted_files(environment.known_hosts)),
        "UpdateHostKeys": "no",
        "Compression": "yes",  # of 757 kB for a changed layer 21 are saved; a wire that outruns zlib is rare
        "ConnectTimeout": "10",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "LogLevel": "INFO",  # it tells the port that leads back to us, and why a connection failed
        "ControlMaster": "no",
        "ControlPath": "none",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "StreamLocalBindUnlink": "yes",
    }
    found = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    found += ["-p", str(host.port)] if host.port else []
    found += ["-l", host.user] if host.user else []
    return found + (["-i", str(host.identity), "-o", "IdentitiesOnly=yes"] if host.identity else [])


class Link:
    """A live connection to one server."""

    def __init__(self, environment: Environment, host: HostAddress, *, callback_port: int | None = None) -> None:
        self.host = host
        self.name = host.name
        self.environment = environment.name
        self.calls = 0
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-"))
        self._waiting: dict[int, _Answer] = {0: _Answer()}
        self._numbers = itertools.count(1)
        self._first = self._waiting[0]
        self._guard = threading.Lock()
        self._closed = threading.Event()
        self._complaints: list[str] = []
        self._callback: Future[int] = Future()
        self._callback_port = callback_port
        self._process = self._start(ssh_options(environment, host), callback_port)
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"{target.__name__} {self.name}")
            for target in (self._listen, self._listen_to_ssh, self._beat)
        ]
        for thread in reversed(self._threads):  # whoever notices the end waits for the one that reads ssh's last words
            thread.start()

    def _start(self, options: list[str], callback_port: int | None) -> subprocess.Popen[bytes]:
        program = packed_agent(ENGINE_SOCKET)
        forward = ["-L", f"{self.socket}:{ENGINE_SOCKET}"]
        if callback_port:
            forward += ["-R", f"127.0.0.1:0:127.0.0.1:{callback_port}"]
        remote = sh("python3", "-I", "-S", "-u", "-c", _LOADER, len(program)).reveal()
        try:
            # A session of its own: Ctrl-C in the terminal must reach us and not cut the line we undo over.
            process = subprocess.Popen(
                ["ssh", *options, *forward, "--", self.host.address, remote],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            shutil.rmtree(self._folder)
            raise Refused("ssh is not installed on this machine", fix="install openssh-client") from None
        try:
            self._pipe(process).write(program)
            self._pipe(process).flush()
        except BrokenPipeError:
            pass  # ssh has ended already; whoever waits for the first words is told what it said
        return process

    @staticmethod
    def _pipe(process: subprocess.Popen[bytes]) -> Any:
        return process.stdin

    @property
    def socket(self) -> Path:
        """The local unix socket that is the server's engine."""
        return self._folder / "engine.sock"

    def hello(self) -> dict[str, Any]:
        """Wait for the connection and return the server's first words: engine, clock, python. Raises Unreachable."""
        try:
            found: dict[str, Any] = self._first.result(FIRST_WORDS)
        except TimeoutError:
            raise Unreachable("connected, but the server does not say anything", where=self.name, why=f"waited {FIRST_WORDS:.0f} s",
                              fix="look at the server's load and disk") from None  # fmt: skip
        return found

    def callback_port(self, timeout: float = 10.0) -> int:
        """Return the server's loopback port that leads back to ours. Raises TimeoutError when sshd gave none."""
        return self._callback.result(timeout)

    def call(self, op: str, **arguments: Any) -> Any:
        """Carry out one operation on the server and return its result. Raises AgentError, Locked, Unreachable."""
        return self.send(op, **arguments).result()

    def post(self, op: str, *, optional: bool = False, **arguments: Any) -> None:
        """Send an operation that nobody waits for; once it has failed, unless `optional`, all after it are refused."""
        self._submit(op, arguments, post="may" if optional else "must")

    def send(self, op: str, **arguments: Any) -> Future[Any]:
        """Send an operation without waiting; operations are carried out in the order they were sent."""
        return self._submit(op, arguments)

    def program(self, argv: Sequence[str], *, stdin: str = "", on_event: Callable[[dict[str, Any]], None]) -> tuple[int, str]:
        """Run a program on the server as root; returns its exit code and the end of what it said on standard error.

        Each line it prints is an event: a JSON object, or text. `stdin` is the first line of its standard input, which
        ends when we are gone. Whatever interrupts us here cancels the program and waits for its end.
        """
        answer = self._submit("program", {"argv": list(argv), "stdin": stdin})
        answer.add_done_callback(lambda _: answer.printed.put(None))
        try:
            while (line := answer.printed.get()) is not None:
                on_event(_event(line))
        except BaseException:
            self.cancel()
            wait([answer])
            raise
        return answer.result()["code"], answer.result()["said"]

    def cancel(self) -> None:
        """End waits and programs on the server; nothing where the connection is lost, which does the same."""
        try:
            self.send("cancel")
        except Unreachable:
            pass  # the agent is gone, or goes

    def _submit(self, op: str, arguments: dict[str, Any], **how: str) -> _Answer:
        future = _Answer()
        with self._guard:
            if self._closed.is_set():
                raise self._lost()
            self.calls += op != "ping"
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._pipe(self._process).write(json.dumps({"id": number, "op": op, "with": arguments, **how}).encode() + b"\n")
                self._pipe(self._process).flush()
            except OSError:
                raise self._lost() from None
        return future

    def close(self) -> None:
        """End the session; the server frees the lock."""
        self._closed.set()
        try:
            self._pipe(self._process).close()
        except BrokenPipeError:
            pass  # the other side went first, which is what closing is for
        self._threads[0].join(LAST_WORDS)  # until the agent has ended
        self._process.terminate()  # ssh itself would wait for forwarded connections that nobody needs any more
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        shutil.rmtree(self._folder)

    def _listen(self) -> None:
        try:
            for line in self._process.stdout or ():
                answer, future = self._match(line)
                if future is None:  # a line that the server's shell printed at login
                    self._complaints.append(line.decode("utf-8", "replace").strip())
                elif "line" in answer:
                    future.printed.put(answer["line"])
                elif "error" in answer:
                    future.set_exception(self._error(answer))
                else:
                    future.set_result(self._dated(answer))
        finally:
            self._fail_all()

    def _match(self, line: bytes) -> tuple[dict[str, Any], _Answer | None]:
        try:
            answer = json.loads(line)
        except ValueError:
            return {}, None
        known = isinstance(answer, dict) and isinstance(answer.get("id"), int) and {"result", "error", "line"} & answer.keys()
        with self._guard:
            if known and "line" in answer:
                return answer, self._waiting.get(answer["id"])
            return (answer, self._waiting.pop(answer["id"], None)) if known else ({}, None)

    @staticmethod
    def _dated(answer: dict[str, Any]) -> Any:
        """Note in the first words how far the server's clock is from ours, to within half a round trip."""
        if answer["id"] == 0:
            answer["result"]["skew"] = answer["result"]["time"] - time.time()
        return answer["result"]

    def _fail_all(self) -> None:
        if not self._closed.is_set():  # not our doing: ssh's last words tell why
            self._threads[1].join(2)
        with self._guard:
            self._closed.set()
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(self._lost())

    def _listen_to_ssh(self) -> None:
        for line in self._process.stderr or ():
            text = line.decode("utf-8", "replace").strip()
            ours = rf"Allocated port (\d+) for remote forward to 127\.0\.0\.1:{self._callback_port}$"
            if (found := re.match(ours, text)) and not self._callback.done():
                self._callback.set_result(int(found[1]))
            elif "remote port forwarding failed" in text and not self._callback.done():
                self._callback.set_exception(TimeoutError(text))
            elif text:
                self._complaints.append(text)

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            try:
                self.send("ping")
            except Unreachable:
                return

    def _error(self, answer: dict[str, Any]) -> TidegateError:
        if answer.get("kind") == "Busy":
            return Locked(f"another command is at work: {holder(answer['error'])}", where=self.name,
                          fix="wait for it; the lock frees itself when that command ends or its connection dies")  # fmt: skip
        return AgentError(answer["error"], where=self.name, kind=answer.get("kind", ""))

    def _lost(self) -> Unreachable:
        return explain(self.name, self.environment, [line for line in self._complaints if line])


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"event": "text", "text": line}


def holder(note: str) -> str:
    """Return a lock holder's note as words."""
    try:
        known = json.loads(note)
        return f"{known['what']} by {known['who']} since {known['since']}"
    except (ValueError, KeyError, TypeError):
        return "it left no note"


_CAUSES = (
    ("host key verification failed|host key is known|host key for .* has changed|identification has changed",
     "the server's host key is not trusted, or is not the one that was trusted", "inv server.trust -e ENV"),
    ("permission denied", "the server does not accept our key", "add the key to the server's authorized_keys, or to your ssh-agent"),
    ("python3: (command )?not found|python3: No such", "the server has no python3 yet", "inv server.bootstrap -e ENV"),
    ("could not resolve|name or service not known", "the host name does not resolve", "check `hosts` in ops.toml"),
    ("connection refused|no route to host|timed out|network is unreachable", "nothing answers on the SSH port",
     "check the address and port in ops.toml, and that the server is up"),
)  # fmt: skip


def explain(name: str, environment: str, complaints: Iterable[str]) -> Unreachable:
    """Turn what ssh said into an error that names the cause and the next command."""
    text = " · ".join(complaints)
    for pattern, why, fix in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return Unreachable("cannot connect", where=name, why=f"{why} ({text})", fix=fix.replace("ENV", environment))
    return Unreachable("the connection was lost", where=name, why=text or "the server closed it without a word",
                       fix=f"inv deploy.status -e {environment} shows where things stand")  # fmt: skip


def require_engine(link: Link) -> dict[str, Any]:
    """Return the first words of a server whose engine answers. Raises Refused when it does not."""
    hello = link.hello()
    if "error" in hello["engine"]:
        raise Refused("the engine does not answer", where=link.name, why=hello["engine"]["error"],
                      fix=f"inv server.bootstrap -e {link.environment}")  # fmt: skip
    return hello
