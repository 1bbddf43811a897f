"""Results in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backup.hosts import Done
from backup.progress import size, span
from ops.console import Console

if TYPE_CHECKING:
    from backup.restoring import Replaced


def taken(console: Console, done: Done) -> None:
    """Print what a run saved."""
    rows = [
        (server, item["source"], item["kind"], size(sum(file["bytes"] for file in item["files"])), _counted(item),
         f"{item['seconds']:.1f} s")
        for server, found in done.results.items() for item in found.get("items", ())
    ]  # fmt: skip
    if rows:
        console.table("", ("server", "source", "kind", "size", "counted", "took"), rows)
    for server, found in done.results.items():
        if found["id"]:
            console.say(
                f"{server}: {found['id']}, {size(found['bytes'])} in {found['seconds']:.1f} s, decoded in full", "bold green"
            )


def _counted(item: Mapping[str, Any]) -> str:
    counts = item["counts"]
    if item["kind"] == "directory":
        return f"{counts.get('entries', 0)} entries"
    return f"{sum(counts.values())} rows in {len(counts)} tables"


def listed(console: Console, done: Done) -> None:
    """Print the backups, newest first."""
    rows = [
        (server, one["id"], one["started"], ", ".join(one["types"]), _state(one), _proof(one), size(one["bytes"]),
         one["release"], one["pinned"])
        for server, found in done.results.items() for one in reversed(found["backups"])
    ]  # fmt: skip
    console.table("", ("server", "backup", "taken (UTC)", "for", "state", "last proof", "size", "release", "pinned"), rows)
    _problems(console, done)


def _state(one: Mapping[str, Any]) -> str:
    if one["failed"]:
        return f"partial: lacks {', '.join(one['failed'])}"
    return ("good" if one["good"] else "not proven") + (", encrypted" if one["encrypted"] else "")


def _proof(one: Mapping[str, Any]) -> str:
    if not one["proofs"]:
        return ""
    last = one["proofs"][-1]
    return f"{last['level']} {'passed' if last['ok'] else 'FAILED'} {last['time']}"


def _problems(console: Console, done: Done) -> None:
    for server, found in done.results.items():
        for problem in found.get("problems", ()):
            console.say(f"{server}: {problem}", "red")


def standing(console: Console, done: Done) -> list[str]:
    """Print how backups stand, and return the servers where they are stale."""
    rows = [(server, *row) for server, found in done.results.items() for row in _standing(found)]
    console.table("", ("server", "what", "found"), rows)
    _problems(console, done)
    stale = [server for server, found in done.results.items() if found["stale"] or found["restoring"]]
    for server in stale:
        wrong = "a restore never finished" if done.results[server]["restoring"] else "no good backup that is young enough"
        console.say(f"{server}: {wrong}", "red")
    return stale


def _standing(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    age = "" if found["age"] is None else f", {span(found['age'])} old"
    proof = found["verified"]
    rows = [
        ("newest good backup", f"{found['newest'] or 'none'}{age}{', STALE' if found['stale'] else ''}"),
        ("good backups", f"{found['good']}"),
        ("last attempt", _attempt(found["last_attempt"])),
        ("last restored to prove it", f"{proof['time']}, took {proof['seconds']:.0f} s" if proof else "never"),
        ("next", ", ".join(f"{kind} {when}" for kind, when in (found["next"] or {}).items()) or "no schedule"),
        ("free space", size(found["free"])),
    ]
    if found.get("undrilled"):
        rows.append(("restore drills", "none, since the server cannot read its backups: inv backup.verify --level restore"))
    rows += [("not deleting", why) for why in found.get("frozen", ())]
    return rows + ([("UNFINISHED RESTORE", "inv backup.restore-undo")] if found.get("restoring") else [])


def _attempt(attempt: Mapping[str, Any] | None) -> str:
    if not attempt:
        return "none"
    return f"{attempt.get('finished', '')}, {'good' if attempt.get('ok') else 'FAILED: ' + str(attempt.get('error', ''))}"


def explained(console: Console, done: Done) -> None:
    """Print why each backup is kept or goes."""
    rows = [
        (server, id, "kept" if id in found["kept"] else "deleted" if id in found["deleted"] else "due", why)
        for server, found in done.results.items()
        for id, why in sorted(
            {**{id: "; ".join(whys) for id, whys in found["kept"].items()}, **found["due"]}.items(), reverse=True
        )
    ]
    console.table("", ("server", "backup", "", "why"), rows)
    for server, found in done.results.items():
        for why in found["frozen"]:
            console.say(f"{server}: nothing is deleted: {why}", "yellow")


def proven(console: Console, done: Done) -> None:
    """Print what was proved."""
    for server, one in done.results.items():
        detail = f": {one['detail']}" if one.get("detail") else ""
        console.say(f"{server}: {one['id']} passed {one['level']} in {one['seconds']:.1f} s{detail}", "bold green")


def pinned(console: Console, done: Done) -> None:
    """Print what is kept, or no longer."""
    for server, one in done.results.items():
        note = f"is kept until it is unpinned: {one['pinned']}" if one["pinned"] else "is left to the policy"
        console.say(f"{server}: {one['id']} {note}", "green")


def fetched(console: Console, done: Done) -> None:
    """Print what is here now, and how it is restored without us."""
    for server, found in done.results.items():
        for one in found["fetched"]:
            console.say(f"{server}: {one['id']}, {size(one['bytes'])} in {one['seconds']:.1f} s, checksums right", "bold green")
        for id in found["already_here"]:
            console.say(f"{server}: {id} was here already")
    last = next(((found["folder"], found["fetched"][-1]) for found in done.results.values() if found["fetched"]), None)
    if last:
        folder, one = last
        console.say(f"by hand, in {folder}/{one['id']} (docs/restore-by-hand.md has the whole way):")
        for line in one["by_hand"]:
            console.say(f"  {line}")


def to_replace(console: Console, planned: Sequence[Replaced]) -> None:
    """Print what a restore would replace."""
    rows = [(one.server, one.source, one.what, one.taken, one.rows, one.release) for one in planned]
    console.table("", ("server", "source", "live data", "backup taken (UTC)", "rows in it", "release"), rows)


def restored(console: Console, done: Done) -> None:
    """Print what was restored, and where the data lies that it replaced."""
    for server, one in done.results.items():
        if one["id"] is None or one.get("result") == "undone":
            console.say(f"{server}: {one.get('result', 'nothing to do')}" + (f": {one['id']}" if one["id"] else ""), "bold")
            continue
        paused = one.get("paused_seconds")
        console.say(
            f"{server}: {one['id']} is restored" + (f"; users saw 503 for {paused:.1f} s" if paused else ""), "bold green"
        )
        for name, source in one["sources"].items():
            console.say(f"  {name}: {source.get('rows', '')} rows; what was live is kept as {source['kept']}")
            if "remove" in source:
                console.say(f"    once nobody wants it, on the server: sudo {source['remove']}", "dim")
        if one.get("safety"):
            console.say(f"  the data from before is also backup {one['safety']}")


def rehearsed(console: Console, done: Done, version: str) -> list[str]:
    """Print how the migration went on the copies; returns the servers where it failed."""
    failed = []
    for server, one in done.results.items():
        ok = one["exit_code"] == 0
        failed += [] if ok else [server]
        schema = "changed the schema" if one["schema_changed"] else "left the schema as it was"
        what = f"the migration of {version} on a copy of {one['backup']}"
        console.say(f"{server}: {what} " + (f"took {one['seconds']:.1f} s and {schema}" if ok else f"FAILED with exit code {one['exit_code']}"),
                    "bold green" if ok else "bold red")  # fmt: skip
        before, after = one["counts_before"], one["counts_after"]
        for name in sorted(name for name in {*before, *after} if before.get(name) != after.get(name)):
            console.say(f"  {name}: {before.get(name, 'no')} rows before, {after.get(name, 'no')} after")
        for line in str(one["said"]).splitlines()[-20:]:
            console.say(f"    {line}", "dim")
    return failed


def scheduled(console: Console, done: Done) -> None:
    """Print who runs the backups and when the next ones are."""
    for server, one in done.results.items():
        if "removed" in one:
            console.say(
                f"{server}: {'the schedule is gone; backups stay' if one['removed'] else 'there was no schedule'}", "bold"
            )
        else:
            console.say(f"{server}: {one['by']} calls every hour at minute {one['minute']}, and does what is due", "bold green")
            console.say(f"  what is due already is done at the next call; then daily (UTC): {', '.join(one['next'])}")


def kept_elsewhere(console: Console, done: Done) -> None:
    """Print what is in the second store, newest first."""
    rows = [
        (server, one["id"], one["taken"], ", ".join(one["types"]), one["server"], "yes" if one["here"] else "")
        for server, found in done.results.items() for one in reversed(found["backups"])
    ]  # fmt: skip
    console.table("", ("asked", "backup", "taken (UTC)", "for", "saved by", "also here"), rows)
