"""What can be asked of the program, one function a command; each returns what `--json` shows."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import time as clock
from typing import Any

from backup.agent import due, offsite, releases
from backup.agent.attempts import LONGEST, copy_elsewhere, document, drill, expire_due, note_cut_off, put_to_the_proof, take, tell
from backup.agent.errors import BackupError, Refused
from backup.agent.expire import judge, known, scheduled, thawed
from backup.agent.model import FULL, Proof, Settings, new_id, written
from backup.agent.rehearse import Rehearsal, Rehearse
from backup.agent.restore import Request, Restore
from backup.agent.run import Wanted
from backup.agent.store import PINNED, Backup, Store
from backup.agent.verify import decode_all
from backup.agent.work import Work, now
from ops.agent import files

Command = Callable[[Work, Namespace], Any]


def run(work: Work, asked: Namespace) -> Any:
    """Take a backup and expire what is due. Raises Partial when a source could not be saved."""
    with work.locked("a backup"):
        return take(work, Wanted(asked.id or new_id(now(), secrets.token_hex(3)), tuple(asked.types.split(",")), asked.by,
                                 asked.before, asked.first, tuple(filter(None, asked.only.split(",")))))  # fmt: skip


def prune(work: Work, asked: Namespace) -> Any:
    """Delete what the policy does not keep; with `--thaw` also where it stopped because something looks wrong."""
    if asked.dry_run:
        decision = judge(work.settings, work.store, now())
        return {**asdict(thawed(decision) if asked.thaw else decision), "deleted": []}
    with work.locked("an expiry"):
        decision = expire_due(work, thaw=asked.thaw)
        tell(work)
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
    return {**document(one.manifest), "good": one.good, "pinned": one.pinned, "proofs": proofs}


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
        backup = work.store.get(asked.id) if asked.id else newest(work.store)
        proof = put_to_the_proof(work, backup, asked.level, identity)
        return {"id": backup.id, **asdict(proof)}


def newest(store: Store) -> Backup:
    """Return the newest backup, good or not. Raises BackupError when there is none."""
    found = store.backups()[0]
    if not found:
        raise BackupError("there is no backup", fix="inv backup.run")
    return found[-1]


def scheduled_run(work: Work, _asked: Namespace) -> Any:
    """Do what is due: a backup, a drill, the second store. Called every hour, so what failed is tried again."""
    with work.locked("the schedule"):
        note_cut_off(work)
        backups = [known(one, {}) for one in work.store.backups()[0]]
        types = due.types_due(now(), clock.fromisoformat(work.settings.at), backups)
        done = take(work, Wanted(new_id(now(), secrets.token_hex(3)), tuple(sorted(types)), "schedule")) if types else None
        drilled = drill(work)  # before the second store: one that is down for weeks must not put the drills off
        if elsewhere := offsite.pending(work.settings, work.store):
            copy_elsewhere(work, elsewhere)
        if not (types or elsewhere or drilled):
            tell(work)
        return {
            "run": done["id"] if done else None,
            "offsite": elsewhere.id if elsewhere else None,
            "drill": drilled["ok"] if drilled else None,
        }


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
        return document(manifest)


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
            tell(work)


def restore_undo(work: Work, _asked: Namespace) -> Any:
    """Finish a restore that died, by bringing back what was."""
    with work.locked("the undo of a restore"):
        try:
            return Restore(work.settings, work.kinds, work.store, work.report, work.agent).undo()
        finally:
            tell(work)


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
