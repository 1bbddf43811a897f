"""Proving a backup: its checksums, a full decode, a restore where it harms nobody."""

from __future__ import annotations

import shutil
import time
from datetime import datetime
from pathlib import Path

from backup.agent.errors import BackupError, Untried
from backup.agent.model import CHECKSUMS, FULL, LEVELS, Item, Manifest, Proof, Settings, Source, written
from backup.agent.report import Report
from backup.agent.room import require_trial_room
from backup.agent.source import Driver, Kinds, Saved
from backup.agent.store import Backup, Store
from backup.agent.streams import measure

OTHER = "choose another backup: inv backup.list"
FALSE = ("", "0", "f", "false", "no")


def verify(
    settings: Settings, store: Store, kinds: Kinds, backup: Backup, level: str, now: datetime, report: Report,
    identity: int | None = None,
) -> Proof:  # fmt: skip
    """Prove a backup at a level and all below it, and add the outcome to its record. Raises BackupError when it fails.

    What cannot be tried, for want of a tool, room or a key, is no proof against the backup and is not recorded.
    """
    began = time.monotonic()
    reached = CHECKSUMS
    try:
        check_sums(backup, report)
        for reached in LEVELS[1 : LEVELS.index(level) + 1]:
            for item in backup.manifest.items:
                _prove(settings, kinds, item, backup, reached, store, report, identity)
    except BackupError as error:
        if not isinstance(error, Untried):
            store.prove(backup.id, Proof(written(now), reached, False, round(time.monotonic() - began, 3), str(error)))
        raise
    proof = Proof(written(now), level, True, round(time.monotonic() - began, 3))
    store.prove(backup.id, proof)
    return proof


def check_sums(backup: Backup, report: Report, only: tuple[str, ...] = ()) -> None:
    """Compare size and SHA-256 of every file with the manifest. Raises BackupError naming the first that differs."""
    for item in backup.manifest.items:
        for file in item.files if not only or item.source in only else ():
            report.say(f"checking {file.name}")
            path = backup.folder / file.name
            if not path.is_file():
                raise BackupError(f"{backup.id}: {file.name} is gone")
            try:
                found = measure(path)
            except OSError as error:  # a dying disk: what cannot be read is as good as gone
                raise BackupError(f"{backup.id}: {file.name} cannot be read", str(error), OTHER) from error
            if found != file:
                how = (
                    f"{found.bytes} bytes instead of {file.bytes}"
                    if found.bytes != file.bytes
                    else "other bytes than were written"
                )
                raise BackupError(f"{backup.id}: {file.name} is damaged", how, OTHER)


def _prove(
    settings: Settings, kinds: Kinds, item: Item, backup: Backup, level: str, store: Store, report: Report, identity: int | None
) -> None:
    if backup.manifest.encrypted and identity is None:
        raise Untried(f"{backup.id} is encrypted and this server has no key to it", fix="name it as backup.identity in ops.toml")
    source = source_of(settings, item)
    driver, saved = kinds.driver(settings, source), Saved(item, backup.folder, report, identity)
    work = store.folder / f".partial-proof-{backup.id}"  # swept when we are killed
    work.mkdir(mode=0o700)
    try:
        report.say(f"{item.source}: {'decoding' if level == FULL else 'restoring into a throwaway'}")
        if level == FULL:
            driver.decode(saved, work)
        else:
            require_trial_room(settings, [item], work)
            _trial(driver, saved, source, work)
    finally:
        shutil.rmtree(work)


def decode_all(settings: Settings, kinds: Kinds, manifest: Manifest, folder: Path, report: Report) -> None:
    """Decode everything of a backup that is only coming to be. Raises BackupError."""
    for item in manifest.items:
        report.say(f"{item.source}: decoding")
        work = folder / f".{item.source}-proof"
        work.mkdir(mode=0o700)
        try:
            kinds.driver(settings, source_of(settings, item)).decode(Saved(item, folder, report), work)
        finally:
            shutil.rmtree(work)


def source_of(settings: Settings, item: Item) -> Source:
    """Return the source an item was saved from. Raises Untried when ops.toml does not have it any more."""
    found = next((one for one in settings.sources if one.name == item.source and one.kind == item.kind), None)
    if found is None:
        raise Untried(f"{item.source} ({item.kind}) is no source in ops.toml any more", fix="docs/restore-by-hand.md")
    return found


def _trial(driver: Driver, saved: Saved, source: Source, work: Path) -> None:
    with driver.trial(saved, work) as trial:
        if differing := saved.item.differences(trial.counts()):
            raise BackupError(f"{source.name}: the restored data differs from the manifest", differing)
        if source.smoke and (answer := trial.query(source.smoke).strip()).lower() in FALSE:
            raise BackupError(f"{source.name}: the smoke query says {answer!r}", source.smoke)
