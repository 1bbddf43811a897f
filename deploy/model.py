"""What a deploy knows and talks about: releases, containers and the state of a server. Pure data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from deploy.data import DataState
from ops.secret import Secret

WEB = "web"
SLOTS = ("blue", "green")


def other_slot(slot: str | None) -> str:
    """Return the slot to deploy to when `slot` serves (None: nothing does)."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


@dataclass(frozen=True)
class Container:
    """A container of the app as the engine reports it."""

    name: str
    release: str
    slot: str
    process: str
    version: str
    image: str
    running: bool
    address: str
    status: str = ""


@dataclass(frozen=True)
class Release:
    """The immutable manifest of a release on one server; everything a rollback needs to judge it."""

    id: str
    version: str
    slot: str
    image: str
    content: str
    config_hash: str
    environment_hash: str
    port: int
    address: str
    processes: tuple[str, ...]
    edge_file: str
    generation: str
    created: str
    by: str
    previous: str | None = None
    domains: tuple[str, ...] = ()
    health_path: str = "/health"
    https: bool = False
    complete: bool = False
    environment: str = ""  # of ops.toml; manifests from before it was kept have none
    backup: str = ""  # taken before its migration: the data as the release before left it
    migration: str = ""  # what migrated the data for it

    def to_json(self) -> str:
        """Return the manifest's text."""
        known = {key: value for key, value in asdict(self).items() if key != "complete"}
        return json.dumps(known, indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str, *, complete: bool) -> Release:
        """Read a manifest; `complete` (it has served) is told by its file's name. Raises ValueError when it is not one."""
        try:
            known = json.loads(text)
            return Release(
                **{**known, "processes": tuple(known["processes"]), "domains": tuple(known["domains"])}, complete=complete
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a release manifest: {error}") from error


@dataclass(frozen=True)
class EdgeState:
    """nginx on a server: its live file for the app, what that says, and `answering`, the generation it answers with.

    `answers` tells whether it answered at all: with a 404 where it does not know the app.
    """

    present: bool = False
    running: bool = False
    content: str | None = None
    generation: str | None = None
    release: str | None = None
    environment: str | None = None
    answering: str | None = None
    answers: bool = True
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HostState:
    """All that was observed of one server under the lock."""

    host: str
    containers: tuple[Container, ...] = ()
    foreign: frozenset[str] = frozenset()  # names of containers that are not the app's
    releases: tuple[Release, ...] = ()
    edge: EdgeState = EdgeState()
    images: Mapping[str, str] = field(default_factory=dict)
    pems: tuple[str, ...] = ()
    taken: frozenset[str] = frozenset()
    subnet: str | None = None
    disk_free: int = 0
    srv_free: int = 0
    clock_skew: float = 0.0
    api: str = ""
    unfinished: str | None = None
    public: bool = False
    problems: tuple[str, ...] = ()
    data: DataState | None = None  # None where no backups are configured, or nobody asked

    @property
    def environments(self) -> frozenset[str]:
        """Return the environments that the app serves here, or was deployed for where nothing serves."""
        serving = self.release(self.serving)
        known = (serving,) if serving else () if self.serving else self.releases
        return frozenset(filter(None, (self.edge.environment, *(one.environment for one in known if one))))

    @property
    def restoring(self) -> bool:
        """Tell whether a restore of the app's data is under way here, or died: by what it says, or by what nginx serves for it."""
        told = self.data is not None and self.data.restoring
        return told or (self.edge.generation or "").startswith(("draining-", "maintenance-"))

    def of_release(self, release: str | None) -> tuple[Container, ...]:
        """Return the containers of a release."""
        return tuple(one for one in self.containers if one.release == release)

    def release(self, id: str | None) -> Release | None:
        """Return the manifest of a release, None where there is none."""
        return next((one for one in self.releases if one.id == id), None)

    @property
    def serving(self) -> str | None:
        """Return the id of the release whose requests nginx answers: what it answers, else what its file says."""
        by_answer = next((one.id for one in self.releases if one.generation == self.edge.answering), None)
        return (by_answer if self.edge.answering else None) or self.edge.release

    @property
    def answering(self) -> str | None:
        """Return the id of the release that nginx answers with, whether its manifest is there or not."""
        return (self.edge.answering or "").rpartition("-")[0] or None

    @property
    def serving_slot(self) -> str | None:
        """Return the slot in use, as the containers' labels tell it."""
        return next((one.slot for one in self.of_release(self.serving)), None)


@dataclass(frozen=True)
class ProcessSpec:
    """A container to create: what runs in it and what it may use."""

    name: str
    process: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str | Secret]
    labels: Mapping[str, str]
    volumes: Mapping[str, str]
    address: str | None
    memory: str | None
    stop_seconds: float
    healthcheck: bool


@dataclass(frozen=True)
class HealthSpec:
    """How to tell that a container is healthy: over HTTP, or by staying up."""

    container: str
    address: str = ""
    port: int = 0
    path: str = ""
    host: str = ""
    successes: int = 0
    interval: float = 0.1
    steady: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return it as the agent takes it."""
        if self.steady is not None:
            return {"container": self.container, "steady": self.steady}
        return {key: value for key, value in asdict(self).items() if key != "steady"}


@dataclass(frozen=True)
class ImageRef:
    """The image to run: its name on the servers, the fingerprint of what it was built from, its size in bytes.

    `volumes` are the paths that it declares as volumes itself, `id` is what this machine's engine calls it.
    """

    name: str
    version: str
    content: str
    size: int = 0
    pull: bool = False
    volumes: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Pem:
    """A certificate chain and its key in one file, named after its content so that it never changes."""

    name: str
    content: Secret


@dataclass(frozen=True)
class Intent:
    """What is wanted: the image, the environment to run it with, and who asks when."""

    image: ImageRef
    environment: Mapping[str, str | Secret]
    config_hash: str
    environment_hash: str
    edge_extra: str
    pem: Pem | None
    nonce: str
    now: datetime
    by: str
    force: bool = False
    skip_backup: bool = False
    build_seconds: float = 0.0
    bill: str = ""  # of materials, where the image was scanned


@dataclass(frozen=True)
class Probe:
    """The request that the prober sends through the edge."""

    domain: str
    path: str
    https: bool


@dataclass(frozen=True)
class ProbeReport:
    """What the prober saw: counts and latencies in seconds."""

    requests: int = 0
    failures: int = 0
    p50: float = 0.0
    p99: float = 0.0
    after_mark: int = 0
    requests_after_mark: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def worse(self) -> bool:
        """Tell whether a greater share of requests failed after the mark than before it."""
        before = self.requests - self.requests_after_mark
        return self.after_mark * before > (self.failures - self.after_mark) * self.requests_after_mark or not before
