"""Bringing an image to servers that have no registry: only the layers they lack, over the SSH connection we have.

The local engine pushes to our own registry (deploy/registry.py), a server's engine pulls from it through a reverse
forward; both treat localhost as trusted without configuration and check every digest. Where that cannot work (an
engine in a virtual machine, sshd without remote forwarding) the whole image is piped instead.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.registry import Blobs, Registry
from deploy.session import Doorstep
from ops.build_client import build_cli, build_environment
from ops.errors import Failed

if TYPE_CHECKING:
    from docker import APIClient

CACHE_LIMIT = 4 * 1024**3
PAUSE = 0.05

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Offer:
    """Where an image is in our registry, and the digest under which nobody can exchange it."""

    path: str
    digest: str


class Shipper:
    """Our registry and what was pushed to it, shared by all servers of a deploy; a context manager."""

    def __init__(self, door: Doorstep, state: Path, local: Callable[[], APIClient]) -> None:
        self._local = local
        self._lock = threading.Lock()
        self._offers: dict[str, Offer | None] = {}
        self.blobs = Blobs(state / "blobs")
        self.registry = Registry(self.blobs, door.token, door.listener)

    def __enter__(self) -> Shipper:
        self.registry.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.__exit__()
        if self._offers:
            self.blobs.prune(CACHE_LIMIT)

    def offer(self, image: str) -> Offer | None:
        """Push an image to our registry, once; None when the engine cannot reach us."""
        with self._lock:
            if image not in self._offers:
                self._offers[image] = self._push(image)
            return self._offers[image]

    def _push(self, image: str) -> Offer | None:
        from requests.exceptions import RequestException

        from ops.engine import EngineError

        engine = self._local()
        name, _, version = image.rpartition(":")
        path = f"{self.registry.token}/{name}"
        there = f"localhost:{self.registry.port}/{path}"
        engine.tag(image, there, version)
        try:
            with self.registry.writable():
                failed = any(map(failure, list(engine.push(there, version, stream=True, decode=True))))
        except (EngineError, RequestException):
            failed = True
        finally:
            engine.remove_image(f"{there}:{version}")
        digest = None if failed else self.registry.digest(path, version)
        return Offer(path, digest) if digest else None


def failure(line: Any) -> str | None:
    """Return the error in a line of the engine's progress stream."""
    return str(line["error"]) if isinstance(line, dict) and "error" in line else None


def follow(lines: Iterable[Any], progress: Progress, *, where: str, stop: threading.Event) -> None:
    """Follow a pull, reporting bytes done and in all. Raises Failed with the engine's words, or when told to stop."""
    layers: dict[str, tuple[int, int]] = {}
    for line in lines:
        if stop.is_set():
            raise Failed("the transfer was stopped", where=where)
        if error := failure(line):
            raise Failed("the engine could not pull the image", where=where, why=error, fix="run the deploy again")
        detail = line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and "total" in detail:
            layers[line["id"]] = (detail["current"], detail["total"])
            progress(sum(done for done, _ in layers.values()), sum(total for _, total in layers.values()))


def pipe_whole(image: str, socket: Path, *, where: str, stop: threading.Event) -> None:
    """Pipe an image from the local engine into a server's, file descriptor to file descriptor. Raises Failed."""
    docker, quiet = build_cli()[0], subprocess.DEVNULL
    environment = build_environment()
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen([docker, "save", image], stdin=quiet, stdout=subprocess.PIPE, stderr=words, env=environment) as save,
        subprocess.Popen([docker, "-H", f"unix://{socket}", "load"], stdin=save.stdout, stdout=quiet, stderr=words) as load,
    ):
        assert save.stdout
        save.stdout.close()
        while load.poll() is None:
            if stop.wait(PAUSE):
                save.kill()
                load.kill()
        save.wait()
        words.seek(0)
        why = words.read().decode("utf-8", "replace").strip()
    if save.returncode or load.returncode:
        raise Failed("the image could not be piped to the server", where=where, why=why, fix="run the deploy again")
