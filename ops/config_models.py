"""The types of the configuration; `ops.config` is where others import them from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ops import config_values as check
from ops import durations

MAX_DURATION = 86400.0

Text = Annotated[str, AfterValidator(check.literal)]
Variable = Annotated[str, AfterValidator(check.variable)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Flag = Annotated[bool, Field(strict=True)]
Size = Annotated[str, BeforeValidator(durations.size)]
Wait = Annotated[float, BeforeValidator(durations.seconds), Field(ge=0, le=MAX_DURATION)]
Pause = Annotated[float, BeforeValidator(durations.seconds), Field(ge=0.005, le=MAX_DURATION)]
CommandLine = Annotated[tuple[Text, ...], Field(min_length=1)]


def _under_root(path: Path, info: ValidationInfo) -> Path:
    """Make a path absolute: relative ones start at the folder of ops.toml, `~` is the home folder."""
    context = info.context or {}
    home = context.get("home", "~")
    text = str(path)
    full = Path(home + text[1:]).expanduser() if text == "~" or text.startswith("~/") else path
    return Path(context["root"], full) if "root" in context else full


def _file(path: Path, info: ValidationInfo) -> Path:
    if info.context and not path.is_file():
        raise ValueError(f"an existing file (looked for {path})")
    return path


AnyPath = Annotated[Path, BeforeValidator(check.file_path), AfterValidator(_under_root)]
File = Annotated[AnyPath, AfterValidator(_file)]


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


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

    @field_validator("context", "dockerfile")
    @classmethod
    def _exists(cls, value: Path, info: ValidationInfo) -> Path:
        built = info.context and info.data.get("image", "wrong") is None
        if built and info.field_name == "context" and not value.is_dir():
            raise ValueError(f"an existing folder (looked for {value})")
        return _file(value, info) if built and info.field_name == "dockerfile" else value

    @field_validator("secrets")
    @classmethod
    def _no_collision(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        both = sorted(set(value) & set(info.data.get("environment", {})))
        if both:
            raise ValueError(f"names that are not in environment as well ({', '.join(both)})")
        return _distinct(value)

    @field_validator("volumes")
    @classmethod
    def _one_volume_a_path(cls, value: dict[str, str]) -> dict[str, str]:
        _distinct(tuple(value.values()))
        return value

    @field_validator("memory")
    @classmethod
    def _enough_memory(cls, value: str | None) -> str | None:
        if value is not None and durations.size_bytes(value) < 6 * 1024**2:
            raise ValueError('at least "6m", the least that Docker takes')
        return value


class HostAddress(Model):
    """How one server is reached over SSH, and its edge over HTTP."""

    address: Annotated[str, AfterValidator(check.address)]
    user: Annotated[str, AfterValidator(check.user)] | None = None
    port: Port | None = None
    identity: AnyPath | None = None
    url: Annotated[str, AfterValidator(check.url)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return check.host_parts(value) if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """The server as people name it: `user@address:port` without what is left to ssh or usual."""
        odd_port = self.port not in (None, 22)
        address = f"[{self.address}]" if odd_port and ":" in self.address else self.address
        return (f"{self.user}@" if self.user else "") + address + (f":{self.port}" if odd_port else "")

    def __str__(self) -> str:
        return self.name


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
    secrets: dict[Variable, SecretSource] = {}
    project_root: Path = Path()

    @field_validator("hosts")
    @classmethod
    def _each_server_once(cls, value: tuple[HostAddress, ...]) -> tuple[HostAddress, ...]:
        _distinct(tuple(f"{host.address.lower()} port {host.port or 22}" for host in value))
        return value

    @field_validator("domains")
    @classmethod
    def _each_domain_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct(value)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Every secret that this environment uses, each once."""
        key = (self.tls.key,) if self.tls else ()
        return tuple(dict.fromkeys((*self.app.secrets, *key, *self.notifications.urls)))


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"each one once (twice: {', '.join(twice)})")
    return values
