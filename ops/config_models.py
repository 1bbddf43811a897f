"""The types of the configuration; `ops.config` is where others import them from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from ops import config_values as check
from ops import durations
from ops.config_backup import Backup
from ops.config_hosts import HostAddress
from ops.config_monitoring import AppMetrics, Monitoring, Objectives
from ops.config_types import (
    AnyPath,
    CommandLine,
    Count,
    File,
    Flag,
    Model,
    Pause,
    Port,
    Size,
    Text,
    Variable,
    Wait,
    distinct,
    existing_file,
)


class Health(Model):
    """When a new container counts as healthy."""

    path: Annotated[str, AfterValidator(check.url_path)] = "/health"
    successes: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    interval: Pause = 0.05
    timeout: Pause = 60.0

    @field_validator("timeout")
    @classmethod
    def _long_enough(cls, value: float, info: ValidationInfo) -> float:
        needed = info.data.get("successes", 0) * info.data.get("interval", 0)
        if value < needed:
            raise ValueError(f"at least successes times interval = {durations.duration_text(needed)}")
        return value


class Drain(Model):
    """How long the old release may finish what it has begun."""

    grace: Wait = 10.0
    connections: Wait = 30.0
    idle: Wait = 5.0


class Migrate(Model):
    """The one-off container that migrates data before the new release starts."""

    command: CommandLine
    on: Literal["first", "each"] = "first"
    timeout: Pause = 600.0


class Process(Model):
    """An extra process of the app, such as a worker."""

    command: CommandLine
    steady: Wait = 1.0


class Services(Model):
    """Databases and caches beside the app: a Compose file, and the names of secrets that are variables in it."""

    compose: File
    secrets: tuple[Variable, ...] = ()
    timeout: Pause = 120.0


class Edge(Model):
    """What nginx does for the app."""

    body_size: Size = "10m"
    timeout: Pause = 60.0
    gzip: Flag = True
    include: File | None = None


class Prober(Model):
    """The requests that measure what users see during a deploy."""

    interval: Pause = 0.05
    budget: Count = 0


class App(Model):
    """One app as one environment runs it."""

    name: Annotated[str, AfterValidator(check.app_name)]
    image: Annotated[str, AfterValidator(check.image)] | None = None
    context: AnyPath = Field(default=Path(), validate_default=True)
    dockerfile: AnyPath = Field(default=Path("Dockerfile"), validate_default=True)
    port: Port
    keep_releases: Annotated[int, Field(strict=True, ge=2, le=1000)] = 5
    environment: dict[Variable, Text] = {}
    secrets: tuple[Variable, ...] = ()
    volumes: dict[Annotated[str, AfterValidator(check.volume)], Annotated[str, AfterValidator(check.mount_path)]] = {}
    memory: Size | None = None
    command: tuple[Text, ...] = ()
    health: Health = Health()
    drain: Drain = Drain()
    migrate: Migrate | None = None
    processes: dict[Annotated[str, AfterValidator(check.process_name)], Process] = {}
    edge: Edge = Edge()
    prober: Prober = Prober()
    services: Services | None = None
    backup: Backup | None = None
    metrics: AppMetrics | None = None
    objectives: Objectives = Objectives()

    @field_validator("context", "dockerfile")
    @classmethod
    def _exists(cls, value: Path, info: ValidationInfo) -> Path:
        built = info.context and info.data.get("image", "wrong") is None
        if built and info.field_name == "context" and not value.is_dir():
            raise ValueError(f"an existing folder (looked for {value})")
        return existing_file(value, info) if built and info.field_name == "dockerfile" else value

    @field_validator("secrets")
    @classmethod
    def _no_collision(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        both = sorted(set(value) & set(info.data.get("environment", {})))
        if both:
            raise ValueError(f"names that are not in environment as well ({', '.join(both)})")
        return distinct(value)

    @field_validator("volumes")
    @classmethod
    def _one_volume_a_path(cls, value: dict[str, str]) -> dict[str, str]:
        distinct(tuple(value.values()))
        return value

    @field_validator("backup", mode="before")
    @classmethod
    def _tell_volumes(cls, value: object, info: ValidationInfo) -> object:
        """Let the sources of backups know which volumes there are."""
        if info.context is not None:
            info.context["volumes"] = info.data.get("volumes")
        return value

    @field_validator("memory")
    @classmethod
    def _enough_memory(cls, value: str | None) -> str | None:
        if value is not None and durations.size_bytes(value) < 6 * 1024**2:
            raise ValueError('at least "6m", the least that Docker takes')
        return value


class Tls(Model):
    """The certificate chain of an environment and the name of the secret that holds its key."""

    certificate: File
    key: Variable


class SecretSource(Model):
    """The command that prints a secret."""

    command: CommandLine


class Notifications(Model):
    """Who hears of a deploy: names of secrets that hold Apprise URLs."""

    urls: tuple[Variable, ...] = ()
    on: tuple[Literal["success", "failure"], ...] = ("success", "failure")


class Environment(Model):
    """One environment with everything merged: where the app runs and how."""

    name: Annotated[str, AfterValidator(check.name)]
    app: App
    hosts: Annotated[tuple[HostAddress, ...], Field(min_length=1)]
    domains: Annotated[tuple[Annotated[str, AfterValidator(check.domain)], ...], Field(min_length=1)]
    approve: Flag = False
    known_hosts: AnyPath = Field(default=Path("known_hosts"), validate_default=True)
    tls: Tls | None = None
    notifications: Notifications = Notifications()
    monitoring: Monitoring = Monitoring()
    secrets: dict[Variable, SecretSource] = {}
    project_root: Path = Path()

    @field_validator("hosts")
    @classmethod
    def _each_server_once(cls, value: tuple[HostAddress, ...]) -> tuple[HostAddress, ...]:
        distinct(tuple(f"{host.address.lower()} port {host.port or 22}" for host in value))
        return value

    @field_validator("domains")
    @classmethod
    def _each_domain_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(value)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Every secret that this environment uses, each once."""
        key = (self.tls.key,) if self.tls else ()
        services = self.app.services.secrets if self.app.services else ()
        backup = self.app.backup.secret_names if self.app.backup else ()
        watching = self.monitoring.secret_names
        return tuple(dict.fromkeys((*self.app.secrets, *key, *self.notifications.urls, *services, *backup, *watching)))

    @property
    def servers(self) -> tuple[HostAddress, ...]:
        """Every server there is: the app's, and the one with the stack where that is one of its own."""
        return tuple(dict.fromkeys((*self.hosts, self.watcher)))

    @property
    def watcher(self) -> HostAddress:
        """The server with the monitoring stack: one of the app's, or one of its own."""
        wanted = self.monitoring.host
        if wanted is None:
            return self.hosts[0]
        place = (wanted.address.lower(), wanted.port or 22)
        return next((host for host in self.hosts if (host.address.lower(), host.port or 22) == place), wanted)
