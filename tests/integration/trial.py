"""Images built from clones of a commit, and looked at from outside: there is no shell in them to ask."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.images.layers import opened_image
from deploy.images.size import MEGABYTE, budgets
from ops.build_client import build
from ops.this_machine import local_client
from tests.integration.project import REPOSITORY, wait_until

if TYPE_CHECKING:
    from docker.models.containers import Container

BUDGETS = budgets(tomllib.loads((REPOSITORY / "docker/budgets.toml").read_text()))
EPOCH = 1_750_000_000
UID = 10001
ENGINES = {
    ".dockerenv",
    "dev",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "sys",
}
TOOLS = {
    "apk",
    "apt",
    "apt-get",
    "ash",
    "bash",
    "busybox",
    "curl",
    "dash",
    "dpkg",
    "npm",
    "npx",
    "perl",
    "pip",
    "pip3",
    "sh",
    "uv",
    "wget",
    "zsh",
}
HARDENED: dict[str, Any] = {"detach": True, "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
EVERY_SECOND = {"interval": 1_000_000_000}


def commit(folder: Path, sources: Mapping[str, Path]) -> Path:
    """Make a repository of copies of these files and folders, with one commit."""
    for name, source in sources.items():
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(source, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    who = "-c", "user.name=Test", "-c", "user.email=test@example.com"
    git(folder, *who, "commit", "--quiet", "--message", "all", f"--date=@{EPOCH}", GIT_COMMITTER_DATE=f"@{EPOCH}")
    return folder


def clones(repository: Path, into: Path) -> tuple[Path, Path]:
    """Clone twice: at different times, by people with different habits."""
    one, other = into / "one", into / "somewhere" / "else"
    for clone, umask in ((one, 0o022), (other, 0o077)):
        git(into, "clone", "--quiet", str(repository), str(clone), umask=umask)
    for path in (other, *other.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return one, other


def git(folder: Path, *words: str, umask: int = -1, **variables: str) -> str:
    """Run git in a folder."""
    environment = {**os.environ, **variables}
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True, umask=umask, env=environment)
    return done.stdout.strip()


@dataclass(frozen=True)
class Trial:
    """An image that was built for a test."""

    name: str

    @property
    def layers(self) -> list[str]:
        """Return the digests of its layers."""
        return list(self._known["RootFS"]["Layers"])

    @property
    def configuration(self) -> dict[str, Any]:
        """Return what containers of it begin with."""
        return dict(self._known["Config"])

    @property
    def _known(self) -> dict[str, Any]:
        return dict(local_client().api.inspect_image(self.name))

    @contextmanager
    def running(self, port: int, **options: Any) -> Iterator[Running]:
        """Lend a container of it that may write nowhere and has no capabilities."""
        run = local_client().containers.run
        made = run(self.name, ports={f"{port}/tcp": ("127.0.0.1", 0)}, healthcheck=EVERY_SECOND, **HARDENED, **options)
        try:
            yield Running(made, port)
        finally:
            made.remove(force=True, v=True)

    def run(self, *command: str, **options: Any) -> str:
        """Run a command to its end and return what it printed. Raises the engine's errors."""
        return str(local_client().containers.run(self.name, list(command), remove=True, **options).decode())

    @cached_property
    def files(self) -> dict[str, tarfile.TarInfo]:
        """Return every file and folder of it that the engine did not put there."""
        made = local_client().containers.create(self.name, ["none"])
        try:
            with subprocess.Popen(["docker", "export", str(made.id)], stdout=subprocess.PIPE) as process:
                assert process.stdout
                with tarfile.open(fileobj=process.stdout, mode="r|") as members:
                    return {path: one for one in members if (path := one.name.rstrip("/")) not in ENGINES}
        finally:
            made.remove()

    @property
    def programs(self) -> set[str]:
        """Return what can be executed, libraries left out."""
        found = {path for path, one in self.files.items() if one.isfile() and one.mode & 0o111}
        return {path for path in found if ".so" not in path.rpartition("/")[2]}

    @property
    def tools(self) -> set[str]:
        """Return shells, package managers and whatever runs with another user's rights."""
        privileged = {path for path, one in self.files.items() if one.isfile() and one.mode & 0o6000}
        return privileged | {path for path, one in self.files.items() if not one.isdir() and path.rpartition("/")[2] in TOOLS}

    @property
    def writable(self) -> set[str]:
        """Return what user 10001 may write to."""
        return {path for path, one in self.files.items() if not one.issym() and (one.uid == UID or one.mode & 0o002)}

    def fits(self, cache: Path, *table: str) -> None:
        """Fail if it travels in more bytes than docker/budgets.toml says."""
        allowed = BUDGETS[table]
        with opened_image(self.name, cache, local_client(timeout=120).api) as image:
            assert image.compressed <= allowed, f"{image.compressed / MEGABYTE:.2f} MB"


@dataclass(frozen=True)
class Running:
    """A container of an image on trial."""

    made: Container
    port: int

    def becomes(self, state: str) -> str:
        """Wait until its health is that; return what its last check said."""
        wait_until(lambda: self._health["Status"] == state, f"not {state}: {self.made.logs().decode()}")
        return str(self._health["Log"][-1]["Output"]) if self._health["Log"] else ""

    @property
    def _health(self) -> dict[str, Any]:
        self.made.reload()
        return dict(self.made.attrs["State"]["Health"])

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask for a page; return status, headers and body."""
        address = (self.made.ports[f"{self.port}/tcp"] or [])[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(address["HostPort"]), timeout=5)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def stops(self) -> int:
        """Ask it to stop; return its exit code."""
        self.made.stop(timeout=10)
        return int(self.made.wait()["StatusCode"])


def built(context: Path, dockerfile: Path, name: str, *options: str) -> Trial:
    """Build an image as `inv docker.build` does, its health asked after every second."""
    epoch = f"SOURCE_DATE_EPOCH={git(context, 'log', '-1', '--format=%ct')}"
    build(context, name, "--file", str(dockerfile), "--build-arg", epoch, *options)
    return Trial(name)


def remove(prefix: str) -> None:
    """Remove images by the beginning of their names."""
    api = local_client().api
    for name in [name for image in api.images() for name in image["RepoTags"] or () if name.startswith(prefix)]:
        api.remove_image(name)
