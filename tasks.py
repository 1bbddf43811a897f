"""Everything people type; `inv --list` is the menu. Heavy imports wait until a task needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Context, Exit, task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.model import HostState
    from deploy.plan import Plan
    from ops.config import App, Environment, Project
    from ops.console import Console

CONFIG = Path(os.environ.get("TIDEGATE_CONFIG", "ops.toml"))

ENV = {"env": "the environment in ops.toml (default: sandbox)"}
JSON = {"json": "print one JSON document for scripts"}
YES = {"yes": "do not ask"}
DRY = {"dry-run": "show the plan with its reasons and change nothing"}
VERBOSE = {"verbose": "show every step and the build's output"}


@contextmanager
def _console(*, json: bool = False, yes: bool = False) -> Iterator[Console]:
    """Hand out the console, and turn errors into their exit codes; the only place that does."""
    from ops.console import Console
    from ops.errors import TidegateError

    console = Console(as_json=json, assume_yes=yes)
    try:
        with _defects_told():
            yield console
    except TidegateError as error:
        console.document(
            {"error": error.what, "where": error.where, "cause": error.why, "next": error.fix, "exit_code": error.exit_code}
        )
        raise Exit(f"✗ {error}", error.exit_code) from None
    except KeyboardInterrupt:
        raise Exit("interrupted", 1) from None


@contextmanager
def _defects_told() -> Iterator[None]:
    """Turn what nobody thought of into an error of its own kind; TIDEGATE_DEBUG=1 shows where it came from."""
    from ops.errors import Defect, TidegateError

    try:
        yield
    except (TidegateError, Exit):
        raise
    except Exception as error:
        if os.environ.get("TIDEGATE_DEBUG"):
            raise
        raise Defect(f"{type(error).__name__}: {error}", why="a mistake in Tidegate, or in how it is installed",
                     fix="TIDEGATE_DEBUG=1 with the same command shows where; please report it") from error  # fmt: skip


def _project() -> Project:
    from ops.config import load

    return load(CONFIG.absolute(), os.environ)


def _environment(name: str) -> Environment:
    return _project().environment(name)


@task(help={**ENV, **JSON, **YES, **DRY, **VERBOSE, "version": "what to deploy (default: YYYYMMDD-shortsha of the commit)",
            "force": "deploy even if this very version serves already"})  # fmt: skip
def deploy(
    c: Context, env: str = "sandbox", version: str = "", dry_run: bool = False, force: bool = False, yes: bool = False,
    json: bool = False, verbose: bool = False,
) -> None:  # fmt: skip
    """Build, ship and switch to a version without dropping a request."""
    _release("deploy", env, json=json, yes=yes, verbose=verbose, version=version or None, dry_run=dry_run, force=force)


@task(help={**ENV, **JSON, **YES, **DRY, **VERBOSE,
            "to": "the kept release or version (default: the newest kept before the serving one)"})  # fmt: skip
def rollback(
    c: Context, env: str = "sandbox", to: str = "", dry_run: bool = False, yes: bool = False, json: bool = False,
    verbose: bool = False,
) -> None:  # fmt: skip
    """Return to a kept release: its own image, configuration and environment."""
    _release("rollback", env, json=json, yes=yes, verbose=verbose, to=to or None, dry_run=dry_run)


def _release(kind: str, env: str, *, json: bool, yes: bool, verbose: bool, dry_run: bool, **asked: Any) -> None:
    with _console(json=json, yes=yes) as console:
        from deploy.session import Session

        environment = _environment(env)
        # ssh authenticates in its own process while we go on loading the rest
        with Session(environment, ships=kind == "deploy" and environment.app.image is None) as session:
            from deploy import show
            from deploy.intent import Options
            from deploy.release import release
            from ops.interrupts import interrupt_once

            plans: list[Plan] = []

            def confirm(plan: Plan, states: Sequence[HostState]) -> bool:
                plans.append(plan)
                show.plan(console, plan, states)
                if dry_run:
                    show.plan_steps(console, plan)
                needed = environment.approve and not (plan.refusals or plan.unchanged or dry_run)
                return not needed or console.confirm(f"{plan.kind} {plan.release} to {environment.name}?")

            interrupt_once()
            printer = show.Printer(console, verbose=verbose)
            done = release(kind, session, Options(dry_run=dry_run, **asked), os.environ, printer, confirm)
            show.summary(console, done)
            console.document(show.plan_document(plans[0]) if dry_run else show.summary_document(done))
            if done.result == "declined":
                raise Exit("declined, nothing was changed", 3)


@task(help={**ENV, **JSON})
def status(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Show what serves on every server, since when, and how servers differ."""
    with _console(json=json) as console:
        from deploy import inspect

        states, unreachable = inspect.observe(_environment(env))
        rows = [vars(row) for row in inspect.rows(states)]
        console.table(
            "",
            ("server", "process", "version", "release", "slot", "state", "image", "note"),
            (list(row.values()) for row in rows),
        )
        if difference := inspect.drift(states):
            console.say(difference, "yellow")
        console.say(f"kept for a rollback: {', '.join(inspect.kept(states)) or 'nothing'}")
        console.document(
            {"servers": rows, "drift": difference, "kept": inspect.kept(states), "unreachable": [str(one) for one in unreachable]}
        )
        if unreachable:
            raise Exit("\n".join(f"✗ {one}" for one in unreachable), unreachable[0].exit_code)


@task(help={**ENV, **JSON, "number": "how many operations to show"})
def history(c: Context, env: str = "sandbox", number: int = 20, json: bool = False) -> None:
    """Show who did what, when, how long it took and how it ended."""
    with _console(json=json) as console:
        from deploy import inspect

        found = inspect.history(_environment(env), number)
        columns = ("time", "server", "kind", "release", "by", "result", "seconds", "requests", "failures")
        console.table(
            "", columns, ([str(one.get(column, ""))[: 19 if column == "time" else None] for column in columns] for one in found)
        )
        console.document(found)


@task(help={**ENV, "process": "web, or one of app.processes", "tail": "how many lines from the past", "follow": "wait for more"})
def logs(c: Context, env: str = "sandbox", process: str = "web", tail: int = 100, follow: bool = False) -> None:
    """Show the logs of the serving containers."""
    with _console() as console:
        from deploy import inspect

        environment = _environment(env)
        several = len(environment.hosts) > 1
        inspect.logs(environment, process, tail, follow, lambda host, line: console.say(f"{host}: {line}" if several else line))


@task(
    name="exec",
    help={**ENV, "command": "the command, split into words as a shell would", "process": "web, or one of app.processes"},
)
def exec_(c: Context, command: str, env: str = "sandbox", process: str = "web") -> None:
    """Run a command in the serving container of the first server."""
    with _console():
        import shlex

        from deploy import inspect

        code = inspect.run(_environment(env), process, shlex.split(command), lambda text: print(text, end="", flush=True))
        if code:
            raise Exit(f"it ended with exit code {code}", code)


@task(help={**ENV, **JSON, **YES, **DRY})
def prune(c: Context, env: str = "sandbox", dry_run: bool = False, yes: bool = False, json: bool = False) -> None:
    """Remove releases beyond keep_releases and what killed deploys left."""
    _release("prune", env, json=json, yes=yes, verbose=False, dry_run=dry_run)


@task(help={**ENV, **YES})
def bootstrap(c: Context, env: str = "sandbox", yes: bool = False) -> None:
    """Make bare servers ready: engine, python3, zstd, folders, the edge nginx."""
    with _console(yes=yes) as console:
        from deploy import servers

        def confirm(server: str, missing: Sequence[str]) -> bool:
            console.say(f"{server}: {'; '.join(missing) or 'packages, engine and folders are there'}", "bold")
            return not missing or not environment.approve or console.confirm(f"change {server}?")

        environment = _environment(env)
        if not servers.make_ready(environment, lambda server, what: console.say(f"  {server}: {what}"), confirm):
            raise Exit("declined, nothing was changed", 3)
        _check(console, environment)


@task(help={**ENV, **JSON})
def check(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Check every server: connection, engine, disk, memory, clock, ports, folders."""
    with _console(json=json) as console:
        _check(console, _environment(env))


def _check(console: Console, environment: Environment) -> None:
    from deploy import servers

    found = servers.check(environment)
    marks = {True: "✓", False: "✗", None: "·"}
    console.table("", ("", "server", "what", "found"), ((marks[one.ok], one.server, one.what, one.found) for one in found))
    console.document([vars(one) for one in found])
    if any(one.ok is False for one in found):
        raise Exit("something is not as it should be", 3)


@task(help={**ENV, **YES})
def trust(c: Context, env: str = "sandbox", yes: bool = False) -> None:
    """Show the servers' host keys and add them to known_hosts; commit that file."""
    with _console(yes=yes) as console:
        from deploy import servers

        environment = _environment(env)
        for host in environment.hosts:
            keys = servers.fetch_keys(environment, host)
            console.say(f"{keys.server}: {', '.join(keys.fingerprints)}", "bold")
            if keys.warning:
                console.say(f"  {keys.warning}", "red")
            if keys.trusted:
                console.say("  trusted already")
            elif console.confirm("  is this what the server's console or your provider shows?", in_person=bool(keys.changed)):
                servers.trust(environment, keys)
                console.say(f"  added to {environment.known_hosts}", "green")
            else:
                raise Exit("not trusted, nothing was added", 3)


@task(help={"hosts": "how many servers"})
def up(c: Context, hosts: int = 1) -> None:
    """Start servers on this machine, with sshd and an engine of their own, as environment `sandbox`."""
    with _console(yes=True) as console:
        from deploy import sandbox, servers

        sandbox.up(_project().root, hosts, console.say)
        servers.make_ready(_environment("sandbox"), lambda server, what: console.say(f"  {server}: {what}"), lambda *_: True)
        _sandbox_table(console)


@task
def down(c: Context) -> None:
    """Remove the sandbox: servers, their data, their keys."""
    with _console() as console:
        from deploy import sandbox

        sandbox.down(_project().root, console.say)


@task(name="status", help=JSON)
def sandbox_status(c: Context, json: bool = False) -> None:
    """Show the sandbox's servers."""
    with _console(json=json) as console:
        _sandbox_table(console)


def _sandbox_table(console: Console) -> None:
    from deploy import sandbox

    found = sandbox.status(_project().root)
    console.table("", ("name", "state", "engine", "ssh", "http"), (
        (one.name, one.state, one.engine, f"127.0.0.1:{one.ports[0]}", f"http://127.0.0.1:{one.ports[1]}") for one in found
    ))  # fmt: skip
    console.document([vars(one) for one in found])


@task(help={**ENV, **VERBOSE, "version": "what to call it (default: YYYYMMDD-shortsha of the commit)"})
def build(c: Context, env: str = "sandbox", version: str = "", verbose: bool = True) -> None:
    """Build the app's image."""
    with _console() as console:
        from deploy import image, local_engine, show
        from deploy.this_machine import local_client

        app = _app(env)
        local_engine.ensure(console.say)
        built = image.build(
            app, image.read_source(app, version or None), local_client().api, show.Printer(console, verbose=verbose).build
        )
        console.say(f"{built.name}: {built.size / 1e6:.0f} MB", "green")


def _app(env: str) -> App:
    project = _project()
    return project.environment(env).app if env in project.environments else project.app


@task
def bases(c: Context) -> None:
    """Get the base images: pulled where they can be, else built from Debian's packages."""
    with _console() as console:
        from deploy import bases, local_engine

        local_engine.ensure(console.say)
        for name in bases.BASES:
            bases.ensure_base(name, console.say)
            console.say(f"{name} is there", "green")


@task(name="check")
def config_check(c: Context) -> None:
    """Check ops.toml; every mistake is named."""
    with _console() as console:
        project = _project()
        for name in project.environments:
            project.environment(name)
        console.say(f"{project.path} is fine; environments: {', '.join(project.environments) or 'none yet'}", "green")


@task(name="show", help={**ENV, **JSON})
def config_show(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Show an environment's effective configuration and where each value comes from."""
    with _console(json=json) as console:
        from ops.config_explain import explain

        found = list(explain(_project(), env))
        console.table("", ("key", "value", "from"), found)
        console.document([{"key": key, "value": value, "from": source} for key, value, source in found])


@task(help={"name": "the app's name (default: this folder's)", "port": "the port the app listens on"})
def init(c: Context, name: str = "", port: int = 3000) -> None:
    """Write a commented ops.toml for a new app."""
    with _console() as console:
        from ops.config_init import write_new

        write_new(CONFIG.absolute(), name or Path.cwd().name.lower(), port)
        console.say(f"{CONFIG} written: fill in your servers, then run inv config.check", "green")


def _collection(name: str, *tasks: Any, default: Any = None, **named: Any) -> Collection:
    found = Collection(name)
    for one in tasks:
        found.add_task(one)
    for alias, one in named.items():
        found.add_task(one, name=alias, default=one is default)
    return found


namespace = Collection(init)
namespace.add_collection(_collection("deploy", rollback, status, history, logs, exec_, prune, run=deploy, default=deploy))
namespace.add_collection(_collection("server", bootstrap, check, trust))
namespace.add_collection(_collection("sandbox", up, down, sandbox_status))
namespace.add_collection(_collection("docker", build, bases))
namespace.add_collection(_collection("config", config_check, config_show))
