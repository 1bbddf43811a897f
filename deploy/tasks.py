"""What people type about servers, releases that serve and services. Heavy imports wait until a task needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context, Exit, task

from ops.menu import ENV, JSON, YES, environment_of, opened, project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.services_check import Change
    from ops.console import Console


@task(help={**ENV, **JSON})
def status(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Show what serves on every server, since when, and how servers differ."""
    with opened(json=json) as console:
        from deploy import inspect

        states, unreachable = inspect.observe(environment_of(env))
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
    with opened(json=json) as console:
        from deploy import inspect

        found = inspect.history(environment_of(env), number)
        columns = ("time", "server", "kind", "release", "by", "result", "seconds", "requests", "failures", "backup")
        console.table(
            "", columns, ([str(one.get(column, ""))[: 19 if column == "time" else None] for column in columns] for one in found)
        )
        console.document(found)


@task(help={**ENV, "process": "web, or one of app.processes", "tail": "how many lines from the past", "follow": "wait for more"})
def logs(c: Context, env: str = "sandbox", process: str = "web", tail: int = 100, follow: bool = False) -> None:
    """Show the logs of the serving containers."""
    with opened() as console:
        from deploy import inspect

        environment = environment_of(env)
        several = len(environment.hosts) > 1
        inspect.logs(environment, process, tail, follow, lambda host, line: console.quote(f"{host}: {line}" if several else line))


@task(
    name="exec",
    help={**ENV, "command": "the command, split into words as a shell would", "process": "web, or one of app.processes"},
)
def exec_(c: Context, command: str, env: str = "sandbox", process: str = "web") -> None:
    """Run a command in the serving container of the first server."""
    with opened():
        import shlex

        from deploy import inspect

        code = inspect.run(environment_of(env), process, shlex.split(command), lambda text: print(text, end="", flush=True))
        if code:
            raise Exit(f"it ended with exit code {code}", code)


@task(name="up", help={**ENV, **YES})
def services_up(c: Context, env: str = "sandbox", yes: bool = False) -> None:
    """Bring up the databases and caches of app.services on the first server, and wait until they are healthy."""
    _services("up", env, yes=yes)


@task(name="down", help={**ENV, **YES})
def services_down(c: Context, env: str = "sandbox", yes: bool = False) -> None:
    """Stop and remove the services' containers; their volumes stay."""
    _services("down", env, yes=yes)


def _services(kind: str, env: str, *, yes: bool) -> None:
    with opened(yes=yes) as console:
        from deploy import services
        from ops.interrupts import interrupt_once

        environment = environment_of(env)

        def confirm(server: str, changes: Sequence[Change]) -> bool:
            console.table(server, ("service", "image", "what", "why"), (list(vars(one).values()) for one in changes))
            needed = environment.approve and any(one.action != "keep" for one in changes)
            return not needed or console.confirm(f"services.{kind} on {server}, environment {env}?")

        def say(text: str) -> None:
            console.say(f"  {text}")

        interrupt_once()
        agreed = (
            services.up(environment, console.environ, say, confirm) if kind == "up" else services.down(environment, say, confirm)
        )
        if not agreed:
            raise Exit("declined, nothing was changed", 3)
        console.say("the services are up and healthy" if kind == "up" else "the services are down", "green")


@task(name="status", help={**ENV, **JSON})
def services_status(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Show the databases and caches beside the app."""
    with opened(json=json) as console:
        from deploy import services

        rows = [vars(row) for row in services.status(environment_of(env))]
        shown = ("server", "service", "image", "state", "health", "ports", "volumes", "since", "container")
        if rows:
            console.table("", shown, ([row[column] for column in shown] for row in rows))
        else:
            console.say("no service runs: inv services.up")
        console.document(rows)


@task(help={**ENV, **YES})
def trust(c: Context, env: str = "sandbox", yes: bool = False) -> None:
    """Show the servers' host keys and add them to known_hosts; commit that file."""
    with opened(yes=yes) as console:
        from deploy import servers

        environment = environment_of(env)
        for host in environment.servers:
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
    with opened(yes=True) as console:
        from deploy import sandbox, servers

        sandbox.up(project().root, hosts, console.say)
        servers.make_ready(environment_of("sandbox"), lambda server, what: console.say(f"  {server}: {what}"), lambda *_: True)
        _sandbox_table(console)


@task
def down(c: Context) -> None:
    """Remove the sandbox: servers, their data, their keys."""
    with opened() as console:
        from deploy import sandbox

        sandbox.down(project().root, console.say)


@task(name="status", help=JSON)
def sandbox_status(c: Context, json: bool = False) -> None:
    """Show the sandbox's servers."""
    with opened(json=json) as console:
        _sandbox_table(console)


def _sandbox_table(console: Console) -> None:
    from deploy import sandbox

    found = sandbox.status(project().root)
    console.table("", ("name", "state", "engine", "ssh", "http"), (
        (one.name, one.state, one.engine, f"127.0.0.1:{one.ports[0]}", f"http://127.0.0.1:{one.ports[1]}") for one in found
    ))  # fmt: skip
    console.document([vars(one) for one in found])


RELEASES = (status, history, logs, exec_)
SERVICES = (services_up, services_down, services_status)
SERVERS = (trust,)
SANDBOX = (up, down, sandbox_status)
