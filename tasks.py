"""The menu, and the tasks that bring deploys and backups together. Heavy imports wait until a task needs them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Context, Exit, task

from backup import tasks as backups
from backup.tasks import tell_errors
from deploy import tasks as deploys
from deploy.images import tasks as images
from monitoring import tasks as watching
from ops import menu
from ops.menu import DRY, ENV, JSON, VERBOSE, YES, collection, environment_of, opened, project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backup.for_deploy import DeployBackups
    from deploy.model import HostState
    from deploy.plan import Plan
    from deploy.show import Printer
    from ops.config import Environment
    from ops.console import Console


@task(help={**ENV, **JSON, **YES, **DRY, **VERBOSE, "version": "what to deploy (default: YYYYMMDD-shortsha of the commit)",
            "force": "deploy even if this very version serves already",
            "skip-backup": "do not back up the data first; asks, and the journal remembers"})  # fmt: skip
def deploy(
    c: Context, env: str = "sandbox", version: str = "", dry_run: bool = False, force: bool = False, skip_backup: bool = False,
    yes: bool = False, json: bool = False, verbose: bool = False,
) -> None:  # fmt: skip
    """Build, ship and switch to a version without dropping a request."""
    _release("deploy", env, json=json, yes=yes, verbose=verbose, version=version or None, dry_run=dry_run, force=force,
             skip_backup=skip_backup)  # fmt: skip


@task(help={**ENV, **JSON, **YES, **DRY, **VERBOSE,
            "to": "the kept release or version (default: the newest kept before the serving one)"})  # fmt: skip
def rollback(
    c: Context, env: str = "sandbox", to: str = "", dry_run: bool = False, yes: bool = False, json: bool = False,
    verbose: bool = False,
) -> None:  # fmt: skip
    """Return to a kept release: its own image, configuration and environment."""
    _release("rollback", env, json=json, yes=yes, verbose=verbose, to=to or None, dry_run=dry_run)


def _release(kind: str, env: str, *, json: bool, yes: bool, verbose: bool, dry_run: bool, **asked: Any) -> None:
    with opened(json=json, yes=yes) as console:
        from deploy.session import Session

        environment = environment_of(env)
        # ssh authenticates in its own process while we go on loading the rest
        with ExitStack() as work:
            session = work.enter_context(Session(environment, ships=kind == "deploy" and environment.app.image is None))
            from deploy import show
            from deploy.intent import Options
            from deploy.job_page import job_page
            from deploy.release import Summary, release
            from monitoring.for_deploy import watching_deploys
            from ops.interrupts import interrupt_once

            watch = work.enter_context(watching_deploys(environment, session.links)) if kind != "prune" and not dry_run else None
            page = work.enter_context(job_page(os.environ))

            def begun(summary: Summary) -> None:
                page.summary = summary

            def confirm(plan: Plan, states: Sequence[HostState]) -> bool:
                page.plan = plan
                show.plan(console, plan, states)
                if dry_run:
                    show.plan_steps(console, plan)
                needed = (environment.approve or plan.skips_backup) and not (plan.refusals or plan.unchanged or dry_run)
                without = " without a backup of its data" if plan.skips_backup else ""
                return not needed or console.confirm(f"{f'{plan.kind} {plan.release}'.strip()} to {environment.name}{without}?")

            interrupt_once()
            printer = show.Printer(console, verbose=verbose)
            backups = _deploy_backups(environment, console.environ, printer)
            done = release(
                kind, session, Options(dry_run=dry_run, **asked), console.environ, printer, confirm, backups, watch, begun
            )
            show.summary(console, done)
            console.document(show.plan_document(page.plan) if dry_run and page.plan else show.summary_document(done))
            if done.result == "declined":
                raise Exit("declined, nothing was changed", 3)


def _deploy_backups(environment: Environment, environ: Mapping[str, str], printer: Printer) -> DeployBackups | None:
    """Return how a deploy has the data saved; a deploy itself knows no backups."""
    if environment.app.backup is None:
        return None
    from backup.for_deploy import DeployBackups

    return DeployBackups(environment, environ, printer.backup)


@task(help={**ENV, **JSON, **YES, **DRY})
def prune(c: Context, env: str = "sandbox", dry_run: bool = False, yes: bool = False, json: bool = False) -> None:
    """Remove releases beyond keep_releases and what killed deploys left."""
    _release("prune", env, json=json, yes=yes, verbose=False, dry_run=dry_run)


@task(help={**ENV, **YES})
def bootstrap(c: Context, env: str = "sandbox", yes: bool = False) -> None:
    """Make bare servers ready: engine, python3, zstd, folders, the edge nginx."""
    with opened(yes=yes) as console:
        from deploy import servers

        def confirm(server: str, missing: Sequence[str]) -> bool:
            console.say(f"{server}: {'; '.join(missing) or 'packages, engine and folders are there'}", "bold")
            return not missing or not environment.approve or console.confirm(f"change {server}?")

        environment = environment_of(env)
        if not servers.make_ready(environment, lambda server, what: console.say(f"  {server}: {what}"), confirm):
            raise Exit("declined, nothing was changed", 3)
        _install_backups(console, environment)
        _check(console, environment)


def _install_backups(console: Console, environment: Environment) -> None:
    if environment.app.backup:
        from backup import commands, progress

        done = commands.install(environment, console.environ, progress.Printer(console, len(environment.hosts)))
        for server in done.results:
            console.say(f"  {server}: backup program and settings are there")
        tell_errors(done)


@task(help={**ENV, **JSON})
def check(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Check every server: connection, engine, disk, memory, clock, ports, folders."""
    with opened(json=json) as console:
        _check(console, environment_of(env))


def _check(console: Console, environment: Environment) -> None:
    from deploy import servers

    program = None
    if environment.app.backup:
        from backup import client, package

        program = (client.PROGRAM, package.digest())
    found = servers.check(environment, program)
    marks = {True: "✓", False: "✗", None: "·"}
    console.table("", ("", "server", "what", "found"), ((marks[one.ok], one.server, one.what, one.found) for one in found))
    console.document([vars(one) for one in found])
    if any(one.ok is False for one in found):
        raise Exit("something is not as it should be", 3)


@task(help={**ENV, **JSON, **VERBOSE, "id": "the backup (default: the newest good one)",
                             "version": "what to call the next version (default: YYYYMMDD-shortsha of the commit)"})  # fmt: skip
def rehearse(
    c: Context, id: str = "", env: str = "sandbox", version: str = "", verbose: bool = False, json: bool = False
) -> None:
    """Run the next version's migration on a restored copy of the newest backup: what a deploy will do, before it does it."""
    with opened(json=json) as console:
        from deploy.session import Session

        environment = environment_of(env)
        with Session(environment, ships=environment.app.image is None) as session:
            from backup import rehearsing
            from backup.progress import Printer as BackupPrinter
            from backup.show import rehearsed
            from deploy import rehearsal
            from deploy.intent import Options
            from deploy.show import Printer
            from ops.interrupts import interrupt_once

            interrupt_once()
            printer = Printer(console, verbose=verbose)
            ahead = rehearsal.bring(session, Options(version=version or None), console.environ, printer)
            trial = rehearsing.Trial(ahead.image, ahead.command, ahead.environment, ahead.timeout)
            done = rehearsing.rehearse(environment, console.environ, BackupPrinter(console, len(environment.hosts)), id, trial)
        failed = rehearsed(console, done, ahead.version)
        console.document(done.document())
        tell_errors(done)
        if failed:
            raise Exit("the migration failed on the copy; nothing of yours was touched", 1)


@task(name="check")
def config_check(c: Context) -> None:
    """Check ops.toml; every mistake is named."""
    with opened() as console:
        known = project()
        for name in known.environments:
            known.environment(name)
        console.say(f"{known.path} is fine; environments: {', '.join(known.environments) or 'none yet'}", "green")


@task(name="show", help={**ENV, **JSON})
def config_show(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Show an environment's effective configuration and where each value comes from."""
    with opened(json=json) as console:
        from ops.config_explain import explain

        found = list(explain(project(), env))
        console.table("", ("key", "value", "from"), found)
        console.document([{"key": key, "value": value, "from": source} for key, value, source in found])


@task(help={**JSON, "name": "the app's name (default: this folder's)", "template": "write a Dockerfile too: python, rust, node, static",
                         "port": "the port the app listens on (default: the template's, else 3000)", "list": "show the templates"})  # fmt: skip
def init(c: Context, name: str = "", port: int = 0, template: str = "", list: bool = False, json: bool = False) -> None:
    """Write a commented ops.toml for a new app, and with --template the files that its image is built from."""
    with opened(json=json) as console:
        from ops import templates
        from ops.config_init import write_new

        if list:
            known = templates.templates().values()
            console.table("", ("template", "for", "port"), ((one.name, one.description, one.port) for one in known))
            console.document([{"template": one.name, "for": one.description, "port": one.port} for one in known])
            return
        chosen = templates.template(template) if template else None
        written = write_new(menu.CONFIG.absolute(), name or Path.cwd().name.lower(), port, chosen)
        names = ", ".join(one.name for one in written)
        console.say(f"{names} written: fill in your servers, then run inv config.check", "green")
        console.document([str(one) for one in written])


@task(help={**JSON, "offline": "ask no service but this folder of OSV or RustSec records", "osv-url": "the OSV service to ask"})
def audit(c: Context, offline: str | None = None, osv_url: str | None = None, json: bool = False) -> None:
    """Look for known vulnerabilities in what the app's lock files hold."""
    with opened(json=json) as console:
        from deploy.audit.auditing import audit_typed

        if code := audit_typed(console, [project().app.context], offline, osv_url):
            raise Exit(code=code)


@task(iterable=["tests"], help={"fail-under": "the least coverage in percent", "tests": "where its tests are (default: with it)"})
def coverage(c: Context, tests: list[str], fail_under: float = 0.0) -> None:
    """Run the app's own tests and report how much of its code they run."""
    with opened():
        from deploy.app_coverage import measure

        measure(project().app.context, fail_under, tests)


namespace = Collection(init, audit, coverage)
namespace.add_collection(collection("deploy", *deploys.RELEASES, rollback, prune, run=deploy, default=deploy))
namespace.add_collection(collection("backup", *backups.TASKS, rehearse))
namespace.add_collection(collection("monitoring", *watching.TASKS))
namespace.add_collection(collection("services", *deploys.SERVICES))
namespace.add_collection(collection("server", bootstrap, check, *deploys.SERVERS))
namespace.add_collection(collection("sandbox", *deploys.SANDBOX))
namespace.add_collection(collection("docker", *images.TASKS))
namespace.add_collection(collection("config", config_check, config_show))
