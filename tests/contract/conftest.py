"""The two kinds of server that the contract is asked of: the fake, and a real one in a sandbox of its own."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from backup.for_deploy import DeployBackups
from deploy import image, observe, parts
from deploy.docker_server import DockerServer
from deploy.model import HealthSpec, HostState, ImageRef, ProcessSpec, Release
from deploy.sandbox import Sandbox
from deploy.server import Server
from deploy.servers import make_ready
from deploy.session import Session
from deploy.ship import Shipper
from ops.config import Environment, load
from ops.this_machine import local_client
from tests.fakes import FakeServer, World, environment, intent

APPS = Path(__file__).resolve().parents[1] / "apps"
CONFIGURATION = f"""
[app]
name = "blog"
context = "{APPS}"
dockerfile = "{APPS / "Dockerfile"}"
port = 3000
[app.health]
interval = "50ms"
timeout = "20s"
[app.drain]
grace = "1s"
[app.processes.worker]
command = ["/usr/bin/python3", "-I", "-S", "/app/server.py", "worker"]
steady = "300ms"
[app.migrate]
command = ["/usr/bin/python3", "-I", "-S", "/app/server.py", "migrate"]
[app.backup]
reserve = "1m"
[app.backup.sources.files]
kind = "directory"
path = "/srv/tidegate/edge"
"""


@dataclass
class Subject:
    """A server under the contract, and what can be seen of it from outside."""

    env: Environment
    image: ImageRef
    connect: Callable[[], Server]
    users_get: Callable[[], str | None]
    journal: Callable[[], list[dict[str, Any]]]
    figures: Callable[[], str]
    bill: Callable[[str], str]
    close: Callable[[Server], None]
    server: Server = field(init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def state(self) -> HostState:
        """Observe."""
        return self.server.observe()

    def draft(self, *, extra: str = "", **values: str) -> tuple[Release, tuple[ProcessSpec, ...]]:
        """Return a new release and its containers."""
        now = datetime(2026, 1, 1, next(self._numbers) % 24, tzinfo=UTC)
        wanted = intent(self.image.version, now, content=self.image.content, values=values, extra=extra)
        release = parts.draft(self.env, wanted, self.state(), f"r{next(self._numbers)}")
        return release, parts.process_specs(self.env.app, wanted, release)

    def migration(self, **values: str) -> ProcessSpec:
        """Return a one-off container."""
        wanted = intent(self.image.version, datetime(2026, 1, 1, tzinfo=UTC), content=self.image.content, values=values)
        release = parts.draft(self.env, wanted, self.state(), f"r{next(self._numbers)}")
        (step,) = parts.migrate(self.env.app, wanted, release, first=True)
        spec: ProcessSpec = step.spec  # type: ignore[attr-defined]
        return spec

    def health(self, release: Release) -> tuple[HealthSpec, ...]:
        """Return what to wait for."""
        (step,) = parts.wait_healthy(self.env.app, release)
        wanted: tuple[HealthSpec, ...] = step.wanted  # type: ignore[attr-defined]
        return wanted

    def serve(self, **values: str) -> Release:
        """Start a release and switch to it."""
        release, specs = self.draft(**values)
        self.server.start_new(specs)
        self.server.wait_healthy(self.health(release), 20)
        self.server.stage_edge(release.edge_file)
        self.server.switch_edge(release.generation)
        return release

    def clean(self) -> None:
        """Leave nothing of the app on the server."""
        state = self.state()
        if state.edge.content is not None:
            self.server.switch_edge(None)
        self.server.unstage_edge()
        names = tuple(one.name for one in state.containers)
        if names:
            self.server.remove(names)
        for release in state.releases:
            self.server.remove_release(release.id)


def fake_subject() -> Subject:
    """Return a subject in memory."""
    world = World("one")
    files = {"present": True, "schema": "", "journal": ""}
    world.only.data = {"sources": {"files": files}, "backups": {}, "restoring": False, "time": "2026-01-01T00:00:00Z"}
    app: dict[str, Any] = {"migrate": {"command": ["blog", "migrate"]}, "processes": {"worker": {"command": ["work"]}}}
    machine = world.only

    def close(server: Server) -> None:
        assert isinstance(server, FakeServer)
        server.close()

    def connect() -> Server:
        return FakeServer(machine, world)

    def bill(id: str) -> str:
        return machine.bills.get(id, "")

    wanted = ImageRef("tidegate/blog:v1", "v1", "content-of-v1")
    return Subject(environment(**app), wanted, connect, machine.serves, machine.records, lambda: machine.figures, bill, close)


class Real:
    """A sandbox server with an edge, and connections to it."""

    def __init__(self, root: Path) -> None:
        (root / "ops.toml").write_text(CONFIGURATION)
        self.sandbox = Sandbox(root, "contract", domain="contract.localhost")
        self.sandbox.up(1, print)
        self.env = load(root / "ops.toml", {}).environment("contract")
        assert make_ready(self.env, lambda server, text: print(server, text), lambda server, missing: True)
        self._stack = ExitStack()
        self._open: dict[int, Session] = {}
        session = self._stack.enter_context(Session(self.env, ships=True))
        assert session.door is not None
        self.shipper = self._stack.enter_context(Shipper(session.door, session.state, lambda: local_client().api))
        self.link = session.links[0]
        source = image.read_source(self.env.app, "contract")
        self.image = image.build(self.env.app, source, local_client().api, print)
        self.shared = DockerServer(self.env, self.link, self.shipper, lambda done, total: None)

    def connect(self) -> Server:
        """Open another connection; the image is shipped over the first one."""
        session = Session(self.env, ships=False)
        backups = DeployBackups(self.env, {}, lambda server, event: None)
        server = DockerServer(self.env, session.links[0], None, lambda done, total: None, backups)
        self._open[id(server)] = session
        return server

    def close(self, server: Server) -> None:
        """End a connection."""
        if session := self._open.pop(id(server), None):
            session.__exit__()

    def down(self) -> None:
        """Remove everything."""
        for session in self._open.values():
            session.__exit__()
        self._stack.close()
        self.sandbox.down(print)
        subprocess.run(["docker", "rmi", self.image.name], check=True, capture_output=True)

    def users_get(self) -> str | None:
        """Return the release that answers at the address of the server."""
        parts = urlsplit(str(self.env.hosts[0].url))
        line = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=5)
        try:
            line.request("GET", "/", headers={"Host": self.env.domains[0], "Connection": "close"})
            answer = line.getresponse()
            return str(json.loads(answer.read())["release"]) if answer.status == 200 else None
        finally:
            line.close()

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal's records."""
        return observe.records(self.link.call("read", path="/srv/tidegate/blog/journal.jsonl") or "")

    def figures(self) -> str:
        """Return what the server's node exporter would read of the app's deploys."""
        return str(self.link.call("read", path="/srv/tidegate/metrics/blog_deploy.prom") or "")

    def bill(self, id: str) -> str:
        """Return the bill of materials that is there for a release."""
        return str(self.link.call("read", path=f"/srv/tidegate/blog/bills/{id}.cdx.json") or "")

    def subject(self) -> Subject:
        """Return it as a subject."""
        return Subject(self.env, self.image, self.connect, self.users_get, self.journal, self.figures, self.bill, self.close)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """A real server for the whole run."""
    found = Real(tmp_path_factory.mktemp("contract"))
    yield found
    found.down()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A server, connected, with the image and nothing else of the app."""
    if request.param == "fake":
        found = fake_subject()
        found.server = found.connect()
        found.server.receive(found.image)
    else:
        sandbox: Real = request.getfixturevalue("real")
        found = sandbox.subject()
        sandbox.shared.receive(found.image)
        found.server = found.connect()
        found.clean()
    yield found
    found.close(found.server)
