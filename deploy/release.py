"""Deploy, rollback and prune from end to end: connect, lock, observe, plan, show, apply, tell.

The connections are opened first and authenticate while the image is built and the secrets are read.
"""

from __future__ import annotations

import secrets as randomness
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from deploy import figures, public
from deploy.apply import Run
from deploy.docker_server import DockerServer
from deploy.intent import Options, Progress, make_intent
from deploy.model import HostState, ProbeReport
from deploy.plan import Plan, plan_deploy, plan_prune, plan_rollback
from deploy.server import Backups, Server, Watch
from deploy.session import Session
from deploy.ship import Shipper
from ops.config import Environment
from ops.errors import ConfigError, Failed, NeedsPerson, Refused, TidegateError
from ops.secret import Mask
from ops.secrets import resolve_secrets
from ops.this_machine import local_client
from ops.who import who

Confirm = Callable[[Plan, Sequence[HostState]], bool]


@dataclass
class Summary:
    """What happened, for the table and for `--json`."""

    kind: str
    environment: str
    result: str
    release: str = ""
    version: str = ""
    servers: list[str] = field(default_factory=list)
    previous: Mapping[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    probes: dict[str, ProbeReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    url: str = ""
    round_trips: dict[str, int] = field(default_factory=dict)
    backup: str = ""


class Work:
    """The servers of a session, with what a release needs beside them; a context manager."""

    def __init__(self, session: Session, reporter: Progress, backups: Backups | None, *, looks_only: bool) -> None:
        self.env = session.env
        self.links = session.links
        self.shipper = Shipper(session.door, session.state, lambda: local_client().api) if session.door else None
        self.servers = {
            link.name: DockerServer(
                self.env, link, self.shipper, partial(reporter.bytes, link.name), backups, looks_only=looks_only
            )
            for link in session.links
        }

    def __enter__(self) -> Work:
        if self.shipper:
            self.shipper.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.shipper:
            self.shipper.__exit__()

    def observe(self) -> tuple[HostState, ...]:
        """Look at all servers at once, from inside and through their public address."""
        with ThreadPoolExecutor(2 * len(self.links)) as pool:
            reachable = [pool.submit(public.answers, self.env, link.host) for link in self.links]
            states = list(pool.map(lambda server: server.observe(), self.servers.values()))
            return tuple(replace(state, public=seen.result()) for state, seen in zip(states, reachable, strict=True))


def release(
    kind: str, session: Session, options: Options, environ: Mapping[str, str], reporter: Progress, confirm: Confirm,
    backups: Backups | None = None, watch: Watch | None = None, begun: Callable[[Summary], None] = lambda _: None,
) -> Summary:  # fmt: skip
    """Carry out a deploy, rollback or prune on every server of an environment and tell whom it concerns.

    `begun` is handed what this returns while it is still being filled, for those who tell of failures too.
    Raises TidegateError; its kind is the outcome (ops/errors.py).
    """
    app, env = session.env.app.name, session.env
    notices = Notices(env, environ, required=kind == "deploy" and not options.dry_run)
    try:
        with Work(session, reporter, backups, looks_only=kind != "deploy" or options.dry_run or options.skip_backup) as work:
            done = _release(kind, work, options, environ, reporter, confirm, watch, begun)
    except (Failed, NeedsPerson) as error:
        # Without the cause: it may quote the app's logs, which belong on the terminal and not in a chat.
        notices.send(f"{app}: {kind} failed in {env.name}", f"{error.where}: {error.what}".lstrip(": "), failed=True)
        raise
    if done.result == "done" and kind != "prune":
        title = f"{app}: {done.release} serves in {env.name}"
        done.notes += notices.send(title, f"{kind} in {done.seconds:.1f} s by {who()}", failed=False)
    return done


class Notices:
    """Whom to tell; their secret addresses are read before anything is changed. Raises ConfigError when `required`."""

    def __init__(self, env: Environment, environ: Mapping[str, str], *, required: bool) -> None:
        self._on = env.notifications.on
        self._missing = ""
        try:
            self._urls = list(resolve_secrets(env, env.notifications.urls, environ).values()) if env.notifications.urls else []
        except ConfigError as error:
            if required:
                raise
            self._urls, self._missing = [], str(error)

    def send(self, title: str, body: str, *, failed: bool) -> list[str]:
        """Send a notice to those who want it; returns what went wrong, which never fails a deploy."""
        if self._missing:
            return [f"notice not sent: {self._missing}"]
        if not self._urls or ("failure" if failed else "success") not in self._on:
            return []
        from ops.notify import notify

        return [f"notice not sent: {problem}" for problem in notify(self._urls, title, body, failed)]


def _release(
    kind: str, work: Work, options: Options, environ: Mapping[str, str], reporter: Progress, confirm: Confirm,
    watch: Watch | None, begun: Callable[[Summary], None],
) -> Summary:  # fmt: skip
    began, env = time.monotonic(), work.env
    if not options.dry_run:
        _ask_for_locks(work, f"{kind} of {env.name}")
    intent = make_intent(env, options, environ, reporter) if kind == "deploy" else None
    hide = Mask(intent.environment if intent else {})
    states = work.observe()
    plan = plan_deploy(env, intent, states) if intent else PLANS[kind](env, states, options)
    summary = Summary(kind, env.name, "", plan.release, plan.version, list(work.servers), plan.previous,
                      url=public.base_url(env.hosts[0], env.domains[0], https=env.tls is not None))  # fmt: skip
    begun(summary)
    summary.backup = plan.backup
    if intent:
        summary.phases["build"] = round(intent.build_seconds, 3)
    agreed = confirm(plan, states)
    if plan.refusals:
        raise Refused(f"{kind} refused, nothing was changed", why="\n         ".join(plan.refusals))
    if plan.unchanged or options.dry_run or not agreed:
        summary.result = "unchanged" if plan.unchanged else "planned" if options.dry_run else "declined"
    else:
        with hide:
            _carry_out(work, plan, summary, reporter, began, watch)
    summary.seconds = round(time.monotonic() - began, 3)
    summary.round_trips = {link.name: link.calls for link in work.links}
    return summary


PLANS: Mapping[str, Callable[[Environment, tuple[HostState, ...], Options], Plan]] = {
    "rollback": lambda env, states, options: plan_rollback(env, states, options.to),
    "prune": lambda env, states, options: plan_prune(env, states),
}


def _ask_for_locks(work: Work, what: str) -> None:
    holder = {"what": what, "who": who(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    for server in work.servers.values():
        server.lock(holder)


def _carry_out(work: Work, plan: Plan, summary: Summary, reporter: Progress, began: float, watch: Watch | None) -> None:
    operation = randomness.token_hex(6)
    with (
        _journalled(work, plan, operation, summary, began),
        _figures(work, plan),
        _silence(work, plan, summary, watch),
        _probing(work, plan, summary),
    ):
        run = Run(plan, work.servers, operation, reporter)
        try:
            run.apply()
        finally:
            summary.phases |= run.outcome.phases
    summary.notes += run.outcome.leftovers + [line for server in work.servers.values() for line in server.remarks]
    summary.result = "done"


@contextmanager
def _journalled(work: Work, plan: Plan, operation: str, summary: Summary, began: float) -> Iterator[None]:
    head: dict[str, Any] = {
        "operation": operation, "kind": plan.kind, "release": plan.release, "version": plan.version, "by": who(),
        **({"backup": plan.backup} if plan.backup else {}), **({"backup": "skipped"} if plan.skips_backup else {}),
    }  # fmt: skip
    for name, server in work.servers.items():
        server.journal({"event": "begin", **head, "previous": plan.previous[name]}, wait=False)
    result = "failed"
    try:
        yield
        result = "done"
    except NeedsPerson:
        result = "needs a person"
        raise
    except TidegateError:
        result = "undone"
        raise
    except KeyboardInterrupt:
        result = "undone"
        raise Failed(f"{plan.kind} interrupted and undone; what served before serves on") from None
    except Exception as error:
        result = "undone"
        raise Failed(f"{plan.kind} failed and was undone", why=f"{type(error).__name__}: {error}") from error
    finally:
        for name, server in work.servers.items():
            seen = summary.probes.get(name)
            counts = {"requests": seen.requests, "failures": seen.failures} if seen else {}
            _journal_end(
                server, {"event": "end", **head, "result": result, "seconds": round(time.monotonic() - began, 3), **counts}
            )


@contextmanager
def _figures(work: Work, plan: Plan) -> Iterator[None]:
    """Tell monitoring that this begins and how it ended; of a prune there is nothing to tell."""
    if plan.kind == "prune":
        yield
        return
    labels = {"app": work.env.app.name, "environment": work.env.name}
    about, started, ok = {"release": plan.release, "version": plan.version, "kind": plan.kind}, datetime.now(UTC), False
    for server in work.servers.values():
        server.tell_figures(figures.begun(labels, about, started), wait=False)
    try:
        yield
        ok = True
    finally:
        text = figures.ended(labels, about, started, datetime.now(UTC), ok=ok)
        for server in work.servers.values():
            server.tell_figures(text, wait=True)


@contextmanager
def _silence(work: Work, plan: Plan, summary: Summary, watch: Watch | None) -> Iterator[None]:
    """Keep alerts of the containers that are swapped from being told while they are."""
    if watch is None:
        yield
        return
    ok = False
    summary.notes += filter(None, [watch.begin(work.env.app.name, list(work.servers), plan.release)])
    try:
        yield
        ok = True
    finally:
        summary.notes += filter(None, [watch.end(ok=ok)])


def _journal_end(server: Server, record: Mapping[str, Any]) -> None:
    try:
        server.journal(record)
    except TidegateError as error:
        server.remark(f"the journal has no end of this ({error.what}); the next deploy mentions it")


@contextmanager
def _probing(work: Work, plan: Plan, summary: Summary) -> Iterator[None]:
    """Send requests through the edges as long as the plan is carried out."""
    for host, probe in plan.probes.items():
        work.servers[host].probe(probe, work.env.app.prober.interval)
    try:
        yield
    finally:
        for name, server in work.servers.items():
            try:
                report = server.probe_report(stop=True)
            except TidegateError:
                continue  # the connection is gone, and its loss is reported by whoever needed it
            if report:
                summary.probes[name] = report
