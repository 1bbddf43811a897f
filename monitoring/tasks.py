"""What people type about monitoring. Heavy imports wait until a task needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context, Exit, task

from ops.menu import ENV, JSON, YES, environment_of, opened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitoring.upgrade import Change
    from ops.console import Console


@task(name="up", help={**ENV, **JSON})
def monitoring_up(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Watch an environment: bring the stack and its exporters to what ops.toml says, and wait until all of it answers."""
    with opened(json=json) as console:
        from monitoring import show, up
        from ops.interrupts import interrupt_once

        interrupt_once()
        try:
            done = up.up(environment_of(env), console.environ, lambda server, what: console.say(f"  {server}: {what}", "dim"))
        except KeyboardInterrupt:
            raise Exit(f"interrupted; what runs goes on, inv monitoring.up -e {env} brings it to its end", 1) from None
        show.came_up(console, done)
        console.document(show.up_document(done))


@task(
    name="down",
    help={**ENV, **JSON, **YES, "volumes": "also delete what was collected: figures, logs, silences, dashboards' state"},
)
def monitoring_down(c: Context, env: str = "sandbox", volumes: bool = False, yes: bool = False, json: bool = False) -> None:
    """Stop watching; what was collected stays, unless told otherwise."""
    with opened(json=json, yes=yes) as console:
        from monitoring import up
        from ops.interrupts import interrupt_once

        interrupt_once()

        environment = environment_of(env)
        if (volumes or environment.approve) and not console.confirm(
            f"stop watching {env}{' and delete all that was collected' if volumes else ''}?"
        ):
            raise Exit("declined, nothing was changed", 3)
        kept = up.down(environment, lambda server, what: console.say(f"  {server}: {what}", "dim"), volumes=volumes)
        console.document({"environment": env, "kept": kept})
        console.say(f"{env} is not watched any more" + (f"; kept: {', '.join(kept)}" if kept else ""), "bold")


@task(name="status", help={**ENV, **JSON})
def monitoring_status(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Show the stack's containers, what does not answer, what fires; exit code 3 when the stack itself is not all right."""
    with opened(json=json) as console:
        from monitoring import status

        found = status.look(environment_of(env))
        status.show(console, found)
        console.document(found.document())
        if not found.ok:
            raise Exit(f"the stack is not as it should be: inv monitoring.up -e {env}", 3)


@task(name="open", help={**ENV, "what": "grafana, prometheus, alertmanager or loki (default: grafana)",
                         "port": "the port on this machine (default: 7810 and following)",
                         "no-browser": "only forward, and say where"})  # fmt: skip
def monitoring_open(
    c: Context, env: str = "sandbox", what: str = "grafana", port: int = 0, no_browser: bool = False
) -> None:  # fmt: skip
    """Open Grafana, Prometheus or Alertmanager in the browser, through SSH; Ctrl-C ends it."""
    with opened() as console:
        import threading
        import webbrowser

        from monitoring import opening
        from ops.interrupts import interrupt_once

        interrupt_once()
        with opening.opened(environment_of(env), what, port or None) as address:
            console.say(f"{what} of {env}: {address}   (Ctrl-C ends this)", "bold")
            if not no_browser:
                webbrowser.open(address)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                console.say("closed")


@task(name="drill", help={**ENV, **JSON, "timeout": "seconds for everybody to have it (default: 120)"})
def monitoring_drill(c: Context, env: str = "sandbox", timeout: float = 120.0, json: bool = False) -> None:
    """Fire a synthetic alert and wait until every receiver has it; exit code 1 when one has not."""
    with opened(json=json) as console:
        from monitoring import drilling
        from ops.interrupts import interrupt_once

        interrupt_once()
        environment = environment_of(env)
        report = drilling.drill_of(environment, timeout)
        for line in report.lines():
            console.say(line)
        console.document(report.document())
        if not report.ok:
            raise Exit("✗ the drill did not arrive everywhere; next: docs/runbooks/TidegateDrill.md says where to look", 1)
        console.say(f"the alert arrived everywhere within {report.seconds:.1f} s", "green")


@task(name="silence", help={**ENV, **JSON, **YES, "alert": "names of alerts, with commas", "host": "names of servers, with commas",
                            "app": "names of apps, with commas", "for": "how long, such as 30m or 2h (default: 1h)",
                            "comment": "why", "list": "show the silences instead", "expire": "end the one whose id begins so instead"})  # fmt: skip
def monitoring_silence(
    c: Context, env: str = "sandbox", alert: str = "", host: str = "", app: str = "", for_: str = "1h", comment: str = "",
    list: bool = False, expire: str = "", json: bool = False, yes: bool = False,
) -> None:  # fmt: skip
    """Have alerts not told for a while; every silence ends by itself."""
    with opened(json=json, yes=yes) as console:
        from monitoring import show, silences
        from monitoring.live import watching

        with watching(environment_of(env)) as http:
            if expire:
                done = [silences.expire(http, expire)]
                console.say(f"ended: {show.silence(done[0])}", "green")
            elif list:
                done = silences.listed(http)
                show.silences(console, done)
            else:
                done = [show.add_silence(console, http, silences.matchers(alert, host, app), for_, comment)]
            console.document([show.silence_document(one) for one in done])


@task(name="check", help={**ENV, **JSON})
def monitoring_check(c: Context, env: str = "sandbox", json: bool = False) -> None:
    """Check the configuration in the stack's own images, and that every series a rule names exists; exit code 3 if not."""
    with opened(json=json) as console:
        from monitoring import checked, checking

        found = checking.check_of(environment_of(env), console.environ)
        checked.show(console, found)
        console.document(found.document())
        if not found.ok:
            raise Exit("something is wrong or dead, see above", 3)


@task(name="upgrade", help={**ENV, **JSON, **YES, "refresh": "first ask the registries for the digests of monitoring/images.toml",
                            "go-on": "bring an upgrade that never finished to its end", "put-back": "or back to the old images and their data"})  # fmt: skip
def monitoring_upgrade(
    c: Context, env: str = "sandbox", refresh: bool = False, go_on: bool = False, put_back: bool = False, yes: bool = False,
    json: bool = False,
) -> None:  # fmt: skip
    """Change to the images of monitoring/images.toml behind a health gate; a failure goes back, with the data."""
    with opened(json=json, yes=yes) as console:
        from monitoring import upgrading
        from ops.interrupts import interrupt_once

        interrupt_once()

        def agree(planned: Mapping[str, Sequence[Change]]) -> bool:
            upgrading.show(console, planned)
            return console.confirm(f"upgrade the stack of {env}?")

        wish = upgrading.Wish(refresh=refresh, go_on=go_on, put_back=put_back)
        done = upgrading.upgrade_of(
            environment_of(env), console.environ, wish, agree, lambda what: console.say(f"  {what}", "dim")
        )
        console.document({"environment": env, "done": done})
        if done == "declined":
            raise Exit("declined, nothing was changed", 3)
        console.say(upgrading.RESULTS[done], "green")


@task(name="refresh", help=JSON)
def monitoring_refresh(c: Context, json: bool = False) -> None:
    """Ask the registries for the digests of monitoring/images.toml and write them there; no server is touched."""
    with opened(json=json) as console:
        from monitoring import images
        from ops import local_engine

        local_engine.ensure(console.say)
        changed = images.refresh(images.registry_digest)
        console.document({"changed": changed})
        console.say(
            f"{', '.join(changed) or 'no image'} changed; inv monitoring.upgrade -e ENV brings what stands there", "green"
        )


@task(name="logs", help={**ENV, **JSON, "query": "LogQL, or words to look for; '' is all of the app's",
                         "since": "how far back, such as 15m or 2d (default: 1h)", "limit": "lines at most (default: 200)",
                         "follow": "go on with what comes"})  # fmt: skip
def monitoring_logs(
    c: Context, query: str, env: str = "sandbox", since: str = "1h", limit: int = 200, follow: bool = False, json: bool = False
) -> None:
    """Read logs out of Loki in the terminal."""
    with opened(json=json) as console:
        _logs(console, env, query, since, limit, follow=follow)


def _logs(console: Console, env: str, query: str, since: str, limit: int, *, follow: bool) -> None:
    from monitoring import reading
    from ops.interrupts import interrupt_once

    interrupt_once()
    reading.read(console, environment_of(env), query, since, limit, follow=follow)


TASKS = (
    monitoring_up, monitoring_down, monitoring_status, monitoring_check, monitoring_open, monitoring_drill, monitoring_silence,
    monitoring_refresh, monitoring_upgrade, monitoring_logs,
)  # fmt: skip
