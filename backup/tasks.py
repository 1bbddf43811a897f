"""What people type about backups. Heavy imports wait until a task needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke import Context, Exit, task

from ops.menu import ENV, JSON, YES, environment_of, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup.hosts import Done

TO = {"to": "the folder (default: .tidegate/backups/ENVIRONMENT)"}


@task(name="run", help={**ENV, **JSON, "type": "daily, weekly, monthly or manual: how long it is kept"})
def backup_run(c: Context, env: str = "sandbox", type: str = "manual", json: bool = False) -> None:
    """Take a backup now, decoded in full before it counts."""
    _backup("run", "taken", env, json=json, kind=type)


@task(name="list", help={**ENV, **JSON})
def backup_list(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """List the backups on every server, with what was proved of each."""
    _backup("listing", "listed", env, json=json)


@task(name="status", help={**ENV, **JSON})
def backup_status(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Show how backups stand; exit code 3 when the newest good one is too old."""
    _backup("status", "standing", env, json=json)


@task(
    name="verify",
    help={**ENV, **JSON, "id": "which (default: the newest)", "level": "checksums, full or restore"},
)
def backup_verify(c: Context, id: str = "", env: str = "sandbox", level: str = "full", json: bool = False) -> None:
    """Prove a backup: its checksums, all of it decoded, or restored into a throwaway."""
    _backup("verify", "proven", env, json=json, id=id, level=level)


@task(name="prune", help={**ENV, **JSON, **YES, "dry-run": "show what would go and why, and delete nothing",
                          "thaw": "also what is only kept because something looks wrong; asks"})  # fmt: skip
def backup_prune(
    c: Context, env: str = "sandbox", dry_run: bool = False, thaw: bool = False, yes: bool = False, json: bool = False
) -> None:
    """Delete the backups that the policy does not keep."""
    if thaw and not dry_run:
        with opened(json=json, yes=yes) as console:
            if not console.confirm(f"delete backups of {env} although the policy is frozen? inv backup.explain says why it is"):
                raise Exit("declined, nothing was deleted", 3)
    _backup("prune", "explained", env, json=json, dry_run=dry_run, thaw=thaw)


@task(name="explain", help={**ENV, **JSON})
def backup_explain(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Give the reason for every backup kept or due."""
    _backup("explain", "explained", env, json=json)


@task(name="pin", help={**ENV, **JSON, "id": "which", "note": "why"})
def backup_pin(c: Context, id: str, note: str, env: str = "sandbox", json: bool = False) -> None:
    """Keep a backup whatever the policy says."""
    _backup("pin", "pinned", env, json=json, id=id, note=note)


@task(name="unpin", help={**ENV, **JSON, "id": "which"})
def backup_unpin(c: Context, id: str, env: str = "sandbox", json: bool = False) -> None:
    """Leave a backup to the policy again."""
    _backup("unpin", "pinned", env, json=json, id=id)


@task(name="fetch", help={**ENV, **JSON, **TO, "id": "which"})
def backup_fetch(c: Context, id: str, env: str = "sandbox", to: str = "", json: bool = False) -> None:
    """Bring a backup here; an interrupted one goes on where it ended, checksums are checked at the end."""
    _backup("fetch", "fetched", env, json=json, id=id, to=to)


@task(name="pull", help={**ENV, **JSON, **TO})
def backup_pull(c: Context, env: str = "sandbox", to: str = "", json: bool = False) -> None:
    """Bring every good backup here that is not here yet, as another host or CI does; nothing is deleted."""
    _backup("pull", "fetched", env, json=json, to=to)


@task(
    name="restore",
    help={**ENV, **JSON, **YES, "id": "which", "source": "only these sources, with commas (default: all in the backup)",
          "force": "restore one that is not good, too", "skip-safety": "do not back up first what is replaced"},
)  # fmt: skip
def backup_restore(
    c: Context, id: str, source: str = "", env: str = "sandbox", force: bool = False, skip_safety: bool = False, yes: bool = False,
    json: bool = False,
) -> None:  # fmt: skip
    """Restore a backup beside the live data, then swap the two; any failure brings back what was."""
    with opened(json=json, yes=yes) as console:
        from backup import progress, restoring, show
        from ops.interrupts import interrupt_once

        environment = environment_of(env)
        interrupt_once()
        planned = restoring.plan(environment, console.environ, id, tuple(filter(None, source.split(","))))
        show.to_replace(console, planned)
        if not force:
            restoring.require_one_writer(environment, planned)
        for name in restoring.left_alone(environment, planned):
            console.say(f"{name}: nothing of this is restored there; the app there is not paused and writes on", "yellow")
        if not console.confirm(f"replace the live data of {environment.app.name} in {environment.name} with backup {id}?"):
            raise Exit("declined, nothing was changed", 3)
        printer = progress.Printer(console, len(environment.hosts))
        done = restoring.restore(environment, console.environ, printer, id, planned, force=force, skip_safety=skip_safety)
        show.restored(console, done)
        console.document(done.document())
        tell_errors(done)


@task(name="restore-undo", help={**ENV, **JSON})
def backup_restore_undo(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Bring back what was, after a restore that died half-way."""
    _backup("undo_restore", "restored", env, json=json)


@task(name="schedule", help={**ENV, **JSON, **YES, "remove": "take the schedule away; backups stay"})
def backup_schedule(c: Context, env: str = "sandbox", remove: bool = False, yes: bool = False, json: bool = False) -> None:
    """Have the servers take backups by themselves, daily, weekly and monthly, and prove them."""
    with opened(json=json, yes=yes) as console:
        from backup import scheduling, show
        from backup.progress import Printer

        environment = environment_of(env)

        def confirm(server: str, todo: Sequence[str]) -> bool:
            console.say(f"{server}: {'; '.join(todo) or 'everything is in place'}", "bold")
            return not todo or not environment.approve or console.confirm(f"change {server}?")

        printer = Printer(console, len(environment.hosts))
        done = scheduling.schedule(environment, console.environ, printer, confirm, remove=remove)
        if done is None:
            raise Exit("declined, nothing was changed", 3)
        show.scheduled(console, done)
        console.document(done.document())
        tell_errors(done)


@task(name="elsewhere", help={**ENV, **JSON})
def backup_elsewhere(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """List the backups in the second store."""
    _backup("elsewhere", "kept_elsewhere", env, json=json)


@task(name="retrieve", help={**ENV, **JSON, "id": "which"})
def backup_retrieve(c: Context, id: str, env: str = "sandbox", json: bool = False) -> None:
    """Bring a backup back to the server from the second store, as onto a new machine."""
    _backup("retrieve", "taken", env, json=json, id=id)


def _backup(command: str, shown: str, env: str, *, json: bool, **asked: Any) -> None:
    """Carry out a command of `backup.commands` on all servers and print its results with a function of `backup.show`."""
    with opened(json=json) as console:
        from backup import commands, progress, show
        from ops.interrupts import interrupt_once

        environment = environment_of(env)
        interrupt_once()
        done = getattr(commands, command)(
            environment, console.environ, progress.Printer(console, len(environment.hosts)), **asked
        )
        stale = getattr(show, shown)(console, done) if done.results else None
        console.document(done.document())
        tell_errors(done)
        if stale:
            raise Exit("", 3)


def tell_errors(done: Done) -> None:
    """End with what went wrong on any server, and the exit code of the worst."""
    if done.errors:
        raise Exit("\n".join(f"✗ {error}" for error in done.errors.values()), done.exit_code)


TASKS = (
    backup_run, backup_list, backup_status, backup_verify, backup_prune, backup_explain, backup_pin, backup_unpin, backup_fetch,
    backup_pull, backup_restore, backup_restore_undo, backup_schedule, backup_elsewhere,
    backup_retrieve,
)  # fmt: skip
