"""The second store: a restic repository elsewhere, fed uncompressed so that it keeps what is the same only once.

Every file of a backup is a snapshot of its own. The last one of a backup is its record, which names the others by their
ids: a backup without a record is not there, whatever was killed on the way, and what it left is swept by the next run.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from backup.agent.errors import BackupError, NeedsPerson
from backup.agent.expire import judge, policy
from backup.agent.model import DataFile, Item, Manifest, Settings, utc, written
from backup.agent.report import Report
from backup.agent.restic import Absent, Restic, Snapshot, opened
from backup.agent.retention import Rule
from backup.agent.store import Backup, Store
from backup.agent.streams import Codec, choose, create, decoders, measure, sync
from ops.agent import files

RECORD = "/record.tidegate.json"
WEEK = timedelta(days=7)
SUBSET = "2%"  # of the repository's data, another part of it at random every week, is read back by its check
_SUFFIXES = (".zst", ".gz", ".xz")


@dataclass(frozen=True)
class Stored:
    """A backup that is off-site, whole: its id, the server it is of, its types, and the snapshot of its record."""

    id: str
    server: str
    types: frozenset[str]
    record: str

    @property
    def taken(self) -> datetime:
        """Return the moment it is of."""
        return datetime.strptime(self.id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)  # noqa: UP017  # 3.10


def store(settings: Settings, local: Store, backup: Backup, report: Report, now: datetime | None = None) -> None:
    """Copy a backup to the repository, once a week clean up and check that. Raises BackupError; under the store's lock."""
    moment = now or datetime.now(timezone.utc)  # noqa: UP017  # 3.10
    with opened(settings) as restic:
        known = _snapshots(settings, restic, report)
        whole = _whole(known)
        _forget(restic, _leftovers(known, whole), report)
        if backup.id in {one.id for one in whole}:
            report.say(f"{backup.id} is off-site already")
        else:
            _copy(settings, restic, backup, report)
        if not _checked(settings):
            _remember_check(settings, moment)
        elif upkeep_due(_checked(settings), moment):
            _upkeep(settings, local, restic, report, moment)


def listed(settings: Settings) -> list[Stored]:
    """Return the backups of the app and environment that are off-site, of whatever server, oldest first."""
    with opened(settings) as restic:
        return _whole(restic.snapshots(_app(settings)))


def fetch(settings: Settings, id: str, target: Path, report: Report) -> Manifest:
    """Bring a backup's files back into a folder and return its manifest, for the caller to prove and publish.

    What was compressed is compressed anew. Raises BackupError.
    """
    with opened(settings) as restic:
        found = _saved_as(id, _whole(restic.snapshots(_app(settings))), settings.server)
        record: dict[str, Any] = json.loads(restic.run("dump", found.record, RECORD))
        manifest = Manifest.from_json(json.dumps(record["manifest"]))
        codec, warning = choose(settings.compression, settings.level)
        if warning:
            report.warn(warning)
        items = [_fetch_item(restic, one, record["snapshots"], target, codec, report) for one in manifest.items]
        return replace(manifest, items=tuple(items), compression=manifest.compression if manifest.encrypted else codec.name)


def _saved_as(id: str, whole: Sequence[Stored], server: str) -> Stored:
    """Return a server's own backup of that id: one run gives it to all servers. Another's only where there is no doubt."""
    named = [one for one in whole if one.id == id]
    found = [one for one in named if one.server == server] or named
    if not found:
        raise BackupError(f"there is no backup {id} off-site")
    if len({one.server for one in found}) > 1:
        raise BackupError(f"several servers saved a backup {id}", f"{', '.join(one.server for one in found)}, and none is called {server}",
                          "give this server the name of the one that it replaces")  # fmt: skip
    return found[0]


def _fetch_item(
    restic: Restic, item: Item, snapshots: Mapping[str, str], target: Path, codec: Codec, report: Report
) -> Item:  # fmt: skip
    brought = []
    for one in item.files:
        if Path(one.name).name != one.name:
            raise BackupError(f"the record names a file {one.name!r}, which is none of a backup")
        report.say(f"fetching {one.name}")
        plain, path = _plain(one.name), _path(one.name)
        file = target / (one.name if plain == one.name else plain + codec.suffix)
        descriptor = create(file)
        try:
            encode = [] if plain == one.name else codec.encode()
            restic.stream([["restic", "dump", snapshots[path], path], *encode], descriptor)
        finally:
            os.close(descriptor)
        sync(file)
        brought.append(measure(file))
        if plain == one.name and brought[-1] != one:
            raise BackupError(f"{one.name} came back with other bytes than were stored", fix="restic check says what is damaged")
    return replace(item, files=tuple(brought))


def upkeep_due(last: str, now: datetime) -> bool:
    """Tell whether the weekly clean-up and check are due. Pure."""
    return not timedelta(0) <= now - utc(last) < WEEK


def expired(
    stored: Collection[Stored], local: Collection[str], rules: Mapping[str, Rule], minimum: int, now: datetime
) -> list[Stored]:
    """Return the backups that need not be kept off-site: neither kept here, nor young enough for a type, nor of the newest.

    So what is deleted here by mistake or malice is still there for its full period. Pure.
    """
    newest = {one.id for one in sorted(stored, key=lambda one: one.taken)[-minimum:]}
    old = [one for one in stored if one.id not in newest and one.id not in local and one.taken <= now]
    return [one for one in old if one.types and all(_over(rules.get(kind), now - one.taken) for kind in one.types)]


def _over(rule: Rule | None, age: timedelta) -> bool:
    return rule is not None and (rule.keep is None or age >= rule.keep)


def _snapshots(settings: Settings, restic: Restic, report: Report) -> list[Snapshot]:
    """Return what is ours in the repository, made now if there was never one; one that is gone is for a person to judge."""
    try:
        return restic.snapshots(_space(settings))
    except Absent as error:
        if _checked(settings):
            raise NeedsPerson(
                "the off-site repository is gone", f"is its disk mounted, its path right? {error.why}",
                f"put it back, or, to begin anew, remove {_memory(settings)} on the server",
            ) from None  # fmt: skip
        report.say("making the off-site repository")
        restic.run("init")
        return []


def _memory(settings: Settings) -> Path:
    """Return the file that says when the repository at this address was checked last; it is there once we have used it."""
    address = settings.offsite.repository if settings.offsite else ""
    return settings.folder / f"offsite-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def _checked(settings: Settings) -> str:
    return (files.read(str(_memory(settings))) or "").strip()


def _remember_check(settings: Settings, now: datetime) -> None:
    files.write(str(_memory(settings)), f"{written(now)}\n")


def _app(settings: Settings) -> str:
    return f"app:{settings.app},environment:{settings.environment}"


def _space(settings: Settings) -> str:
    """Return the tags of what is ours: other servers, environments and apps may share the repository."""
    return f"{_app(settings)},server:{settings.server}"


def _whole(known: Iterable[Snapshot]) -> list[Stored]:
    return [
        Stored(one.tags["id"], one.tags["server"], frozenset(filter(None, one.tags["types"].split("+"))), one.id)
        for one in known if one.path == RECORD and "types" in one.tags
    ]  # fmt: skip


def _leftovers(known: Sequence[Snapshot], whole: Sequence[Stored]) -> list[str]:
    """Return the snapshots of attempts that were cut off."""
    attempts = {one.tags.get("attempt") for one in known if one.id in {stored.record for stored in whole}}
    return [one.id for one in known if one.tags.get("attempt") not in attempts]


def _forget(restic: Restic, snapshots: Sequence[str], report: Report) -> None:
    """Remove snapshots; an append-only repository lets nobody, and then they stay without harm."""
    try:
        if snapshots:
            restic.run("forget", *snapshots)
    except BackupError as error:
        report.warn(f"{len(snapshots)} snapshots stay off-site: {error}")


def _copy(settings: Settings, restic: Restic, backup: Backup, report: Report) -> None:
    tags = f"{_space(settings)},id:{backup.id},attempt:{secrets.token_hex(6)}"
    snapshots = {}
    try:
        for one in (file for item in backup.manifest.items for file in item.files):
            report.say(f"copying {one.name} off-site")
            snapshots[_path(one.name)] = _copy_file(restic, backup.folder, one, tags)
        _record(restic, backup.manifest, snapshots, f"{tags},types:{'+'.join(backup.manifest.types)}")
    except (BackupError, OSError):
        _withdraw(restic, tags, report)
        raise


def _withdraw(restic: Restic, tags: str, report: Report) -> None:
    """Remove what a failed attempt has stored; where that fails too, the next run does it."""
    try:
        _forget(restic, [one.id for one in restic.snapshots(tags)], report)
    except BackupError as error:
        report.warn(f"what was stored so far stays off-site for now, without a record: {error}")


def _copy_file(restic: Restic, folder: Path, one: DataFile, tags: str) -> str:
    as_it_is = _plain(one.name) == one.name
    with (folder / one.name).open("rb") as file:
        snapshot, stored = restic.save(_path(one.name), tags, file.fileno(), [] if as_it_is else decoders(one.name))
    if as_it_is and stored != one.bytes:
        raise BackupError(f"{one.name} has {stored} bytes instead of {one.bytes}")
    return snapshot


def _record(restic: Restic, manifest: Manifest, snapshots: Mapping[str, str], tags: str) -> None:
    text = json.dumps({"manifest": json.loads(manifest.to_json()), "snapshots": snapshots}, indent=1)
    descriptor = os.memfd_create("record")
    try:
        os.write(descriptor, text.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        restic.save(RECORD, tags, descriptor)
    finally:
        os.close(descriptor)


def _plain(name: str) -> str:
    """Return a file's name without its compression; an encrypted one stays as it is."""
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def _path(name: str) -> str:
    return f"/{_plain(name)}"  # no folders: restic 0.18.0 cannot have them in the name of its input


def _upkeep(settings: Settings, local: Store, restic: Restic, report: Report, now: datetime) -> None:
    """Forget what is expired, unless expiry is frozen; free its room; check the repository. Raises BackupError."""
    report.say("checking the off-site repository")
    restic.run("unlock")  # only locks that nobody can hold any more, such as a killed run's
    known = restic.snapshots(_space(settings))
    if not judge(settings, local, now).frozen:
        here = {one.id for one in local.backups()[0]}
        rules = policy(settings)
        due = {one.id for one in expired(_whole(known), here, rules.rules, rules.minimum, now)}
        _forget(restic, [one.id for one in known if one.tags["id"] in due], report)
        restic.run("prune")
    restic.run("check", f"--read-data-subset={SUBSET}")
    _remember_check(settings, now)


def pending(settings: Settings, local: Store) -> Backup | None:
    """Return the newest good backup if it is not off-site yet, as far as the history knows."""
    if not settings.offsite:
        return None
    stored = {one.get("id") for one in local.history() if one.get("event") == "offsite" and one.get("ok")}
    moment = datetime.now(timezone.utc)  # noqa: UP017  # 3.10
    newest = next((one for one in reversed(local.backups()[0]) if one.whole and one.taken <= moment), None)
    return newest if newest and newest.id not in stored else None
