"""Bringing an image to servers that have no registry: only the layers they lack, over the SSH connection we have.

The local engine pushes to our own registry (deploy/registry.py), a server's engine pulls from it through a reverse
forward; both treat localhost as trusted without configuration and check every digest. Where that cannot work (an
engine in a virtual machine, sshd without remote forwarding) the whole image is piped instead.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.build_client import build_cli
from deploy.registry import Blobs, Registry
from ops.errors import Failed

if TYPE_CHECKING:
    from docker import APIClient

CACHE_LIMIT = 4 * 1024**3

Progress = Callable[[int, int], None]


class Shipper:
    """Our registry and what was pushed to it, shared by all servers of a deploy; a context manager."""

    def __init__(self, state: Path, local: Callable[[], APIClient]) -> None:
        self._local = local
        self._lock = threading.Lock()
        self._pushed: dict[str, str | None] = {}
        self._stack = ExitStack()
        self._blobs = Blobs(state / "blobs")
        self._memory = state / "registry.json"
        self.registry = self._stack.enter_context(self._open())

    def _open(self) -> Registry:
        """Open under the name of last time, by which the local engine remembers what it pushed."""
        known = json.loads(self._memory.read_text()) if self._memory.exists() else {}
        registry = Registry(self._blobs, known.get("token") or secrets.token_hex(16), known.get("port", 0))
        self._memory.touch(mode=0o600)
        self._memory.write_text(json.dumps({"token": registry.token, "port": registry.port}))
        return registry

    def __enter__(self) -> Shipper:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._blobs.prune(CACHE_LIMIT)

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
    save = subprocess.Popen([docker, "save", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    load = subprocess.run([docker, "-H", f"unix://{socket}", "load"], stdin=save.stdout, capture_output=True, check=False)
    assert save.stdout and save.stderr
    save.stdout.close()
    words = save.stderr.read().decode("utf-8", "replace")
    if save.wait() or load.returncode:
        why = (words + load.stderr.decode("utf-8", "replace")).strip()
        raise Failed("the image could not be piped to the server", where=where, why=why, fix="run the deploy again")
