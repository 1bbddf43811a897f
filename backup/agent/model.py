"""What a backup run knows and writes down: settings, sources, manifests and proofs. Pure data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

FORMAT = 1
HOME = "/srv/tidegate"
TYPES = ("daily", "weekly", "monthly", "manual", "deploy", "safety")
ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
CHECKSUMS, FULL, RESTORE = "checksums", "full", "restore"
LEVELS = (CHECKSUMS, FULL, RESTORE)


def utc(text: str) -> datetime:
    """Read a time as we write it: ISO 8601 in UTC, ending in Z. Raises ValueError."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)  # noqa: UP017  # 3.10


def written(moment: datetime) -> str:
    """Return a time as we write it."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: UP017  # 3.10


def new_id(now: datetime, nonce: str) -> str:
    """Return the id of a backup begun now; `nonce` is six hexadecimal digits."""
    return f"{now.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}-{nonce}"  # noqa: UP017  # 3.10


@dataclass(frozen=True)
class Source:
    """One thing to save: what it is and how it is reached from the server.

    `volume` is a Docker volume's full name and `path` a path inside it; without a volume `path` is one of the server's.
    A database is in `container`, or at `address`:`port`, for which `image` has its client programs.
    """

    name: str
    kind: str
    volume: str = ""
    path: str = ""
    container: str = ""
    image: str = ""
    address: str = ""
    port: int = 0
    user: str = ""
    database: str = ""
    password: str = field(default="", repr=False)
    smoke: str = ""
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offsite:
    """A restic repository as a second store."""

    repository: str
    password: str = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Settings:
    """All that a run needs to know, as the operator's side leaves it on the server."""

    app: str
    environment: str
    server: str
    sources: tuple[Source, ...]
    compression: str = "zstd"
    level: int = 3
    recipients: tuple[str, ...] = ()
    reserve: int = 1024**3
    at: str = "03:00"
    drill_every: float = 7 * 86400.0
    keep: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    minimum: int = 3
    notify: tuple[str, ...] = field(default=(), repr=False)
    ping: str = field(default="", repr=False)
    offsite: Offsite | None = None
    grace: float = 10.0  # seconds the app gets to stop, and to become healthy
    patience: float = 60.0
    home: str = HOME
    engine: str = "/var/run/docker.sock"

    @property
    def folder(self) -> Path:
        """Return the app's folder."""
        return Path(self.home) / self.app

    @property
    def interval(self) -> timedelta:
        """Return how often a good backup is expected."""
        return timedelta(days=1)

    def to_json(self) -> str:
        """Return the settings' text; it holds secrets."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Settings:
        """Read settings. Raises ValueError when they are not ours."""
        try:
            known = json.loads(text)
            sources = tuple(Source(**{**one, "exclude": tuple(one.get("exclude", ()))}) for one in known.pop("sources"))
            offsite = Offsite(**known["offsite"]) if known.get("offsite") else None
            tuples = {name: tuple(known.get(name, ())) for name in ("recipients", "notify")}
            return Settings(**{**known, **tuples, "sources": sources, "offsite": offsite})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the settings of backups: {error}") from error


@dataclass(frozen=True)
class DataFile:
    """A file of a backup: its size and SHA-256 as it lies there."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Item:
    """What was saved of one source.

    `counts` has the exact rows per table (entries of a directory as {"entries": n}) of the dump's own snapshot, `schema`
    the fingerprint of its tables, `versions` those of server and tools.
    """

    source: str
    kind: str
    files: tuple[DataFile, ...]
    counts: Mapping[str, int]
    schema: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    exact: bool = True  # whether the counts are of the dump's very moment; else nothing can be compared with them

    @property
    def bytes(self) -> int:
        """Return the size on disk."""
        return sum(one.bytes for one in self.files)

    @property
    def restored(self) -> int:
        """Return how much room it takes when it is restored, as far as that was seen when it was saved."""
        return max(self.bytes, int(self.versions.get("bytes", 0)))

    def differences(self, found: Mapping[str, int]) -> str:
        """Say which counts differ from those of this item; nothing where none does, or nobody could know."""
        return ", ".join(
            f"{name}: {found.get(name, 'missing')} instead of {self.counts.get(name, 'none')}"
            for name in sorted({*self.counts, *found}) if self.exact and self.counts.get(name) != found.get(name)
        )  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """What a backup is; `failed` maps sources that could not be saved to the reason."""

    id: str
    app: str
    environment: str
    server: str
    types: tuple[str, ...]
    started: str
    finished: str
    seconds: float
    items: tuple[Item, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    release: str = ""  # the one that served, whose data this is
    migration: str = ""  # what migrated the data for it
    before: str = ""  # the release whose deploy this was taken for
    only: tuple[str, ...] = ()  # the sources that were asked for, when not all of them were
    by: str = ""
    compression: str = ""
    encrypted: bool = False
    agent: str = ""
    format: int = FORMAT

    @property
    def complete(self) -> bool:
        """Tell whether every source was saved."""
        return not self.failed

    @property
    def bytes(self) -> int:
        """Return the size on disk."""
        return sum(one.bytes for one in self.items)

    @property
    def tables(self) -> int:
        """Return how many tables were counted."""
        return sum(len(one.counts) for one in self.items)

    def item(self, source: str) -> Item | None:
        """Return what was saved of a source."""
        return next((one for one in self.items if one.source == source), None)

    def to_json(self) -> str:
        """Return the manifest's text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read a manifest. Raises ValueError when it is not one."""
        try:
            known = json.loads(text)
            if known["format"] != FORMAT or not ID.fullmatch(known["id"]):
                raise ValueError(f"format {known['format']} is not known")
            utc(known["started"])
            items = tuple(
                Item(**{**one, "files": tuple(DataFile(**file) for file in one["files"]), "warnings": tuple(one["warnings"])})
                for one in known["items"]
            )
            return Manifest(**{**known, "types": tuple(known["types"]), "only": tuple(known["only"]), "items": items})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a backup's manifest: {error}") from error


@dataclass(frozen=True)
class Proof:
    """One verification: when, how thorough, and whether it passed."""

    time: str
    level: str
    ok: bool
    seconds: float
    detail: str = ""
