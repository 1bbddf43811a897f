"""The sandbox: real servers on this machine, as containers with sshd and an engine of their own."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deploy import sandbox_server
from deploy.sandbox_files import fragment, known_hosts, write
from deploy.sandbox_server import INDEX, ROOT, SANDBOX, Ports, Recipe, SandboxServer, ports_of
from ops import local_engine
from ops.bases import ensure_base
from ops.build_client import build
from ops.errors import Failed, Refused
from ops.stand_ins import DEBIAN
from ops.this_machine import Report, engine_address, file_lock, local_client, machine_lock, need

if TYPE_CHECKING:
    from docker import DockerClient

FOLDER = Path(__file__).resolve().parent.parent / "docker" / "sandbox"
IMAGE = "tidegate/sandbox"
T = TypeVar("T")
R = TypeVar("R")


def up(project_root: Path, hosts: int, report: Report) -> list[SandboxServer]:
    """Make the project's sandbox run with at least that many servers; those that run already are kept."""
    return Sandbox(project_root).up(hosts, report)


def down(project_root: Path, report: Report) -> None:
    """Remove the project's sandbox: servers, their data, keys and the environment."""
    Sandbox(project_root).down(report)


def status(project_root: Path) -> list[SandboxServer]:
    """Return the servers of the project's sandbox as they stand."""
    return Sandbox(project_root).status()


@dataclass
class Sandbox:
    """A named set of servers that belongs to one project folder; `target` bare gives servers without an engine."""

    root: Path
    name: str = "sandbox"
    target: str = "server"
    domain: str = "blog.localhost"
    engine: DockerClient | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """The folder with the SSH key and the host keys."""
        return self.root / ".tidegate" / self.name

    @property
    def identity(self) -> Path:
        """The private key that user deploy of every server accepts."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The file with the servers' host keys."""
        return self.folder / "known_hosts"

    @property
    def environment(self) -> Path:
        """The generated configuration that makes the servers an environment."""
        return self.root / ".tidegate" / "environments" / f"{self.name}.toml"

    @property
    def id(self) -> str:
        """What tells this sandbox from the others on this machine."""
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:6] + f"-{self.name}"

    @property
    def recipe(self) -> Recipe:
        """What the servers are created from."""
        prefix = "tidegate-" + self.id.removesuffix("-sandbox")
        labels = ((SANDBOX, self.id), (ROOT, str(self.root.resolve())))
        return Recipe(prefix, f"{IMAGE}:{self.target}-{_fingerprint(FOLDER)}", labels)

    def up(self, hosts: int, report: Report) -> list[SandboxServer]:
        """Create, start and await servers until at least that many run; safe to run twice and at once."""
        if hosts < 1:
            raise Refused(f"a sandbox needs at least one host, not {hosts}", fix="inv sandbox.up --hosts 2")
        with self._locked():
            self.ensure_image(report)
            servers = self._bring_up(hosts, self._ensure_key(report), report)
            write(self.known_hosts, known_hosts(servers), 0o600)
            write(self.environment, fragment(self.name, self.domain, servers), 0o600)
        return servers

    def down(self, report: Report) -> None:
        """Remove the servers, their volumes, the keys and the environment. Raises Refused while the engine is down."""
        if not local_engine.answers():
            raise Refused("this machine's engine does not answer, so nothing was removed", where=engine_address(),
                          why="the servers would stay, without the keys that lead to them",
                          fix="start the engine, then inv sandbox.down")  # fmt: skip
        with self._locked():
            self._remove(report)
            self.environment.unlink(missing_ok=True)
            shutil.rmtree(self.folder)

    def status(self) -> list[SandboxServer]:
        """Return the servers as they stand; those that run are asked for their engine's version."""
        return _parallel(self._look, self._containers()) if local_engine.answers() else []

    def ensure_image(self, report: Report) -> None:
        """Build the servers' image unless one of the same files is there."""
        local_engine.ensure(report)
        with machine_lock("sandbox-image"):
            if not self._engine.api.images(self.recipe.image):
                ensure_base(DEBIAN, report, self._engine)
                report("building the image of the sandbox servers")
                build(FOLDER, self.recipe.image, "--target", self.target)

    @property
    def _engine(self) -> DockerClient:
        if self.engine is None:
            self.engine = local_client()
        return self.engine

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        for folder in (self.folder, self.environment.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self.folder.parent / ".gitignore", "*\n", 0o644)
        with file_lock(self.folder.parent / f"{self.name}.lock"):
            self.folder.mkdir(mode=0o700, exist_ok=True)  # `down` may have held the lock
            with _explained(self.id):
                yield

    def _ensure_key(self, report: Report) -> str:
        public = self.identity.with_suffix(".pub")
        if not (self.identity.is_file() and public.is_file()):
            need({"ssh-keygen": "openssh-client"}, report)
            self.identity.unlink(missing_ok=True)
            options = ["-q", "-t", "ed25519", "-N", "", "-C", f"tidegate-{self.id}"]
            subprocess.run(["ssh-keygen", *options, "-f", self.identity], check=True, stdin=subprocess.DEVNULL)
        return public.read_text()

    def _containers(self) -> list[dict[str, Any]]:
        found = self._engine.api.containers(all=True, filters={"label": f"{SANDBOX}={self.id}"})
        return sorted(found, key=lambda one: int(one["Labels"][INDEX]))

    def _bring_up(self, hosts: int, public_key: str, report: Report) -> list[SandboxServer]:
        found = {int(one["Labels"][INDEX]): one for one in self._containers()}
        others = self._engine.api.containers(all=True, filters={"label": SANDBOX})
        taken = [port for one in others for port in ports_of(one)]
        spare = sandbox_server.free_ports(int(self.id[:6], 16), taken)
        indices = range(1, max(hosts, *found, 1) + 1)
        jobs = [_Job(self._engine, self.recipe, index, found.get(index), next(spare), report) for index in indices]
        return _parallel(lambda job: job.run(public_key), jobs)

    def _look(self, one: dict[str, Any]) -> SandboxServer:
        name, state = one["Names"][0].lstrip("/"), one["State"]
        known = sandbox_server.facts(self._engine, one["Id"], seconds=1) if state == "running" else {}
        private = one["NetworkSettings"]["Networks"].get("bridge", {}).get("IPAddress", "")
        return SandboxServer(name, state, ports_of(one), known.get("engine", ""), known.get("key", ""), private=private)

    def _remove(self, report: Report) -> None:
        api, found = self._engine.api, self._containers()
        report(f"removing {len(found)} sandbox servers and their data")
        _parallel(lambda one: api.remove_container(one["Id"], v=True, force=True), found)
        volumes = api.volumes(filters={"label": f"{SANDBOX}={self.id}"})["Volumes"] or []
        _parallel(lambda one: api.remove_volume(one["Name"]), volumes)


@dataclass(frozen=True)
class _Job:
    """Bring up one server, beside the others."""

    engine: DockerClient
    recipe: Recipe
    index: int
    found: dict[str, Any] | None
    spare: Ports
    report: Report

    def run(self, public_key: str) -> SandboxServer:
        container, ports = self._running()
        sandbox_server.admit(self.engine, container, public_key)
        facts = sandbox_server.wait_ready(self.engine, container)
        private = self.engine.api.inspect_container(container)["NetworkSettings"]["IPAddress"]
        return SandboxServer(
            self.recipe.name(self.index), "running", ports, facts.get("engine", ""), facts["key"], private=private
        )

    def _running(self) -> tuple[str, Ports]:
        name = self.recipe.name(self.index)
        if self.found is None:
            self.report(f"starting {name}")
            return self._create()
        try:
            sandbox_server.revive(self.engine, self.found["Id"], self.found["State"])
        except sandbox_server.PortTaken:
            self.report(f"{name}: one of its ports is taken by now; it moves to others, its data stays")
            self.engine.api.remove_container(self.found["Id"], force=True)
            return self._create()
        return self.found["Id"], ports_of(self.found)

    def _create(self) -> tuple[str, Ports]:
        return sandbox_server.create(self.engine, self.recipe, self.index, self.spare), self.spare


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    from ops.engine import EngineError

    try:
        yield
    except EngineError as error:
        fix = "inv sandbox.down, then inv sandbox.up"
        raise Failed("this machine's engine refused", where=f"sandbox {where}", why=str(error), fix=fix) from error


def _parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(work, items))


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
