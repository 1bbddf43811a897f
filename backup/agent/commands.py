"""What can be asked of the program, one function a command; each returns what `--json` shows."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from datetime import time as clock
from functools import cached_property
from typing import Any

from backup.agent import due, metrics, notices, offsite, releases, toolbox
from backup.agent.errors import BackupError, Partial, Refused
from backup.agent.expire import expire, judge, known, scheduled, thawed
from backup.agent.model import FULL, RESTORE, Manifest, Proof, Settings, new_id, utc, written
from backup.agent.rehearse import DATABASES, Rehearsal, Rehearse
from backup.agent.report import Report
from backup.agent.restore import Request, Restore
from backup.agent.retention import Decision
from backup.agent.run import Run, Wanted
from backup.agent.source import Kinds
from backup.agent.store import PINNED, Backup, Store
from backup.agent.verify import decode_all, verify
from ops.agent import files
from ops.agent.engine import Engine

Command = Callable[["Work", Namespace], Any]
LONGEST = 23 * 3600  # seconds; an attempt that hangs would keep all after it from being made, and nobody would hear of it
CUT_OFF = "it was cut off: killed, out of memory, or the server went down"
UTC = timezone.utc  # noqa: UP017  # 3.10


@dataclass(frozen=True)
class Work:
    """What every command works with; `request` is what came over the tether, `agent` the program's version."""

    settings: Settings
    kinds: Kinds
    report: Report
    request: Mapping[str, Any]
    agent: str

    @cached_property
    def store(self) -> Store:
        """Return the app's backups."""
        return Store(self.settings.folder / "backups")

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold the lock of the backups. Raises Busy. What killed runs left goes first, also in the engine."""
        with self.store.locked(what):
            databases = any(one.kind in DATABASES for one in self.settings.sources)
            if databases or any(self.settings.folder.glob(f"{toolbox.PREFIX}*")):
                self._sweep_toolboxes()
            yield

    def _sweep_toolboxes(self) -> None:
        try:
            toolbox.sweep(Engine(self.settings.engine), self.settings)
        except BackupError as error:  # sources that need no engine are saved all the same
            self.report.warn(f"what killed runs left in the engine stays for now: {error}")

    @contextmanager
    def identity(self) -> Iterator[int | None]:
        """Hold the age identity that came with the request in memory, as a descriptor that age can read."""
        text = self.request.get("identity")
        if not text:
            yield None
            return
        descriptor = os.memfd_create("identity")
        try:
            os.write(descriptor, f"{text.strip()}\n".encode())
            yield descriptor
        finally:
            os.close(descriptor)


def now() -> datetime:
    """Return the time, to the second, as ids and manifests have it."""
    return datetime.now(UTC).replace(microsecond=0)


def run(work: Work, asked: Namespace) -> Any:
    """Take a backup and expire what is due. Raises Partial when a source could not be saved."""
    with work.locked("a backup"):
        return _run(work, Wanted(asked.id or new_id(now(), secrets.token_hex(3)), tuple(asked.types.split(",")), asked.by,
                                 asked.before, asked.first, tuple(filter(None, asked.only.split(",")))))  # fmt: skip


def _run(work: Work, wanted: Wanted) -> Any:
    began, attempt = time.monotonic(), {"event": "run", "id": wanted.id, "types": wanted.types, "started": written(now())}
    with _recorded(work, attempt, began):
        if (work.settings.folder / "restore.json").exists():
            raise Refused("a restore of the data never finished", "the data may be half of two states", "inv backup.restore-undo")
        manifest = Run(work.settings, work.store, work.kinds, work.report, work.agent).take(wanted, now())
    if manifest is None:
        work.store.note({"event": "stopped", "id": wanted.id}, work.report.warn)
        return {"id": None, "result": "nothing to save yet"}
    done = _document(manifest)
    _attempted(work, {**attempt, "ok": manifest.complete, "bytes": manifest.bytes, "error": _failures(manifest)}, began)
    _supersede(work, manifest)
    if manifest.complete:
        done["deleted"] = list(_expired(work).due)
        return done
    raise Partial(f"{wanted.id} lacks {', '.join(manifest.failed)}", _failures(manifest), "mend it, then inv backup.run")


def _supersede(work: Work, newer: Manifest) -> None:
    """Delete the partial backups of the same day that this one makes worthless: what fails is tried again every hour."""
    points = releases.restore_points(work.settings)
    for one in work.store.backups()[0]:
        older = one.manifest
        worth = {item.source for item in older.items} - {item.source for item in newer.items}
        recent = timedelta(0) <= utc(newer.started) - one.taken < timedelta(days=1)
        if (
            older.id != newer.id
            and not (older.complete or worth or one.pinned or older.id in points)
            and recent
            and older.types == newer.types
        ):
            work.report.say(f"deleted {older.id}: it was partial, and {newer.id} has all it had")
            work.store.delete(older.id)


def _document(manifest: Manifest) -> dict[str, Any]:
    result = "complete" if manifest.complete else "partial"
    return {**asdict(manifest), "bytes": manifest.bytes, "result": result,
            "warnings": [text for item in manifest.items for text in item.warnings]}  # fmt: skip


def _failures(manifest: Manifest) -> str:
    return "; ".join(f"{name}: {why}" for name, why in manifest.failed.items())


@contextmanager
def _recorded(work: Work, attempt: dict[str, Any], began: float) -> Iterator[None]:
    """Write down that an attempt begins, and whatever makes it fail, foreseen or not; one that hangs is ended."""
    work.store.note({"event": "begin", "attempt": attempt}, work.report.warn)
    signal.alarm(LONGEST)
    try:
        yield
    except Exception as error:
        _attempted(work, {**attempt, "ok": False, "error": str(error) or repr(error)}, began)
        raise
    except BaseException:
        work.store.note({"event": "stopped", "id": attempt["id"]}, work.report.warn)
        raise
    finally:
        signal.alarm(0)


def _cut_off(work: Work) -> None:
    """Write down that attempts were killed before they could say so themselves, or nobody would hear of it."""
    begun: dict[str, dict[str, Any]] = {}
    for one in work.store.history():
        if one.get("event") == "begin":
            begun[one["attempt"]["id"]] = one["attempt"]
        elif one.get("event") in ("stopped", begun.get(one.get("id", ""), {}).get("event")):
            begun.pop(one["id"], None)
    for attempt in begun.values():
        _attempted(work, {**attempt, "ok": False, "error": CUT_OFF}, time.monotonic())


def _attempted(work: Work, record: dict[str, Any], began: float) -> None:
    """Write down how an attempt ended, and tell whom it concerns; a deploy tells of its own and does not wait for notices."""
    record = {**record, "finished": written(now()), "seconds": round(time.monotonic() - began, 3)}
    work.store.note(record, work.report.warn)
    _tell(work, quietly=record.get("types") == ("deploy",))


def _tell(work: Work, *, quietly: bool = False) -> None:
    try:
        metrics.write(work.settings, work.store, judge(work.settings, work.store, now()), now())
    except OSError as error:
        work.report.warn(f"the metrics are not up to date: {error}")
    if not quietly:
        notices.tell(work.settings, work.store, work.report, now())


def _expired(work: Work, *, thaw: bool = False) -> Decision:
    decision = judge(work.settings, work.store, now())
    if thaw:
        decision = thawed(decision)
    elif decision.frozen:
        work.report.warn(f"nothing is deleted: {'; '.join(decision.frozen)}")

    def deleted(id: str, why: str) -> None:
        work.report.say(f"deleted {id}: {why}")
        work.store.note({"event": "delete", "id": id, "why": why, "finished": written(now())}, work.report.warn)

    expire(work.store, decision, deleted)
    return decision


def prune(work: Work, asked: Namespace) -> Any:
    """Delete what the policy does not keep; with `--thaw` also where it stopped because something looks wrong."""
    if asked.dry_run:
        decision = judge(work.settings, work.store, now())
        return {**asdict(thawed(decision) if asked.thaw else decision), "deleted": []}
    with work.locked("an expiry"):
        decision = _expired(work, thaw=asked.thaw)
        _tell(work)
        return {**asdict(decision), "deleted": list(decision.due)}


def explain(work: Work, _asked: Namespace) -> Any:
    """Say why each backup is kept or due."""
    return {**asdict(judge(work.settings, work.store, now())), "deleted": []}


def listing(work: Work, _asked: Namespace) -> Any:
    """List the backups, oldest first."""
    found, problems = work.store.backups()
    return {"backups": [_shown(one) for one in found], "problems": problems}


def _shown(one: Backup) -> dict[str, Any]:
    proofs = [asdict(proof) for proof in one.proofs]
    return {**_document(one.manifest), "good": one.good, "pinned": one.pinned, "proofs": proofs}


def status(work: Work, _asked: Namespace) -> Any:
    """Say how things stand: the same figures as the metrics."""
    found, problems = work.store.backups()
    good = [one for one in found if one.whole and one.taken <= now()]  # one from the future would look fresh for ever
    attempts = [one for one in work.store.history() if one.get("event") == "run"]
    proven = [proof for one in found if (proof := one.restored)]
    points = releases.restore_points(work.settings)
    age = (now() - good[-1].taken).total_seconds() if good else None
    at = clock.fromisoformat(work.settings.at)
    runs = due.next_runs(now(), at, [known(one, points) for one in found])
    return {
        "newest": good[-1].id if good else None, "age": age, "good": len(good), "problems": problems,
        "stale": age is None or age > work.settings.interval.total_seconds() + 2 * 3600,
        "last_attempt": attempts[-1] if attempts else None, "bytes": sum(one.manifest.bytes for one in found),
        "verified": asdict(max(proven, key=lambda one: one.time)) if proven else None,
        "free": shutil.disk_usage(work.settings.home).free, "frozen": judge(work.settings, work.store, now()).frozen,
        "scheduled": scheduled(work.settings),
        "next": {kind: written(when) for kind, when in runs.items()} if scheduled(work.settings) else {},
        "restoring": (work.settings.folder / "restore.json").exists(), "agent": work.agent,
        "undrilled": bool(work.settings.recipients and work.settings.drill_every),
    }  # fmt: skip


def prove(work: Work, asked: Namespace) -> Any:
    """Verify a backup, the newest one when none is named."""
    with work.locked("a verification"), work.identity() as identity:
        backup = work.store.get(asked.id) if asked.id else newest(work.store, good=False)
        proof = _prove(work, backup, asked.level, identity)
        return {"id": backup.id, **asdict(proof)}


def _prove(work: Work, backup: Backup, level: str, identity: int | None) -> Any:
    attempt, began = {"event": "verify", "id": backup.id, "level": level, "started": written(now())}, time.monotonic()
    with _recorded(work, attempt, began):
        proof = verify(work.settings, work.store, work.kinds, backup, level, now(), work.report, identity)
    _attempted(work, {**attempt, "ok": True, "error": ""}, began)
    return proof


def newest(store: Store, *, good: bool = True) -> Backup:
    """Return the newest backup. Raises BackupError when there is none."""
    found = [one for one in store.backups()[0] if one.whole or not good]
    if not found:
        raise BackupError("there is no good backup" if good else "there is no backup", fix="inv backup.run")
    return found[-1]


def scheduled_run(work: Work, _asked: Namespace) -> Any:
    """Do what is due: a backup, a drill, the second store. Called every hour, so what failed is tried again."""
    with work.locked("the schedule"):
        _cut_off(work)
        backups = [known(one, {}) for one in work.store.backups()[0]]
        types = due.types_due(now(), clock.fromisoformat(work.settings.at), backups)
        done = _run(work, Wanted(new_id(now(), secrets.token_hex(3)), tuple(sorted(types)), "schedule")) if types else None
        drilled = _drill(work)  # before the second store: one that is down for weeks must not put the drills off
        if elsewhere := offsite.pending(work.settings, work.store):
            _second_store(work, elsewhere)
        if not (types or elsewhere or drilled):
            _tell(work)
        return {
            "run": done["id"] if done else None,
            "offsite": elsewhere.id if elsewhere else None,
            "drill": drilled["ok"] if drilled else None,
        }


def _drill(work: Work) -> Any:
    """Restore the newest good backup into a throwaway when it is time to."""
    every = timedelta(seconds=work.settings.drill_every)
    good = [one for one in work.store.backups()[0] if one.whole and one.taken <= now()]
    last = due.last_proof(now(), [known(one, {}) for one in good])
    tried = [utc(one["finished"]) for one in work.store.history() if one.get("event") == "verify" and one.get("level") == RESTORE]
    # A drill is heavy: once a day is enough when it fails.
    retry = not tried or not timedelta(0) <= now() - tried[-1] <= timedelta(hours=20)
    if not good or not every or good[-1].manifest.encrypted or not due.drill_due(now(), last, every) or not retry:
        return None
    return asdict(_prove(work, good[-1], RESTORE, None))


def _second_store(work: Work, backup: Backup) -> None:
    attempt, began = {"event": "offsite", "id": backup.id, "started": written(now())}, time.monotonic()
    with _recorded(work, attempt, began):
        offsite.store(work.settings, work.store, backup, work.report)
    _attempted(work, {**attempt, "ok": True, "error": ""}, began)


def elsewhere(work: Work, _asked: Namespace) -> Any:
    """List the backups in the second store, of whatever server they are."""
    here = {one.id for one in work.store.backups()[0]}
    found = offsite.listed(_with_second_store(work))
    return {"backups": [{"id": one.id, "server": one.server, "types": sorted(one.types), "taken": written(one.taken),
                         "here": one.id in here} for one in found]}  # fmt: skip


def retrieve(work: Work, asked: Namespace) -> Any:
    """Bring a backup back from the second store, decoded in full before it gets its name again."""
    settings = _with_second_store(work)
    with work.locked("a retrieval"):
        staged = work.store.stage(asked.id)
        try:
            manifest = offsite.fetch(settings, asked.id, staged, work.report)
            began, detail = time.monotonic(), "brought back byte for byte from off-site"
            if not manifest.encrypted:
                decode_all(settings, work.kinds, manifest, staged, work.report)
                detail = "decoded when it was brought back from off-site"
            proof = Proof(written(now()), FULL, True, round(time.monotonic() - began, 3), detail)
            files.write(str(staged / PINNED), f"brought back from off-site {written(now())}")  # or it would expire at once
            work.store.publish(staged, manifest, proof)
        finally:
            work.store.discard(staged)
        work.store.note({"event": "retrieve", "id": asked.id, "finished": written(now())})
        return _document(manifest)


def _with_second_store(work: Work) -> Settings:
    if not work.settings.offsite:
        raise Refused("there is no second store", fix="[app.backup.offsite] in ops.toml")
    return work.settings


def restore(work: Work, asked: Namespace) -> Any:
    """Restore a backup beside the live data, then swap the two."""
    with work.locked("a restore"), work.identity() as identity:
        sources = tuple(filter(None, asked.only.split(",")))
        wanted = Request(asked.id, sources, asked.by, asked.force, asked.skip_safety, identity)
        signal.alarm(LONGEST)
        try:
            return Restore(work.settings, work.kinds, work.store, work.report, work.agent).restore(wanted)
        finally:
            signal.alarm(0)
            _tell(work)


def restore_undo(work: Work, _asked: Namespace) -> Any:
    """Finish a restore that died, by bringing back what was."""
    with work.locked("the undo of a restore"):
        try:
            return Restore(work.settings, work.kinds, work.store, work.report, work.agent).undo()
        finally:
            _tell(work)


def rehearse(work: Work, asked: Namespace) -> Any:
    """Run the next version's migration on a restored copy; image, command and environment come with the request."""
    known = work.request
    with work.locked("a rehearsal"), work.identity() as identity:
        wanted = Rehearsal(known["image"], tuple(known["command"]), known["environment"], known["volumes"], asked.id,
                           float(known["timeout"]), identity)  # fmt: skip
        return Rehearse(work.settings, work.kinds, work.store, work.report).rehearse(wanted)


def pin(work: Work, asked: Namespace) -> Any:
    """Keep a backup until it is unpinned."""
    with work.locked("a pin"):  # an expiry that has decided already would delete it all the same
        work.store.pin(asked.id, asked.note)
    return {"id": asked.id, "pinned": asked.note}


def unpin(work: Work, asked: Namespace) -> Any:
    """Leave a backup to the policy again."""
    with work.locked("the end of a pin"):  # an expiry that has decided already would delete it all the same
        work.store.pin(asked.id, "")
    return {"id": asked.id, "pinned": ""}


def state(work: Work, _asked: Namespace) -> Any:
    """Tell a deploy what it needs to know: the sources as they are now, and the backups that releases name."""
    sources: dict[str, Any] = {}
    for one in work.settings.sources:
        try:
            sources[one.name] = asdict(work.kinds.driver(work.settings, one).state())
        except BackupError as error:
            sources[one.name] = {"error": str(error)}
    backups = {
        one.id: {"taken": one.manifest.started, "good": one.good, "release": one.manifest.release,
                 "schemas": {item.source: item.schema for item in one.manifest.items}}
        for one in work.store.backups()[0]
    }  # fmt: skip
    return {"sources": sources, "backups": backups, "time": written(now()), "agent": work.agent,
            "restoring": (work.settings.folder / "restore.json").exists()}  # fmt: skip


def send(work: Work, asked: Namespace) -> None:
    """Write a file of a backup to standard output from an offset on, without its bytes passing through Python."""
    backup = work.store.get(asked.id)
    names = {file.name for item in backup.manifest.items for file in item.files} | {
        "manifest.json",
        "SHA256SUMS",
        "verified.jsonl",
    }
    if asked.file not in names:
        raise BackupError(f"{asked.id} has no file {asked.file}")
    with (backup.folder / asked.file).open("rb") as file:
        offset, end = asked.offset, os.fstat(file.fileno()).st_size
        while offset < end:
            offset += os.sendfile(1, file.fileno(), offset, end - offset)


COMMANDS: Mapping[str, Command] = {
    "run": run, "scheduled": scheduled_run, "list": listing, "status": status, "verify": prove, "prune": prune,
    "explain": explain, "pin": pin, "unpin": unpin, "state": state, "send": send,
    "restore": restore, "restore-undo": restore_undo, "rehearse": rehearse, "elsewhere": elsewhere, "retrieve": retrieve,
}  # fmt: skip
