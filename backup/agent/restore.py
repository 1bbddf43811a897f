"""Restoring: beside the live data first, then a short pause, swaps by rename, and the way back from everywhere.

A failure, a signal and a lost operator take the same way back as `undo` after a power cut: the one that begun.py has
for each phase.
"""

from __future__ import annotations

import secrets
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from backup.agent.begun import BESIDE, DONE, PAUSED, RESUMING, SWAPPING, Begun, stands
from backup.agent.errors import BackupError, NeedsPerson, Refused
from backup.agent.journal import Journal
from backup.agent.model import Settings, Source, new_id, written
from backup.agent.report import Report
from backup.agent.room import require_room
from backup.agent.run import Run, Wanted
from backup.agent.source import Kinds, Replacement, Saved
from backup.agent.store import Backup, Store
from backup.agent.verify import check_sums, source_of
from backup.agent.writers import Writers
from ops.agent import files
from ops.agent.engine import EngineError

UTC = timezone.utc  # noqa: UP017  # 3.10
UNDO = "inv backup.restore-undo"


@dataclass(frozen=True)
class Request:
    """What to restore: a backup, all of its sources or some; `identity` is the descriptor of an age identity."""

    id: str
    sources: tuple[str, ...] = ()
    by: str = ""
    force: bool = False
    skip_safety: bool = False
    identity: int | None = None


class Restore:
    """Restores an app's sources on this server; the caller holds the store's lock."""

    def __init__(
        self, settings: Settings, kinds: Kinds, store: Store, report: Report, agent: str = "", writers: Writers | None = None
    ) -> None:
        self._settings = settings
        self._kinds = kinds
        self._store = store
        self._report = report
        self._agent = agent
        self._writers = writers or Writers(settings, report)
        self._journal = Journal(settings, store, report)
        self._path = settings.folder / "restore.json"

    def restore(self, wanted: Request) -> dict[str, Any]:
        """Restore a backup, or leave everything as it was. Raises BackupError; NeedsPerson when neither was possible."""
        began = time.monotonic()
        with self._journal.no_deploys(f"restore of {wanted.id}", wanted.by):
            self._refuse_unfinished()
            backup, sources = self._checked(wanted)
            safety = "" if wanted.skip_safety else self._safety(wanted, sources)
            tag = f"{datetime.now(UTC):%Y%m%d%H%M%S}_{secrets.token_hex(2)}"
            begun = Begun(wanted.id, tag, secrets.token_hex(6), wanted.by, written(datetime.now(UTC)), sources, safety=safety)
            with self._journal.recorded(begun, began, skip_safety=wanted.skip_safety):
                seconds, begun = self._carry_out_or_undo(begun, backup, wanted.identity)
        rows = {item.source: sum(item.counts.values()) for item in backup.manifest.items}
        self._report.say(f"restored {wanted.id}" + (f"; the app answered 503 for {seconds:.1f} s" if seconds else ""))
        return {
            "id": wanted.id, "safety": safety or None, "paused_seconds": seconds, "seconds": round(time.monotonic() - began, 3),
            "sources": {name: {"rows": rows[name], **_kept(kept)} for name, kept in begun.kept.items()},
        }  # fmt: skip

    def undo(self) -> dict[str, Any]:
        """Finish what a restore that died has left: back, or forward where users may have the restored data already."""
        began = time.monotonic()
        with self._journal.no_deploys("restore-undo", ""):
            begun = Begun.read(self._path)
            if begun is None:
                return {"id": None, "result": "nothing to undo"}
            self._report.say(f"a restore of {begun.id}, begun {begun.started}, is unfinished: {begun.phase}")
            self._settle_or_call()
            result = "done" if begun.phase == DONE else "undone"
            self._journal.end(begun, began, result, "it was finished by restore-undo")
        return {"id": begun.id, "result": result, "safety": begun.safety or None,
                "sources": {name: _kept(kept) for name, kept in begun.kept.items()} if result == "done" else {}}  # fmt: skip

    def _refuse_unfinished(self) -> None:
        if (begun := Begun.read(self._path)) is not None:
            raise Refused(f"a restore of {begun.id} is unfinished", f"{self._path} says {begun.phase}", UNDO)

    def _checked(self, wanted: Request) -> tuple[Backup, tuple[Source, ...]]:
        """Refuse what cannot end well, before anything is done."""
        backup = self._store.get(wanted.id)
        if not backup.good and not wanted.force:
            raise Refused(f"{wanted.id} is not a good backup", "; ".join(_against(backup)), "choose another, or --force")
        if backup.manifest.encrypted and wanted.identity is None:
            raise Refused(f"{wanted.id} is encrypted", "no identity was given", "name it as backup.identity in ops.toml")
        names = wanted.sources or tuple(item.source for item in backup.manifest.items)
        items = {name: backup.manifest.item(name) for name in names}
        if missing := [name for name, item in items.items() if item is None]:
            known = ", ".join(item.source for item in backup.manifest.items)
            raise Refused(f"{wanted.id} has no {', '.join(missing)}", f"it has {known}")
        sources = tuple(source_of(self._settings, item) for item in items.values() if item)
        check_sums(backup, self._report, names)
        require_room(self._settings, [(one, self._looked_at(one, backup)) for one in sources])
        return backup, sources

    def _looked_at(self, source: Source, backup: Backup) -> int:
        """Tell of a schema that has moved on since (the app may not run on the older one); returns how much room it takes."""
        item = backup.manifest.item(source.name)
        assert item is not None
        try:
            live = self._kinds.driver(self._settings, source).state()
        except BackupError as error:
            self._report.warn(f"{source.name} as it is cannot be looked at: {error}")
            return item.restored
        if live.present and item.schema != live.schema:
            of = f" of release {backup.manifest.release}" if backup.manifest.release else ""
            self._report.warn(
                f"{source.name}: its schema is now another than that{of} in {backup.id}; the app must run on that one"
            )
        return max(live.bytes, item.restored)

    def _safety(self, wanted: Request, sources: Sequence[Source]) -> str:
        """Save what is about to be replaced; sources that are not there yet have nothing to lose."""
        self._report.say("a backup of the data as it is, before anything is done")
        now = datetime.now(UTC).replace(microsecond=0)
        run = Run(self._settings, self._store, self._kinds, self._report, self._agent)
        names = tuple(one.name for one in sources)
        try:
            taken = run.take(Wanted(new_id(now, secrets.token_hex(3)), ("safety",), wanted.by, first=True, only=names), now)
        except BackupError as error:
            raise BackupError("the data as it is cannot be saved; nothing was changed", str(error), _SKIP) from error
        if taken and taken.failed:
            why = "; ".join(f"{name}: {reason}" for name, reason in taken.failed.items())
            raise BackupError(f"{', '.join(taken.failed)} as it is cannot be saved; nothing was changed", why, _SKIP)
        return taken.id if taken else ""

    def _carry_out_or_undo(self, begun: Begun, backup: Backup, identity: int | None) -> tuple[float | None, Begun]:
        try:
            return self._carry_out(begun.write(self._path), backup, identity)
        except BaseException as error:
            left = self._settle_or_call(error)
            if left and left.phase == DONE:  # decided before it failed, and finished now
                self._report.warn(f"interrupted when it was done: {error or type(error).__name__}")
                return None, left
            if isinstance(error, Exception):
                fix = error.fix if isinstance(error, BackupError) else ""
                raise BackupError(f"the restore of {begun.id} failed; the live data is as it was", str(error), fix) from error
            raise

    def _carry_out(self, begun: Begun, backup: Backup, identity: int | None) -> tuple[float, Begun]:
        made = {one.name: self._beside(one, backup, identity, begun.tag) for one in begun.sources}
        paused = self._writers.look()
        begun = replace(begun, phase=PAUSED, paused=paused).write(self._path)
        self._writers.drain(paused, begun.tag)
        self._report.say("pausing the app: 503 with Retry-After")
        began = time.monotonic()
        self._writers.close(paused, begun.tag)
        begun = replace(begun, phase=SWAPPING).write(self._path)
        self._writers.stop(paused)
        kept = {name: one.swap() for name, one in made.items()}
        begun = replace(begun, phase=RESUMING, kept=kept).write(self._path)
        self._report.say("starting the app with the restored data")
        self._writers.start(paused, must=True)
        begun = replace(begun, phase=DONE).write(self._path)
        self._writers.open(paused)
        seconds = round(time.monotonic() - began, 3) if paused.containers else 0.0
        self._forget()
        return seconds, begun

    def _forget(self) -> None:
        """Remove restore.json, and half-written ones that a death has left."""
        for half in self._path.parent.glob(f"{self._path.name}.*.new"):
            half.unlink()
        files.remove(str(self._path))

    def _beside(self, source: Source, backup: Backup, identity: int | None, tag: str) -> Replacement:
        """Restore a source beside the live one and believe it only when its counts are the manifest's."""
        item = backup.manifest.item(source.name)
        assert item is not None
        self._report.say(f"restoring {source.name} beside the live one")
        saved = Saved(item, backup.folder, self._report, identity)
        made = self._kinds.driver(self._settings, source).beside(saved, tag)
        if differing := item.differences(made.counts()):
            raise BackupError(f"{source.name}: the restored data differs from the manifest", differing)
        return made

    def _settle_or_call(self, cause: BaseException | None = None) -> Begun | None:
        """Settle, undisturbed by signals. Raises NeedsPerson, saying how things stand, when that fails."""
        with _undisturbed():
            try:
                return self._settle()
            except (BackupError, EngineError, OSError) as error:
                begun = Begun.read(self._path)
                why = f"{cause}; then: {error}" if cause else str(error)
                raise NeedsPerson(
                    "the restore could not be finished", f"{why}. {stands(begun)}", f"mend that, then {UNDO}"
                ) from error

    def _settle(self) -> Begun | None:
        """Bring everything back, or, where users may have written to the restored data, let them in to it."""
        begun = Begun.read(self._path)
        if begun is None:
            return None
        made = {one.name: self._kinds.driver(self._settings, one).replaced(begun.tag) for one in begun.sources}
        if begun.phase in (SWAPPING, RESUMING):
            self._report.say("bringing back the data as it was")
            self._writers.stop(begun.paused)
            _swap_back(made)
        if begun.phase in (SWAPPING, RESUMING, DONE):
            self._writers.start(begun.paused, must=False)
        if begun.phase in (SWAPPING, RESUMING):
            begun = self._brought_back(begun)
        if begun.phase != BESIDE:
            self._writers.open(begun.paused)
        if begun.phase != DONE:
            self._discard(made)
        self._forget()
        return begun

    def _brought_back(self, begun: Begun) -> Begun:
        """Have an undo after this one not stop the app again; a full disk may not take that, and must not keep users out."""
        begun = replace(begun, phase=PAUSED)
        try:
            return begun.write(self._path)
        except OSError as error:
            self._report.warn(f"{self._path} still says that data is swapped: {error}")
            return begun

    def _discard(self, made: Mapping[str, Replacement]) -> None:
        """Remove the copies; one that cannot be removed costs room, and keeps nobody from working."""
        for name, one in made.items():
            try:
                one.discard()
            except (BackupError, EngineError, OSError) as error:
                self._report.warn(f"{name}: the restored copy could not be removed: {error}")


_SKIP = "mend it, or --skip-safety"


def _against(backup: Backup) -> Iterator[str]:
    yield from (f"{name} is not in it: {why}" for name, why in backup.manifest.failed.items())
    yield from (f"{one.level} failed at {one.time}: {one.detail}" for one in backup.proofs if not one.ok)
    if not backup.proofs:
        yield "it was never decoded"


def _kept(where: str) -> dict[str, str]:
    """Return where the data lies that was replaced, and how it is removed once nobody wants it."""
    return {"kept": where, **({"remove": f"rm -rf -- {shlex.quote(where)}"} if where.startswith("/") else {})}


def _swap_back(made: Mapping[str, Replacement]) -> None:
    """Swap back every source, the others too where one fails. Raises BackupError naming those that failed."""
    failed = {}
    for name, one in reversed(list(made.items())):  # a folder may hold what was swapped before it
        try:
            one.swap_back()
        except (BackupError, EngineError, OSError) as error:
            failed[name] = str(error)
    if failed:
        raise BackupError(f"{', '.join(failed)} could not be swapped back", "; ".join(failed.values()))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no signal cut the way back short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
