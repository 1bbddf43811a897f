"""Three ways of bringing the same changed image to a server, each over a connection that is open already."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from deploy.bench_lab import Lab, Run, Setting
from deploy.docker_server import DockerServer
from deploy.model import ImageRef
from deploy.session import Session
from deploy.ship import Shipper, failure, pipe_whole
from ops.config import load
from ops.errors import Failed
from ops.this_machine import local_client

if TYPE_CHECKING:
    from docker import APIClient

WAYS = {
    "registry": "our registry protocol: push the new layers, pull the missing ones",
    "tar": "`docker save`, the present layers taken out, `docker load`",
    "whole": "`docker save` piped into `docker load`",
}


def compare(lab: Lab, setting: Setting, ways: Sequence[str]) -> dict[str, Run]:
    """Bring one newly built image to the first server by each way, removing it between."""
    lab.change()
    lab.watch(setting, "docker.build", "--no-verbose")
    image = local_client().api.images(f"tidegate/bench-{setting.variant}")[0]["RepoTags"][0]
    lab.declare(setting)
    environment = load(lab.root / setting.config, os.environ).environment(setting.environment)
    line, found = lab.lines[setting.line][0], {}
    with Session(environment, ships=True) as session:
        assert session.door
        with Shipper(session.door, session.state, lambda: local_client().api) as shipper:
            link = session.links[0]
            server = DockerServer(environment, link, shipper, lambda done, total: None)
            send: dict[str, Callable[[], object]] = {
                "registry": lambda: server.receive(ImageRef(image, image.rpartition(":")[2], "")),
                "tar": lambda: send_missing(local_client().api, server.engine, image),
                "whole": lambda: pipe_whole(image, link.socket, where=link.name, stop=threading.Event()),
            }
            server.engine.version()
            for way in ways:
                before, began = line.received_by_target, time.monotonic()
                send[way]()
                seconds = time.monotonic() - began
                server.engine.inspect_image(image)
                found[way] = Run(seconds, received=line.received_by_target - before)
                server.engine.remove_image(image)
    return found


def send_missing(local: APIClient, remote: APIClient, image: str) -> None:
    """Load an image without the layers that the server has under one of its own images. Raises Failed."""
    layers = local.inspect_image(image)["RootFS"]["Layers"]
    there = (remote.inspect_image(one["Id"])["RootFS"].get("Layers") or [] for one in remote.images())
    present = max((common(layers, one) for one in there), default=0)
    with tempfile.TemporaryFile() as whole, tempfile.TemporaryFile() as rest:
        for chunk in local.get_image(image):
            whole.write(chunk)
        whole.seek(0)
        strip(whole, rest, present)
        rest.seek(0)
        if problem := next(filter(None, map(failure, remote.load_image(rest))), None):
            raise Failed("the server did not load the image", why=problem)


def common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return how many layers two images share, from the base up."""
    return next(
        (count for count, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), min(len(ours), len(theirs))
    )


def strip(whole: IO[bytes], rest: IO[bytes], present: int) -> None:
    """Copy a saved image without the content of its first layers, compressed a little."""
    with tarfile.open(fileobj=whole) as source, tarfile.open(fileobj=rest, mode="w:gz", compresslevel=1) as target:
        listed = source.extractfile("manifest.json")
        assert listed
        left_out = set(json.load(listed)[0]["Layers"][:present])
        for member in source:
            if member.name not in left_out:
                content = source.extractfile(member) if member.isfile() else None
                target.addfile(member, io.BytesIO(content.read()) if content else None)
