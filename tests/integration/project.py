"""A project on two servers of its own, driven through the command line as its user would."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.sandbox_server import SandboxServer
from ops.agent.load import Load, Report, Sample
from ops.this_machine import local_client

REPOSITORY = Path(__file__).resolve().parents[2]
APP = "/usr/bin/python3", "-I", "-S", "/app/server.py"
SAID = "said all"
SAY = f"""bash -c "$1" >"$2" 2>&1; code=$?; cat "$2"; printf '{SAID}'; exit $code"""
# What stays of a deploy that was undone: its lines in the journal, and the backup that it began with.
JOURNALS = "! -name journal.jsonl ! -name lock ! -path '*/backups*' ! -path '/srv/tidegate/metrics*'"
LOOK = """
docker ps -aq | xargs -r docker inspect -f '{{.Id}} {{.Name}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}' | sort
find /srv/tidegate -type f %s -exec sha256sum {} + | sort -k 2
find /srv/tidegate %s -printf '%%p %%m %%U\\n' | sort
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    ended: float

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.out + self.err

    @property
    def document(self) -> Any:
        """What it printed for scripts."""
        return json.loads(self.out)


@dataclass
class Server:
    """One of the servers, seen from the machine it runs on."""

    known: SandboxServer

    def root(self, script: str) -> str:
        """Run a script as root; return what it prints. Fails with its output."""
        kept = f"/run/said-{os.urandom(4).hex()}"
        code, output = self._run(SAY, script, kept)
        while not output.endswith(SAID):  # a busy engine loses output of what ends quickly: what was kept is asked for again
            output = self._run(f"cat {kept}; printf '{SAID}'")[1]
        output = output.removesuffix(SAID)
        assert code == 0, output
        return output

    def _run(self, script: str, *arguments: str) -> tuple[int, str]:
        api = local_client().api
        run = api.exec_create(self.known.name, ["bash", "-c", script, "bash", *arguments])["Id"]
        output = api.exec_start(run).decode("utf-8", "replace")
        return int(api.exec_inspect(run)["ExitCode"]), output

    def look(self, *, journals: bool = False) -> str:
        """Return every container with when it started, and every file of ours with its content, mode and owner."""
        which = "" if journals else JOURNALS
        return self.root(LOOK % (which, which))

    def get(self, domain: str, path: str) -> tuple[int, str]:
        """Ask through the edge."""
        connection = http.client.HTTPConnection("127.0.0.1", self.known.http_port, timeout=5)
        try:
            connection.request("GET", path, headers={"Host": domain})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def lock_is_free(self, app: str) -> bool:
        """Try the lock as another operator would."""
        return self.root(f"flock -n /srv/tidegate/{app}/lock true && echo free || echo held") == "free\n"

    def running(self, app: str) -> list[str]:
        """Return the names of an app's running containers."""
        return sorted(self.root(f"docker ps --filter label=dev.tidegate.app={app} --format '{{{{.Names}}}}'").split())


@dataclass
class Traffic:
    """Users of an app, at every server's edge: kept-alive and fresh connections, reads and writes."""

    loads: list[Load]
    acknowledged: list[list[str]]
    reports: list[Report] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many requests were answered so far."""
        return sum(report.requests for report in self.reports or [load.snapshot() for load in self.loads])

    @property
    def failures(self) -> int:
        """How many of them failed."""
        return sum(report.failures for report in self.reports or [load.snapshot() for load in self.loads])

    def nobody_noticed(self) -> None:
        """Fail unless every request was answered well."""
        assert self.requests
        assert not self.failures, [(report.reasons, report.examples) for report in self.reports]


class App:
    """An app of the project: its configuration file and its commands."""

    def __init__(self, root: Path, servers: list[Server], base: Mapping[str, Any], file: str) -> None:
        self.root = root
        self.servers = servers
        self.config = root / file
        self.base = base
        self.name = str(base["app"]["name"])
        self.domain = str(base["environments"]["sandbox"]["domain"])
        self._home = ""
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Write the configuration with these changes of the app's own keys."""
        document = {**self.base, "app": {**self.base["app"], **changes}}
        self.config.write_text("".join(f"{key} = {toml(value)}\n" for key, value in document.items()))

    def with_code(self, folder: str, source: Path) -> App:
        """Have the app's code as the repository has it, whatever another test made of it."""
        shutil.rmtree(self.root / folder)
        shutil.copytree(source, self.root / folder, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        return self

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the variables to run a command with."""
        mine = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        return {**mine, "TIDEGATE_CONFIG": str(self.config), "PYTHONUNBUFFERED": "1", **extra}

    def start(self, *words: str, **extra: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a terminal would."""
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", "-r", str(REPOSITORY), *words],
            cwd=self.root, env=self.environment(**extra), start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def inv(self, *words: str, code: int | None = 0, timeout: float = 180, **extra: str) -> Done:
        """Run a command to its end; `code` is what it must end with."""
        began = time.monotonic()
        with self.start(*words, **extra) as process:
            out, err = process.communicate(timeout=timeout)
        done = Done(process.returncode, out, err, time.monotonic() - began, time.time())
        assert "/invoke/program.py" not in done.said, done.said  # a traceback of ours
        assert code is None or done.code == code, f"exit code {done.code}, not {code}:\n{done.said}"
        return done

    def deploy(self, *words: str, code: int | None = 0) -> Done:
        """Deploy, with a JSON document as the answer."""
        return self.inv("deploy", "--json", *words, code=code)

    def get(self, path: str) -> list[tuple[int, str]]:
        """Ask every server through its edge."""
        return [server.get(self.domain, path) for server in self.servers]

    def serving(self) -> list[str]:
        """Return the release that answers, for every server."""
        return [str(json.loads(body)["release"]) for _, body in self.get("/version")]

    def go_home(self) -> None:
        """Deploy what code and configuration say, unless the release that this made the last time still serves everywhere."""
        answers = {body if status == 200 else "" for status, body in self.get("/version")} if self._home else {""}
        if "" in answers or {json.loads(body)["release"] for body in answers} != {self._home}:
            self.deploy()
            self._home = self.serving()[0]

    def look(self) -> list[str]:
        """Return what is so on every server."""
        return [server.look() for server in self.servers]

    def containers(self) -> list[list[str]]:
        """Return the names of all containers of the app, running or not, for every server."""
        command = f"docker ps -a --filter label=dev.tidegate.app={self.name} --format '{{{{.Names}}}}'"
        return [sorted(server.root(command).split()) for server in self.servers]

    def last_operations(self) -> list[dict[str, Any]]:
        """Return the last operation in every server's journal."""
        found = self.inv("deploy.history", "--json").document
        return [next(one for one in found if str(server.known.ssh_port) in one["server"]) for server in self.servers]

    @contextmanager
    def users(self, rate: float = 40, *, write: bool = False) -> Iterator[Traffic]:
        """Send that many requests a second to every server's edge, from a little before to a little after."""
        acknowledged: list[list[str]] = [[] for _ in self.servers]
        loads = [self._load(server, rate, acknowledged[nth], write=write) for nth, server in enumerate(self.servers)]
        traffic = Traffic(loads, acknowledged)
        for load in loads:
            load.start()
        try:
            wait_until(lambda: traffic.requests > rate, "the users do not get going")
            yield traffic
            enough = traffic.requests + 2 * rate
            wait_until(lambda: traffic.requests > enough, "the users get no answers any more")
        finally:
            traffic.reports = [load.stop() for load in loads]

    def _load(self, server: Server, rate: float, acknowledged: list[str], *, write: bool) -> Load:
        def note(sample: Sample) -> None:
            if sample.post >= 0 and sample.status == 201:
                acknowledged.append(json.loads(sample.body)["title"])

        def post(number: int) -> tuple[str, bytes]:
            return "/posts", json.dumps({"title": f"post {number} of {id(acknowledged)}", "body": "high water"}).encode()

        return Load(
            ("127.0.0.1", server.known.http_port), self.domain, interval=1 / rate, lanes=4, timeout=10.0,
            post=post if write else None, on_answer=note,
        )  # fmt: skip


def assert_same(before: list[str], after: list[str]) -> None:
    """Fail with the lines that differ."""
    for one, other in zip(before, after, strict=True):
        lines, now = one.splitlines(), other.splitlines()
        gone, new = [line for line in lines if line not in now], [line for line in now if line not in lines]
        assert (gone, new) == ([], []), "\n".join(["gone:", *gone, "new:", *new])


def toml(value: Any) -> str:
    """Render a value as TOML; tables inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items() if one is not None) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def blog_configuration(name: str) -> dict[str, Any]:
    """Return the bundled configuration under another name, so that nothing on this machine is shared."""
    known = tomllib.loads((REPOSITORY / "ops.toml").read_text())
    app = {**known["app"], "name": name, "drain": {"idle": "1s"}}
    return {**known, "app": app, "environments": {"sandbox": {"domain": "blog.localhost"}}}


def shaky_configuration(name: str, domain: str = "shaky.localhost") -> dict[str, Any]:
    """Return the configuration of the small app that breaks in the way that BEHAVIOUR names."""
    app = {
        "name": name, "context": "apps", "dockerfile": "apps/Dockerfile", "port": 3000, "environment": {"BEHAVIOUR": "healthy"},
        "drain": {"idle": "1s", "grace": "2s"}, "health": {"timeout": "20s"},
        "processes": {"worker": {"command": [*APP, "worker"], "steady": "0.3s"}},
    }  # fmt: skip
    return {"app": app, "environments": {"sandbox": {"domain": domain}}}


def wait_until(condition: Any, otherwise: str, seconds: float = 30.0) -> float:
    """Wait until a condition holds; return after how many seconds it did. Who cannot be reached yet is told at the end only."""
    began, pause = time.monotonic(), threading.Event()
    while trouble := _not_yet(condition):
        if time.monotonic() - began > seconds:
            raise AssertionError(otherwise) from (trouble if isinstance(trouble, OSError) else None)
        pause.wait(0.02)
    return time.monotonic() - began


def _not_yet(condition: Any) -> bool | OSError:
    try:
        return not condition()
    except OSError as error:
        return error
