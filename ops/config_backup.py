"""The tables of backups in the configuration: what is saved, how, and how long it is kept."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from ops import config_values as check
from ops.config_types import Model, Period, Port, Size, Text, Variable

DAY = 86400.0

Kind = Literal["sqlite", "postgres", "mariadb", "directory"]

_FILES = ("volume", "path")
_DATABASE = ("container", "address", "port", "image", "user", "database", "password")
_KEYS: dict[str, tuple[str, ...]] = {
    "sqlite": (*_FILES, "smoke"),
    "directory": (*_FILES, "exclude"),
    "postgres": (*_DATABASE, "smoke"),
    "mariadb": (*_DATABASE, "smoke"),
}


class BackupSource(Model):
    """One thing to save: an SQLite file, a folder, or a database in a container or at an address."""

    kind: Kind
    on: Literal["each", "first"] | None = None
    volume: str | None = Field(default=None, validate_default=True)
    path: Text | None = Field(default=None, validate_default=True)
    address: Annotated[str, AfterValidator(check.address)] | None = None
    port: Port | None = None
    image: Annotated[Text, Field(min_length=1)] | None = Field(default=None, validate_default=True)
    container: Annotated[str, AfterValidator(check.container)] | None = Field(default=None, validate_default=True)
    user: Annotated[Text, Field(min_length=1)] | None = Field(default=None, validate_default=True)
    database: Annotated[Text, Field(min_length=1)] | None = Field(default=None, validate_default=True)
    password: Variable | None = None
    smoke: Text | None = None
    exclude: tuple[Text, ...] = ()

    @field_validator(
        "volume", "path", "address", "port", "image", "container", "user", "database", "password", "smoke", "exclude"
    )
    @classmethod
    def _belongs_to_the_kind(cls, value: object, info: ValidationInfo) -> object:
        kind = info.data.get("kind")
        if value and kind and info.field_name not in _KEYS[kind]:
            raise ValueError(f'no such key in a source whose kind is "{kind}" (its keys are {", ".join(_KEYS[kind])})')
        return value

    @field_validator("volume")
    @classmethod
    def _is_one_of_the_app(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = (info.context or {}).get("volumes")
        if value is not None and known is not None and value not in known:
            raise ValueError(f"a key of [app.volumes] ({', '.join(known) or 'there is none'})")
        return value

    @field_validator("path")
    @classmethod
    def _leads_somewhere(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind, volume = info.data.get("kind"), info.data.get("volume")
        if kind not in ("sqlite", "directory") or "volume" not in info.data:
            return value
        if value is None:
            if kind == "sqlite" or not volume:
                raise ValueError("the path of a file" if kind == "sqlite" else "a path, or a volume, or both")
            return None
        return check.place_in_volume(value) if volume else check.place_on_server(value)

    @field_validator("image")
    @classmethod
    def _has_client_programs(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("address"):
            raise ValueError('the image of the server\'s own major, such as "postgres:16", for its client programs')
        return value

    @field_validator("container")
    @classmethod
    def _is_reached_one_way(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("kind") in ("postgres", "mariadb") and "address" in info.data:
            given = [key for key in ("address", "port", "image") if info.data.get(key)]
            if value is None and "address" not in given:
                raise ValueError("the name of the database's container, or else address and image")
            if value is not None and given:
                raise ValueError(f"either container or address and image, and {given[0]} is there as well")
        return value

    @field_validator("user", "database")
    @classmethod
    def _is_named(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("kind") in ("postgres", "mariadb"):
            raise ValueError("a value, a database needs it")
        return value

    @property
    def each(self) -> bool:
        """Tell whether every host has this source, rather than the first alone."""
        return self.on == "each" if self.on else self.kind in ("sqlite", "directory")


def _below(folder: BackupSource, file: BackupSource) -> str | None:
    """Return a file's path from a folder on, None where it lies elsewhere."""
    if folder.volume != file.volume:
        return None
    above, path = (folder.path or "").rstrip("/"), file.path or ""
    if not above or above == ".":
        return path.removeprefix("./")
    return path.removeprefix(f"{above}/") if path.startswith(f"{above}/") else None


class Keep(Model):
    """How long backups of a type are kept: a period, a number of good ones, or whichever keeps more."""

    keep: Annotated[Period, Field(ge=1)] | None = None
    count: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Keep:
        if self.keep is None and self.count is None:
            raise ValueError('keep = "30d", or count = 10, or both')
        return self


class Keeping(Model):
    """The rule of each type of backup."""

    daily: Keep = Keep(keep=30 * DAY)
    weekly: Keep = Keep(keep=90 * DAY)
    monthly: Keep = Keep(keep=365 * DAY)
    manual: Keep = Keep(keep=30 * DAY)
    deploy: Keep = Keep(keep=7 * DAY)
    safety: Keep = Keep(keep=7 * DAY)


class Offsite(Model):
    """A restic repository as a second store; what it needs to reach it are names of secrets."""

    repository: Annotated[Text, Field(min_length=1)]
    password: Variable
    environment: dict[Variable, Variable] = {}

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The secrets that it needs."""
        return (self.password, *self.environment.values())


class Backup(Model):
    """What is saved, how, when, and for how long."""

    sources: dict[Annotated[str, AfterValidator(check.name)], BackupSource]
    compression: Literal["zstd", "gzip", "xz", "none"] = "zstd"
    level: Annotated[int, Field(strict=True, ge=1, le=19)] = 3
    recipients: tuple[Annotated[str, AfterValidator(check.recipient)], ...] = ()
    identity: Variable | None = None
    reserve: Size = "1g"
    at: Annotated[str, AfterValidator(check.time_of_day)] = "03:00"
    drill: Period = 7 * DAY
    minimum: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    ping: Variable | None = None
    keep: Keeping = Keeping()
    offsite: Offsite | None = None

    @field_validator("sources")
    @classmethod
    def _something_is_saved(cls, value: dict[str, BackupSource]) -> dict[str, BackupSource]:
        if not value:
            raise ValueError("at least one source, as a table [app.backup.sources.NAME]")
        return value

    @field_validator("sources")
    @classmethod
    def _no_folder_holds_a_database(cls, value: dict[str, BackupSource]) -> dict[str, BackupSource]:
        """A folder's archive would have the bare file of a database in it, and a restore would put that over the proper copy."""
        for name, folder in value.items():
            for other, file in value.items():
                inside = _below(folder, file) if folder.kind == "directory" and file.kind == "sqlite" else None
                if inside and not any(fnmatch(inside, one) or fnmatch(inside.rpartition("/")[2], one) for one in folder.exclude):
                    raise ValueError(f'{name} without the database of {other}, which lies in it: exclude = ["{inside}*"]')
        return value

    @field_validator("identity")
    @classmethod
    def _is_of_use(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("recipients") == ():
            raise ValueError("recipients as well: without them nothing is encrypted that an identity could read")
        return value

    @property
    def server_secrets(self) -> tuple[str, ...]:
        """The secrets that a run on a server needs; they are part of the settings there."""
        passwords = (source.password for source in self.sources.values())
        offsite = self.offsite.secret_names if self.offsite else ()
        return tuple(dict.fromkeys(name for name in (*passwords, self.ping, *offsite) if name))

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Every secret of backups; the identity never stays on a server."""
        return (*self.server_secrets, *((self.identity,) if self.identity else ()))
