"""Bringing an image to servers that have no registry: only the layers they lack, over the SSH connection we have.

The local engine pushes to our own registry (deploy/registry.py), a server's engine pulls from it through a reverse
forward; both treat localhost as trusted without configuration and check every digest. Where that cannot work (an
engine in a virtual machine, sshd without remote forwarding) the whole image is piped instead.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.build_client import build_cli
from deploy.registry import Blobs, Registry
from deploy.session import Doorstep
from ops.errors import Failed

if TYPE_CHECKING:
    from docker import APIClient

CACHE_LIMIT = 4 * 1024**3

Progress = Callable[[int, int], None]


class Shipper:
    """Our registry and what was pushed to it, shared by all servers of a deploy; a context manager."""

    def __init__(self, door: Doorstep, state: Path, local: Callable[[], APIClient]) -> None:
        self._local = local
        self._lock = threading.Lock()
        self._pushed: dict[str, str | None] = {}
        self._blobs = Blobs(state / "blobs")
        self.registry = Registry(self._blobs, door.token, door.listener)

    def __enter__(self) -> Shipper:
        self.registry.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.__exit__()
        if self._pushed:
            self._blobs.prune(CACHE_LIMIT)

    def forget(self) -> None:
        """Forget what was pushed: a server could not use it, so the next deploy offers it anew."""
        self._blobs.forget()

    def offer(self, image: str) -> str | None:
        """Push an image to our registry, once; return its path there, None when the engine cannot reach us."""
        with self._lock:
            if image not in self._pushed:
                self._pushed[image] = self._push(image)
            return self._pushed[image]

    def _push(self, image: str) -> str | None:
        engine = self._local()
        name, _, version = image.rpartition(":")
        path = f"{self.registry.token}/{name}"
        there = f"localhost:{self.registry.port}/{path}"
        engine.tag(image, there, version)
        try:
            failed = next(filter(None, map(failure, engine.push(there, version, stream=True, decode=True))), None)
        finally:
            engine.remove_image(f"{there}:{version}")
        return None if failed else path


def failure(line: Any) -> str | None:
    """Return the error in a line of the engine's progress stream."""
    return str(line["error"]) if isinstance(line, dict) and "error" in line else None


def follow(lines: Iterable[Any], progress: Progress, *, where: str) -> None:
    """Follow a pull, reporting bytes done and in all. Raises Failed with the engine's words."""
    layers: dict[str, tuple[int, int]] = {}
    for line in lines:
        if error := failure(line):
            raise Failed("the engine could not pull the image", where=where, why=error, fix="run the deploy again")
        detail = line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and "total" in detail:
            layers[line["id"]] = (detail["current"], detail["total"])
            progress(sum(done for done, _ in layers.values()), sum(total for _, total in layers.values()))


def pipe_whole(image: str, socket: Path, *, where: str) -> None:
    """Pipe an image from the local engine into a server's, file descriptor to file descriptor. Raises Failed."""
    docker = build_cli()[0]
    with subprocess.Popen([docker, "save", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as save:
        assert save.stdout
        assert save.stderr
        load = subprocess.run([docker, "-H", f"unix://{socket}", "load"], stdin=save.stdout, capture_output=True, check=False)
        save.stdout.close()
        words = save.stderr.read().decode("utf-8", "replace")
    if save.returncode or load.returncode:
        why = (words + load.stderr.decode("utf-8", "replace")).strip()
        raise Failed("the image could not be piped to the server", where=where, why=why, fix="run the deploy again")
