"""Taking a backup: look, save, decode in full, publish. Whatever happens, nothing unproven gets a name."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from backup.agent import releases
from backup.agent.errors import BackupError, Refused
from backup.agent.model import FULL, DataFile, Item, Manifest, Proof, Settings, Source, written
from backup.agent.report import Report
from backup.agent.source import Driver, Kinds, Saved, Stage, State
from backup.agent.store import Store
from backup.agent.streams import Codec, choose, fill

ROOM = 1.5  # times the last size must be free


@dataclass(frozen=True)
class Wanted:
    """What a run is asked for; `first` lets sources be missing, as before the first deploy."""

    id: str
    types: tuple[str, ...]
    by: str = ""
    before: str = ""
    first: bool = False
    only: tuple[str, ...] = ()


class Run:
    """One run, under the store's lock."""

    def __init__(self, settings: Settings, store: Store, kinds: Kinds, report: Report, agent: str = "") -> None:
        self._settings = settings
        self._store = store
        self._report = report
        self._agent = agent
        self._drivers = {one.name: kinds.driver(settings, one) for one in settings.sources}

    def take(self, wanted: Wanted, now: datetime) -> Manifest | None:
        """Save all sources; None when there is nothing to save yet. Raises BackupError when none could be saved.

        A backup that lacks some source is published as partial: its manifest says what failed.
        """
        began = time.monotonic()
        sources = [one for one in self._settings.sources if not wanted.only or one.name in wanted.only]
        present, failed = self._look(sources, wanted.first)
        if not present and not failed:
            self._report.say("nothing to save yet")
            return None
        self._require_room(present)
        codec = self._codec()
        staged = self._store.stage(wanted.id)
        try:
            items = self._save_all(staged, codec, present, failed)
            if not items:
                raise BackupError("nothing could be saved", "; ".join(f"{name}: {why}" for name, why in failed.items()))
            serving = releases.serving(self._settings)
            manifest = Manifest(
                id=wanted.id, app=self._settings.app, environment=self._settings.environment, server=self._settings.server,
                types=wanted.types, started=written(now), finished=written(now.fromtimestamp(time.time(), now.tzinfo)),
                seconds=round(time.monotonic() - began, 3), items=tuple(items), failed=failed,
                release=str(serving.get("id", "")), migration=str(serving.get("migration", "")), before=wanted.before, only=self._only({*present, *failed}),
                by=wanted.by, compression=codec.name, encrypted=bool(self._settings.recipients), agent=self._agent,
            )  # fmt: skip
            seconds = round(sum(one.seconds for one in items), 3)
            self._store.publish(staged, manifest, Proof(manifest.finished, FULL, True, seconds, "decoded when it was taken"))
            return manifest
        finally:
            self._store.discard(staged)

    def _only(self, tried: set[str]) -> tuple[str, ...]:
        """Return the sources a backup is of when those are not all: nobody asked for others, or they are not there yet."""
        return tuple(sorted(tried)) if tried < {one.name for one in self._settings.sources} else ()

    def _look(self, sources: Sequence[Source], first: bool) -> tuple[dict[str, State], dict[str, str]]:
        """Return the sources that are there, and why others cannot be saved."""
        present: dict[str, State] = {}
        failed: dict[str, str] = {}
        for one in sources:
            try:
                state = self._drivers[one.name].state()
            except BackupError as error:
                failed[one.name] = str(error)
                continue
            if state.present:
                present[one.name] = state
            elif not first:
                failed[one.name] = "it is not there"
        return present, failed

    def _require_room(self, present: Mapping[str, State]) -> None:
        """Refuse to begin where the disk could fill up. Raises Refused."""
        last = max((one.manifest.bytes for one in self._store.backups()[0][-3:]), default=0)
        largest = max(
            (one.bytes for one in present.values() if one.journal), default=0
        )  # SQLite is copied, and decoded for its proof
        needed = int(ROOM * (last or sum(one.bytes for one in present.values()))) + largest + self._settings.reserve
        free = shutil.disk_usage(self._store.folder).free
        if free < needed:
            raise Refused(f"{free // 1024**2} MB are free for backups, {needed // 1024**2} MB are needed",
                          f"1.5 × the last size, room to decode the largest source, and the reserve of "
                          f"{self._settings.reserve // 1024**2} MB", "make room, or lower backup.reserve")  # fmt: skip

    def _codec(self) -> Codec:
        codec, warning = choose(self._settings.compression, self._settings.level)
        if warning:
            self._report.warn(warning)
        return codec

    def _save_all(self, staged: Path, codec: Codec, present: Mapping[str, State], failed: dict[str, str]) -> list[Item]:
        items = []
        for name in present:
            try:
                items.append(self._save(name, self._drivers[name], staged, codec))
            except (BackupError, OSError) as error:
                self._report.warn(f"{name}: {error}")
                failed[name] = str(error)
                for left in staged.glob(f"{name}.*"):
                    left.unlink()
        return items

    def _save(self, name: str, driver: Driver, staged: Path, codec: Codec) -> Item:
        """Save one source, decode it in full, then encrypt what was proved."""
        began = time.monotonic()
        self._report.say(f"saving {name}")
        item = driver.dump(Stage(self._settings, staged, codec, self._report, self._last_bytes(name)))
        self._report.say(f"{name}: {item.bytes} bytes; decoding them")
        empty = [one.name for one in item.files if one.bytes == 0]
        if empty or not item.files:
            raise BackupError(f"{name}: the dump is empty", ", ".join(empty))
        work = staged / f".{name}-proof"
        work.mkdir(mode=0o700)
        try:
            driver.decode(Saved(item, staged, self._report), work)
        finally:
            shutil.rmtree(work)
        if self._settings.recipients:
            item = replace(item, files=tuple(self._encrypt(staged, one) for one in item.files))
        for warning in item.warnings:
            self._report.warn(f"{name}: {warning}")
        return replace(item, seconds=round(time.monotonic() - began, 3))

    def _last_bytes(self, name: str) -> int:
        return next((item.bytes for one in reversed(self._store.backups()[0]) if (item := one.manifest.item(name))), 0)

    def _encrypt(self, staged: Path, plain: DataFile) -> DataFile:
        """Encrypt a file to the public keys only, so that not even this server can read it any more."""
        source, path = staged / plain.name, staged / f"{plain.name}.age"
        keys = [word for one in self._settings.recipients for word in ("-r", one)]
        with source.open("rb") as file:
            encrypted, _ = fill(path, [["age", *keys]], file.fileno())
        source.unlink()
        return encrypted
