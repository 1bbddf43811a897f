"""Attempts: a backup, a proof, a copy elsewhere; each written down from its beginning, and told when it fails."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from backup.agent import due, metrics, notices, offsite, releases
from backup.agent.errors import Partial, Refused
from backup.agent.expire import expire, judge, known, thawed
from backup.agent.model import RESTORE, Manifest, utc, written
from backup.agent.retention import Decision
from backup.agent.run import Run, Wanted
from backup.agent.store import Backup
from backup.agent.verify import verify
from backup.agent.work import Work, now

LONGEST = 23 * 3600  # seconds; an attempt that hangs would keep all after it from being made, and nobody would hear of it
CUT_OFF = "it was cut off: killed, out of memory, or the server went down"


def take(work: Work, wanted: Wanted) -> Any:
    """Take a backup and expire what is due. Raises BackupError, Partial when it lacks a source."""
    began, attempt = time.monotonic(), {"event": "run", "id": wanted.id, "types": wanted.types, "started": written(now())}
    with recorded(work, attempt, began):
        if (work.settings.folder / "restore.json").exists():
            raise Refused("a restore of the data never finished", "the data may be half of two states", "inv backup.restore-undo")
        manifest = Run(work.settings, work.store, work.kinds, work.report, work.agent).take(wanted, now())
    if manifest is None:
        work.store.note({"event": "stopped", "id": wanted.id}, work.report.warn)
        return {"id": None, "result": "nothing to save yet"}
    done = document(manifest)
    attempted(work, {**attempt, "ok": manifest.complete, "bytes": manifest.bytes, "error": _failures(manifest)}, began)
    _supersede(work, manifest)
    if manifest.complete:
        done["deleted"] = list(expire_due(work).due)
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


def document(manifest: Manifest) -> dict[str, Any]:
    """Return a backup as scripts get it."""
    result = "complete" if manifest.complete else "partial"
    return {**asdict(manifest), "bytes": manifest.bytes, "result": result,
            "warnings": [text for item in manifest.items for text in item.warnings]}  # fmt: skip


def _failures(manifest: Manifest) -> str:
    return "; ".join(f"{name}: {why}" for name, why in manifest.failed.items())


@contextmanager
def recorded(work: Work, attempt: dict[str, Any], began: float) -> Iterator[None]:
    """Write down that an attempt begins, and whatever makes it fail, foreseen or not; one that hangs is ended."""
    work.store.note({"event": "begin", "attempt": attempt}, work.report.warn)
    signal.alarm(LONGEST)
    try:
        yield
    except Exception as error:
        attempted(work, {**attempt, "ok": False, "error": str(error) or repr(error)}, began)
        raise
    except BaseException:
        work.store.note({"event": "stopped", "id": attempt["id"]}, work.report.warn)
        raise
    finally:
        signal.alarm(0)


def note_cut_off(work: Work) -> None:
    """Write down that attempts were killed before they could say so themselves, or nobody would hear of it."""
    begun: dict[str, dict[str, Any]] = {}
    for one in work.store.history():
        if one.get("event") == "begin":
            begun[one["attempt"]["id"]] = one["attempt"]
        elif one.get("event") in ("stopped", begun.get(one.get("id", ""), {}).get("event")):
            begun.pop(one["id"], None)
    for attempt in begun.values():
        attempted(work, {**attempt, "ok": False, "error": CUT_OFF}, time.monotonic())


def attempted(work: Work, record: dict[str, Any], began: float) -> None:
    """Write down how an attempt ended, and tell whom it concerns; a deploy tells of its own and does not wait for notices."""
    record = {**record, "finished": written(now()), "seconds": round(time.monotonic() - began, 3)}
    work.store.note(record, work.report.warn)
    tell(work, quietly=record.get("types") == ("deploy",))


def tell(work: Work, *, quietly: bool = False) -> None:
    """Write the metrics anew and, unless `quietly`, send the notices that are due."""
    try:
        metrics.write(work.settings, work.store, judge(work.settings, work.store, now()), now())
    except OSError as error:
        work.report.warn(f"the metrics are not up to date: {error}")
    if not quietly:
        notices.tell(work.settings, work.store, work.report, now())


def expire_due(work: Work, *, thaw: bool = False) -> Decision:
    """Delete what is due and return what was decided; with `thaw` what only a freeze would keep is due as well."""
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


def put_to_the_proof(work: Work, backup: Backup, level: str, identity: int | None) -> Any:
    """Verify a backup. Raises BackupError when it fails."""
    attempt, began = {"event": "verify", "id": backup.id, "level": level, "started": written(now())}, time.monotonic()
    with recorded(work, attempt, began):
        proof = verify(work.settings, work.store, work.kinds, backup, level, now(), work.report, identity)
    attempted(work, {**attempt, "ok": True, "error": ""}, began)
    return proof


def drill(work: Work) -> Any:
    """Restore the newest good backup into a throwaway when it is time to."""
    every = timedelta(seconds=work.settings.drill_every)
    good = [one for one in work.store.backups()[0] if one.whole and one.taken <= now()]
    last = due.last_proof(now(), [known(one, {}) for one in good])
    tried = [utc(one["finished"]) for one in work.store.history() if one.get("event") == "verify" and one.get("level") == RESTORE]
    # A drill is heavy: once a day is enough when it fails.
    retry = not tried or not timedelta(0) <= now() - tried[-1] <= timedelta(hours=20)
    if not good or not every or good[-1].manifest.encrypted or not due.drill_due(now(), last, every) or not retry:
        return None
    return asdict(put_to_the_proof(work, good[-1], RESTORE, None))


def copy_elsewhere(work: Work, backup: Backup) -> None:
    """Copy a backup to the second store. Raises BackupError."""
    attempt, began = {"event": "offsite", "id": backup.id, "started": written(now())}, time.monotonic()
    with recorded(work, attempt, began):
        offsite.store(work.settings, work.store, backup, work.report)
    attempted(work, {**attempt, "ok": True, "error": ""}, began)
