"""What can be asked of the program, one function a command; each returns what `--json` shows."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from datetime import time as clock
from typing import Any

from backup.agent import due, metrics, notices, offsite, releases
from backup.agent.errors import BackupError, Partial, Refused
from backup.agent.expire import expire, judge, known, scheduled
from backup.agent.model import FULL, RESTORE, Manifest, Proof, Settings, new_id, utc, written
from backup.agent.rehearse import Rehearsal, Rehearse
from backup.agent.report import Report
from backup.agent.restore import Request, Restore
from backup.agent.run import Run, Wanted
from backup.agent.source import Kinds
from backup.agent.store import Backup, Store
from backup.agent.verify import decode_all, verify

Command = Callable[["Work", Namespace], Any]
UTC = timezone.utc  # noqa: UP017  # 3.10


@dataclass(frozen=True)
class Work:
    """What every command works with; `request` is what came over the tether, `agent` the program's version."""

    settings: Settings
    kinds: Kinds
    report: Report
    request: Mapping[str, Any]
    agent: str

    @property
    def store(self) -> Store:
        """Return the app's backups."""
        return Store(self.settings.folder / "backups")

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
    with work.store.locked("a backup"):
        return _run(work, Wanted(asked.id or new_id(now(), secrets.token_hex(3)), tuple(asked.types.split(",")), asked.by,
                                 asked.before, asked.first, tuple(filter(None, asked.only.split(",")))))  # fmt: skip


def _run(work: Work, wanted: Wanted) -> Any:
    began, attempt = time.monotonic(), {"event": "run", "id": wanted.id, "types": wanted.types, "started": written(now())}
    try:
        manifest = Run(work.settings, work.store, work.kinds, work.report, work.agent).take(wanted, now())
    except (BackupError, OSError) as error:
        _attempted(work, {**attempt, "ok": False, "error": str(error)}, began)
        raise
    if manifest is None:
        return {"id": None, "result": "nothing to save yet"}
    done = _document(manifest)
    _attempted(work, {**attempt, "ok": manifest.complete, "bytes": manifest.bytes, "error": _failures(manifest)}, began)
    _supersede(work, manifest)
    if manifest.complete:
        done["deleted"] = list(_expired(work))
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


def _attempted(work: Work, record: dict[str, Any], began: float) -> None:
    """Write down how an attempt ended, and tell whom it concerns; a deploy tells of its own and does not wait for notices."""
    work.store.note({**record, "finished": written(now()), "seconds": round(time.monotonic() - began, 3)})
    _tell(work, quietly=record.get("types") == ("deploy",))


def _tell(work: Work, *, quietly: bool = False) -> None:
    metrics.write(work.settings, work.store, judge(work.settings, work.store, now()), now())
    if not quietly:
        notices.tell(work.settings, work.store, work.report, now())


def _expired(work: Work) -> Mapping[str, str]:
    decision = expire(work.settings, work.store, now())
    for why in decision.frozen:
        work.report.warn(f"nothing is deleted: {why}")
    for id, why in decision.due.items():
        work.report.say(f"deleted {id}: {why}")
        work.store.note({"event": "delete", "id": id, "why": why, "finished": written(now())})
    return decision.due


def prune(work: Work, asked: Namespace) -> Any:
    """Delete what the policy does not keep."""
    if asked.dry_run:
        return explain(work, asked)
    with work.store.locked("an expiry"):
        decision = judge(work.settings, work.store, now())
        deleted = list(_expired(work))
        _tell(work)
        return {**asdict(decision), "deleted": deleted}


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
    good = [one for one in found if one.whole]
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
    }  # fmt: skip


def prove(work: Work, asked: Namespace) -> Any:
    """Verify a backup, the newest one when none is named."""
    with work.store.locked("a verification"), work.identity() as identity:
        backup = work.store.get(asked.id) if asked.id else newest(work.store, good=False)
        proof = _prove(work, backup, asked.level, identity)
        return {"id": backup.id, **asdict(proof)}


def _prove(work: Work, backup: Backup, level: str, identity: int | None) -> Any:
    attempt, began = {"event": "verify", "id": backup.id, "level": level, "started": written(now())}, time.monotonic()
    try:
        proof = verify(work.settings, work.store, work.kinds, backup, level, now(), work.report, identity)
    except (BackupError, OSError) as error:
        _attempted(work, {**attempt, "ok": False, "error": str(error)}, began)
        raise
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
    with work.store.locked("the schedule"):
        backups = [known(one, {}) for one in work.store.backups()[0]]
        types = due.types_due(now(), clock.fromisoformat(work.settings.at), backups)
        done = _run(work, Wanted(new_id(now(), secrets.token_hex(3)), tuple(sorted(types)), "schedule")) if types else None
        if elsewhere := offsite.pending(work.settings, work.store):
            _second_store(work, elsewhere)
        drilled = _drill(work)
        if not (types or elsewhere or drilled):
            _tell(work)
        return {"run": done, "offsite": elsewhere.id if elsewhere else None, "drill": drilled}


def _drill(work: Work) -> Any:
    """Restore the newest good backup into a throwaway when it is time to."""
    every = timedelta(seconds=work.settings.drill_every)
    good = [one for one in work.store.backups()[0] if one.whole]
    last = due.last_proof(now(), [known(one, {}) for one in good])
    tried = [utc(one["finished"]) for one in work.store.history() if one.get("event") == "verify" and one.get("level") == RESTORE]
    retry = not tried or now() - tried[-1] > timedelta(hours=20)  # a drill is heavy: once a day is enough when it fails
    if not good or not every or good[-1].manifest.encrypted or not due.drill_due(now(), last, every) or not retry:
        return None
    return asdict(_prove(work, good[-1], RESTORE, None))


def _second_store(work: Work, backup: Backup) -> None:
    attempt, began = {"event": "offsite", "id": backup.id, "started": written(now())}, time.monotonic()
    try:
        offsite.store(work.settings, work.store, backup, work.report)
    except (BackupError, OSError) as error:
        _attempted(work, {**attempt, "ok": False, "error": str(error)}, began)
        raise
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
    with work.store.locked("a retrieval"):
        staged = work.store.stage(asked.id)
        try:
            manifest = offsite.fetch(settings, asked.id, staged, work.report)
            began, detail = time.monotonic(), "brought back byte for byte from off-site"
            if not manifest.encrypted:
                decode_all(settings, work.kinds, manifest, staged, work.report)
                detail = "decoded when it was brought back from off-site"
            proof = Proof(written(now()), FULL, True, round(time.monotonic() - began, 3), detail)
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
    with work.store.locked("a restore"), work.identity() as identity:
        sources = tuple(filter(None, asked.only.split(",")))
        wanted = Request(asked.id, sources, asked.by, asked.force, asked.skip_safety, identity)
        try:
            return Restore(work.settings, work.kinds, work.store, work.report, work.agent).restore(wanted)
        finally:
            _tell(work)


def restore_undo(work: Work, _asked: Namespace) -> Any:
    """Finish a restore that died, by bringing back what was."""
    with work.store.locked("the undo of a restore"):
        try:
            return Restore(work.settings, work.kinds, work.store, work.report, work.agent).undo()
        finally:
            _tell(work)


def rehearse(work: Work, asked: Namespace) -> Any:
    """Run the next version's migration on a restored copy; image, command and environment come with the request."""
    known = work.request
    with work.store.locked("a rehearsal"), work.identity() as identity:
        wanted = Rehearsal(known["image"], tuple(known["command"]), known["environment"], known["volumes"], asked.id,
                           float(known["timeout"]), identity)  # fmt: skip
        return Rehearse(work.settings, work.kinds, work.store, work.report).rehearse(wanted)


def pin(work: Work, asked: Namespace) -> Any:
    """Keep a backup until it is unpinned."""
    work.store.pin(asked.id, asked.note)
    return {"id": asked.id, "pinned": asked.note}


def unpin(work: Work, asked: Namespace) -> Any:
    """Leave a backup to the policy again."""
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
