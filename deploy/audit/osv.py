"""A folder of OSV records, and which of them are about a release, as the OSV schema's section on evaluation says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ops.errors import Refused

Record = Mapping[str, Any]
ECOSYSTEM = "PyPI"
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every value stays the text it is: 1.10 is no number
_GET = "put a copy of an advisory database there: https://github.com/pypa/advisory-database, or PyPI/all.zip of https://osv.dev"


@dataclass(frozen=True)
class Database:
    """The records about Python packages, by package."""

    records: Mapping[str, Sequence[Record]]
    count: int
    newest: datetime

    def query(self, name: str, version: str) -> list[dict[str, Any]]:
        """Return the records about a release, each with just what an answer needs."""
        release = Version(version)
        package = canonicalize_name(name)
        found = ((record, _affecting(record, package, release)) for record in self.records.get(package, ()))
        return [_answer(record, package, affected) for record, affected in found if affected]


@dataclass(frozen=True)
class _Entry:
    record: Record
    packages: frozenset[str]
    modified: datetime

    @property
    def withdrawn(self) -> bool:
        return self.record.get("withdrawn") not in (None, "", "null", "~")


def load(folder: Path) -> Database:
    """Read every record in a folder and below. Raises Refused where one cannot be read, or none is about Python."""
    if not folder.is_dir():
        raise Refused(f"there is no folder {folder}", fix=_GET)
    about_python = [one for one in _entries(folder) if one.packages]
    by_package: dict[str, list[Record]] = {}
    for entry in about_python:
        for package in entry.packages if not entry.withdrawn else ():
            by_package.setdefault(package, []).append(entry.record)
    if not by_package:
        raise Refused(f"{folder} holds no advisories about Python packages", fix=_GET)
    return Database(by_package, len(about_python), max(one.modified for one in about_python))


def affects(affected: Mapping[str, Any], release: Version) -> bool:
    """Say whether one `affected` of a record is about a release: by its list of versions or by one of its ranges."""
    listed = any(_version(one) == release for one in affected.get("versions") or [])
    ranges = [one.get("events") or [] for one in affected.get("ranges") or [] if one.get("type") != "GIT"]
    return listed or any(_in_range(events, release) for events in ranges)


def _in_range(events: Iterable[Mapping[str, str]], release: Version) -> bool:
    """Walk through the events in the order of their versions; one that cannot be read never ends a range."""
    flat = sorted((_order(kind, text), kind) for event in events for kind, text in event.items() if kind in _KINDS)
    limits = [at for (_, at), kind in flat if kind == "limit"]
    vulnerable = False
    for (begins, at), kind in flat:
        if kind == "introduced" and (begins == 0 or release >= at):
            vulnerable = True
        elif (kind == "fixed" and release >= at) or (kind == "last_affected" and release > at):
            vulnerable = False
    return vulnerable and (not limits or any(release < at for at in limits))


_KINDS = {"introduced", "fixed", "last_affected", "limit"}
_NEVER = Version(f"{10**9}!0")


def _order(kind: str, text: str) -> tuple[int, Version]:
    """Where an event stands: the 0 that a range may begin with is before every release."""
    found = _version(text)
    if kind == "introduced" and (text == "0" or found is None):
        return 0, Version("0")
    return 1, _NEVER if found is None or text == "*" else found


@cache
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _affecting(record: Record, package: str, release: Version) -> list[Mapping[str, Any]]:
    """Return what of a record is about a release; of a build of its own, such as 2.1+cpu, what is about the release itself."""
    public = Version(release.public)
    return [one for one in record["affected"] if _package(one) == package and affects(one, public)]


def _answer(record: Record, package: str, affected: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    ranges = [one for part in affected for one in part.get("ranges") or [] if one.get("type") != "GIT"]
    fixed = {event["fixed"] for one in ranges for event in one["events"] if _version(event.get("fixed", ""))}
    kept = {key: record[key] for key in ("id", "aliases", "summary", "details", "modified") if record.get(key)}
    events = [{"fixed": text} for text in sorted(fixed)]
    named = {"name": package, "ecosystem": ECOSYSTEM}
    return kept | {"affected": [{"package": named, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]}


def _package(affected: Mapping[str, Any]) -> str | None:
    package = affected.get("package") or {}
    return canonicalize_name(package["name"]) if str(package.get("ecosystem")).split(":")[0] == ECOSYSTEM else None


def _entries(folder: Path) -> Iterator[_Entry]:
    """Read the records; files that are none, such as a repository's own settings, are passed over."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in (".json", ".yaml", ".yml") and not hidden and path.is_file():
            try:
                document = _document(path.suffix, path.read_text())
                if isinstance(document, dict) and "id" in document and {"modified", "affected"} & set(document):
                    yield _entry(document)
            except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
                raise Refused(f"{path} cannot be read", why=str(error).partition("\n")[0], fix=_GET) from error


def _document(suffix: str, text: str) -> Any:
    return json.loads(text) if suffix == ".json" else yaml.load(text, Loader=_LOADER)  # noqa: S506  # makes nothing but texts


def _entry(record: dict[str, Any]) -> _Entry:
    packages = frozenset(name for one in record.get("affected") or [] if (name := _package(one)))
    modified = datetime.fromisoformat(record["modified"])
    return _Entry(record, packages, modified if modified.tzinfo else modified.replace(tzinfo=UTC))
