"""What an engine holds on to until an upgrade is certain: copies of volumes, and the images from before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from monitoring.images import Running, images_running
from ops.errors import Failed
from ops.names import LABEL

if TYPE_CHECKING:
    from docker import APIClient

LABEL_SNAPSHOT = f"{LABEL}.snapshot"  # of which volume
HELD = "tidegate-monitoring/before-upgrade"
_SECONDS = 600
_MAY = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")  # what copying owners and modes takes
_COPY = "cp -a /from/. /to/ && sync -f /to"
_REPLACE = f"find /to -mindepth 1 -delete && {_COPY}"


def snapshot(engine: APIClient, volume: str, tools: str) -> None:
    """Copy a volume that nobody writes to, in a one-off container of the image `tools`; an older copy goes. Raises Failed."""
    drop(engine, volume)
    engine.create_volume(snapshot_name(volume), labels={LABEL_SNAPSHOT: volume})
    _run(engine, tools, volume, _COPY, [f"{volume}:/from:ro", f"{snapshot_name(volume)}:/to"])


def put_back(engine: APIClient, volume: str, tools: str) -> None:
    """Make a volume what its copy is; may be repeated after it was cut short. Raises Failed."""
    _run(engine, tools, volume, _REPLACE, [f"{snapshot_name(volume)}:/from:ro", f"{volume}:/to"])


def drop(engine: APIClient, volume: str) -> None:
    """Remove the copy of a volume; none there is fine."""
    from ops.engine import NotFound

    _remove(engine, _container(volume))
    with suppress(NotFound):
        engine.remove_volume(snapshot_name(volume))


def snapshot_name(volume: str) -> str:
    """Return what the copy of a volume is called."""
    return f"{volume}-before-upgrade"


class OnEngine:
    """The half of an upgrade's Stack that a server's engine alone can do."""

    def __init__(self, engine: APIClient, project: str, tools: str, volumes: Mapping[str, str]) -> None:
        self.engine = engine
        self.project = project
        self._tools = tools
        self._volumes = volumes

    def running(self) -> Mapping[str, Running]:
        """Return the image of each service's container, started or not."""
        return images_running(self.engine, self.project)

    def keeps_data(self, service: str) -> bool:
        """Say whether a service's volume is copied before its image changes."""
        return service in self._volumes

    def hold(self, service: str, old: Running) -> None:
        """Give the image that runs a tag of ours, so that no clean-up takes it."""
        self.engine.tag(old.id, HELD, service)

    def snapshot(self, service: str) -> None:
        """Copy the volume of a service that is stopped."""
        snapshot(self.engine, self._volumes[service], self._tools)

    def put_back(self, service: str) -> None:
        """Make the volume of a service that is stopped what it was."""
        put_back(self.engine, self._volumes[service], self._tools)

    def give_back(self, old: Running) -> None:
        """Let a name be the image from before: a pull by digest may have taken it."""
        repository, _, tag = old.name.rpartition(":")
        self.engine.tag(old.id, repository, tag)

    def let_go(self, services: Sequence[str], unused: Sequence[str]) -> None:
        """Remove the copies of volumes, our tags, and those images that nothing uses."""
        from ops.engine import EngineError

        for service in services:
            if service in self._volumes:
                drop(self.engine, self._volumes[service])
        for image in (*(f"{HELD}:{service}" for service in services), *unused):
            with suppress(EngineError):  # gone already, or something else runs on it
                self.engine.remove_image(image)


def _container(volume: str) -> str:
    return f"{volume}-copy"


def _run(engine: APIClient, image: str, volume: str, command: str, binds: Sequence[str]) -> None:
    """Run a command as root on nothing but these volumes. One that a dead command of ours left at work ends first."""
    name = _container(volume)
    _remove(engine, name)
    host = engine.create_host_config(
        binds=list(binds), network_mode="none", cap_drop=["ALL"], cap_add=list(_MAY),
        read_only=True, security_opt=["no-new-privileges"],
    )  # fmt: skip
    engine.create_container(image, ["-c", command], entrypoint=["/bin/sh"], user="0:0", name=name, host_config=host)
    try:
        engine.start(name)
        if engine.wait(name, timeout=_SECONDS)["StatusCode"]:
            why = engine.logs(name, tail=5).decode("utf-8", "replace").strip()
            raise Failed(f"volume {volume} cannot be copied", why=why, fix="make room on the server, then run this again")
    finally:
        _remove(engine, name)


def _remove(engine: APIClient, name: str) -> None:
    from ops.engine import NotFound

    with suppress(NotFound):
        engine.remove_container(name, force=True)
