"""Where the benchmark measures: servers of its own, lines to them that count, and commands that are watched.

Every connection passes a forwarder (ops/slowline.py): without delay on loopback, where it only counts bytes and
connections, with 50 ms round trip and 20 Mbit/s each way on the slow line, where the public address is behind one, too.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy import demo_project, sandbox_files
from deploy.demo_story import BROKEN
from deploy.sandbox import Sandbox
from deploy.sandbox_server import SandboxServer
from ops.errors import Failed
from ops.link import ssh_options
from ops.slowline import SlowLine
from ops.this_machine import local_client

LINES = {"loopback": (0.0, 1e12), "slow": (0.05, 20e6)}
VARIANTS = {"web": "the web process alone", "full": "web process, worker and migration"}
BALLAST = 700_000
_BY_HAND = """
docker rm -f byhand >/dev/null 2>&1
docker run -d --name byhand -v %s:/app/data %s >/dev/null && exec python3 -c '
import http.client, subprocess, time
ip = subprocess.check_output(["docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "byhand"], text=True).strip()
while True:
    try:
        asked = http.client.HTTPConnection(ip, 3000, timeout=1)
        asked.request("GET", "/health")
        if asked.getresponse().status == 200:
            break
    except OSError:
        time.sleep(0.01)
'"""


@dataclass(frozen=True)
class Setting:
    """Which app, over which line, to how many servers."""

    variant: str
    line: str
    hosts: int

    @property
    def environment(self) -> str:
        """The environment in the configuration: one per app, whose servers are declared anew for each line and number."""
        return self.variant

    @property
    def config(self) -> str:
        """The configuration file."""
        return f"{self.variant}.toml"


@dataclass(frozen=True)
class Run:
    """One command, watched: bytes, connections and round trips are those of the busiest server."""

    seconds: float
    code: int = 0
    cpu: float = 0.0
    memory: float = 0.0
    received: int = 0
    sent: int = 0
    connections: int = 0
    round_trips: int = 0
    phases: Mapping[str, float] = field(default_factory=dict)
    after_crash: float | None = None


class Lab:
    """The servers and lines; a context manager that removes them."""

    def __init__(self, root: Path, hosts: int, seed: str, say: Callable[[str], None]) -> None:
        self.root = root
        self.seed = seed
        self._hosts = hosts
        self._say = say
        self._stack = ExitStack()
        self._number = 0
        self.sandbox = Sandbox(root)
        self.servers: list[SandboxServer] = []
        self.lines: dict[str, list[SlowLine]] = {}
        self._seen: dict[str, list[SandboxServer]] = {}

    def __enter__(self) -> Lab:
        demo_project.renew(self.root, "bench")
        self._stack.callback(self._remove)
        self.inv("sandbox.up", f"--hosts={self._hosts}")
        self.servers = self.sandbox.status()
        for line in LINES:
            self._lay(line)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _remove(self) -> None:
        self.sandbox.down(self._say)
        for variant in VARIANTS:
            demo_project.remove_images(f"bench-{variant}")

    def _lay(self, line: str) -> None:
        trip, rate = LINES[line]
        self.lines[line] = [self._stack.enter_context(SlowLine((one.address, one.ssh_port), trip, rate)) for one in self.servers]
        public = [one.http_port for one in self.servers]
        if trip:
            public = [self._stack.enter_context(SlowLine((one.address, one.http_port), trip, rate)).port for one in self.servers]
        self._seen[line] = [replace(one, ports=(way.port, port, one.https_port))
                            for one, way, port in zip(self.servers, self.lines[line], public, strict=True)]  # fmt: skip

    def declare(self, setting: Setting) -> None:
        """Make the app's environment the servers of a setting, reached over its line."""
        name, servers = setting.environment, self._seen[setting.line][: setting.hosts]
        folder = self.root / ".tidegate" / name
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self.sandbox.identity, folder)
        sandbox_files.write(folder / "known_hosts", sandbox_files.known_hosts(servers), 0o600)
        text = sandbox_files.fragment(name, f"{setting.variant}.localhost", servers)
        sandbox_files.write(self.root / ".tidegate/environments" / f"{name}.toml", text, 0o600)

    def introduce(self, variant: str) -> None:
        """Serve a first version of an app everywhere; where it is to have no migrations, its database is made now."""
        setting = Setting(variant, "loopback", len(self.servers))
        (self.root / setting.config).write_text(
            configuration(f"bench-{variant}", with_worker=variant == "full", with_migration=True)
        )
        self.change()
        self.watch(setting, "deploy")
        if variant != "full":
            (self.root / setting.config).write_text(configuration(f"bench-{variant}", with_worker=False, with_migration=False))

    def change(self) -> None:
        """Change the code: a file of 700 kB that no compression makes smaller, the same for the same seed."""
        self._number += 1
        content = random.Random(f"{self.seed} {self._number}").randbytes(BALLAST)  # noqa: S311  # to be repeatable is the point
        (self.root / "example/blog/ballast.bin").write_bytes(content)

    def inv(self, *words: str) -> None:
        """Run a command that is not measured. Raises Failed."""
        command = demo_project.inv(*words)
        done = subprocess.run(
            command, cwd=self.root, env=demo_project.environment(self.root), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"inv {' '.join(words)} ended with exit code {done.returncode}", why=done.stdout + done.stderr)

    def watch(self, setting: Setting, *words: str, code: int = 0) -> Run:
        """Run a command as it is typed, and watch it from start to prompt. Raises Failed when it ends otherwise."""
        self.declare(setting)
        lines = self.lines[setting.line][: setting.hosts]
        before = [_counts(one) for one in lines]
        run, said, complaint = self._typed(setting, *words)
        if run.code != code:
            why = said + complaint
            raise Failed(f"inv {' '.join(words)} ended with exit code {run.code}, not {code}", where=setting.environment, why=why)
        counted = [
            [now - was for now, was in zip(_counts(one), then, strict=True)] for one, then in zip(lines, before, strict=True)
        ]
        received, sent, connections = (max(column) for column in zip(*counted, strict=True))
        document = json.loads(said) if said.startswith("{") else {}
        return replace(
            run, received=received, sent=sent, connections=connections, phases=document.get("phases", {}),
            round_trips=max(document.get("round_trips", {}).values(), default=0),
        )  # fmt: skip

    def _typed(self, setting: Setting, *words: str) -> tuple[Run, str, str]:
        command = demo_project.inv(*words, "-e", setting.environment)
        environment = demo_project.environment(self.root, TIDEGATE_CONFIG=setting.config)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            began = time.monotonic()
            process = subprocess.Popen(command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            run = Run(seconds, process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
            return run, out.read(), err.read()

    def crash(self, setting: Setting) -> Run:
        """Deploy a version that crashes at start; `after_crash` counts from the first death to the prompt."""
        file = self.root / BROKEN.file
        healthy = file.read_text()
        BROKEN.make(self.root)
        began = time.time()
        try:
            run = self.watch(setting, "deploy", "--json", code=1)
        finally:
            file.write_text(healthy)
        ended = time.time()
        return replace(run, after_crash=ended - self._death(began, ended, f"bench-{setting.variant}_web_"))

    def _death(self, since: float, until: float, name: str) -> float:
        command = ["docker", "events", "--since", f"{since:.6f}", "--until", f"{until:.6f}", "--filter", "event=die",
                   "--format", "{{.TimeNano}} {{.Actor.Attributes.name}}"]  # fmt: skip
        seen = self.on_server(command).splitlines()
        return min(int(line.split()[0]) / 1e9 for line in seen if line.split()[1].startswith(name))

    def on_server(self, command: list[str]) -> str:
        """Run a command on the first server, past the lines."""
        api = local_client().api
        return str(api.exec_start(api.exec_create(self.servers[0].name, command)["Id"]).decode())

    def ssh(self, setting: Setting, command: str) -> float:
        """Run a command over a new SSH connection; return how long it took. Raises Failed."""
        from ops.config import load

        self.declare(setting)
        environment = load(self.root / setting.config, os.environ).environment(setting.environment)
        host = environment.hosts[0]
        began = time.monotonic()
        done = subprocess.run(["ssh", *ssh_options(environment, host), "--", host.address, command],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            raise Failed("a command by hand failed", where=setting.environment, why=done.stderr)
        return time.monotonic() - began

    def by_hand(self, setting: Setting) -> float:
        """Start the image that serves once more by hand and wait until it is healthy; return how long it took."""
        image = self.on_server(
            ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", f"tidegate/bench-{setting.variant}"]
        ).split()[0]
        seconds = self.ssh(setting, _BY_HAND % (f"bench-{setting.variant}_blog-data", image))
        self.on_server(["docker", "rm", "-f", "byhand"])
        return seconds


def configuration(name: str, *, with_worker: bool, with_migration: bool) -> str:
    """Return the bundled configuration for an app of that name, with or without what is beside the web process."""
    app = {**tomllib.loads((demo_project.REPOSITORY / "ops.toml").read_text())["app"], "name": name}
    unwanted = {key for key, wanted in {"processes": with_worker, "migrate": with_migration}.items() if not wanted}
    return f"app = {toml({key: value for key, value in app.items() if key not in unwanted})}\n"


def toml(value: Any) -> str:
    """Render a value as TOML, tables inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


def _counts(line: SlowLine) -> tuple[int, int, int]:
    return line.received_by_target, line.sent_by_target, line.connections
