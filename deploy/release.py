"""Deploy, rollback and prune from end to end: connect, lock, observe, plan, show, apply, tell.

The connections are opened first and authenticate while the image is built and the secrets are read.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import secrets as randomness
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from deploy import image as images
from deploy import public
from deploy.apply import Reporter, Run
from deploy.docker_server import DockerServer
from deploy.this_machine import local_client
from deploy.model import HostState, ImageRef, Intent, ProbeReport
from deploy.plan import Plan, plan_deploy, plan_prune, plan_rollback
from deploy.server import Server
from deploy.session import Session
from deploy.ship import Shipper
from ops.config import App, Environment
from ops.errors import Failed, Refused, TidegateError
from ops.secret import Secret
from ops.secrets import resolve_secrets

Confirm = Callable[[Plan, Sequence[HostState]], bool]
MINIMUM_PROBES = 5
PROBE_PATIENCE = 3.0


class Progress(Reporter):
    """A reporter that also shows a build's output and bytes on their way."""

    def build(self, line: str) -> None:
        """A line of the build's output."""

    def bytes(self, server: str, done: int, total: int) -> None:
        """Bytes of the image that a server has received."""


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    version: str | None = None
    to: str | None = None
    dry_run: bool = False
    force: bool = False


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


class Work:
    """The servers of a session, with what a release needs beside them; a context manager."""

    def __init__(self, session: Session, reporter: Progress) -> None:
        self.env = session.env
        self.links = session.links
        self.shipper = Shipper(session.door, session.state, lambda: local_client().api) if session.door else None
        self.servers = {
            link.name: DockerServer(self.env, link, self.shipper, partial(reporter.bytes, link.name)) for link in session.links
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
            reachable = [pool.submit(public.answers, self.env, link.host, self.env.app.health.path) for link in self.links]
            states = list(pool.map(lambda server: server.observe(), self.servers.values()))
            return tuple(replace(state, public=seen.result()) for state, seen in zip(states, reachable, strict=True))


def deploy(session: Session, options: Options, environ: Mapping[str, str], reporter: Progress, confirm: Confirm) -> Summary:
    """Deploy a version to every server of an environment. Raises TidegateError; see ops/errors.py for the outcomes."""
    began = time.monotonic()
    env = session.env
    with Work(session, reporter) as work:
        _ask_for_locks(work, f"deploy to {env.name}", options)
        intent = _intent(env, options, environ, reporter)
        states = work.observe()
        plan = plan_deploy(env, intent, states)
        return _carry_out(work, plan, states, options, environ, reporter, confirm, began)


def rollback(session: Session, options: Options, environ: Mapping[str, str], reporter: Progress, confirm: Confirm) -> Summary:
    """Return every server to a kept release. Raises TidegateError."""
    began = time.monotonic()
    env = session.env
    with Work(session, reporter) as work:
        _ask_for_locks(work, f"rollback of {env.name}", options)
        states = work.observe()
        plan = plan_rollback(env, states, options.to)
        return _carry_out(work, plan, states, options, environ, reporter, confirm, began)


def prune(session: Session, options: Options, environ: Mapping[str, str], reporter: Progress, confirm: Confirm) -> Summary:
    """Remove what is beyond `keep_releases` and what killed deploys left. Raises TidegateError."""
    began = time.monotonic()
    env = session.env
    with Work(session, reporter) as work:
        _ask_for_locks(work, f"prune of {env.name}", options)
        states = work.observe()
        return _carry_out(work, plan_prune(env, states), states, options, environ, reporter, confirm, began)


def _ask_for_locks(work: Work, what: str, options: Options) -> None:
    holder = {"what": what, "who": who(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    for server in () if options.dry_run else work.servers.values():
        server.lock(holder)


def who() -> str:
    """Return who is at work, as the lock and the journal name them."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _intent(env: Environment, options: Options, environ: Mapping[str, str], reporter: Progress) -> Intent:
    app = env.app
    values: dict[str, str | Secret] = {**app.environment, **resolve_secrets(env, app.secrets, environ)}
    extra = app.edge.include.read_text() if app.edge.include else ""
    return Intent(
        image=_image(app, options, reporter),
        environment=values,
        config_hash=_digest(_what_runs(env, extra)),
        environment_hash=_digest({key: value.reveal() if isinstance(value, Secret) else value for key, value in values.items()}),
        edge_extra=extra,
        nonce=randomness.token_hex(8),
        now=datetime.now(UTC),
        by=who(),
        force=options.force,
    )


def _image(app: App, options: Options, reporter: Progress) -> ImageRef:
    if app.image is not None:
        if options.version is None:
            raise Refused("say which version to deploy", where=app.image, fix="inv deploy --version TAG")
        return ImageRef(images.image_name(app, options.version), options.version, "", pull=True)
    source = images.read_source(app, options.version)
    if options.dry_run:
        return ImageRef(images.image_name(app, source.version), source.version, source.content)
    began = time.monotonic()
    reporter.phase("build")
    built = images.build(app, source, local_client().api, reporter.build)
    reporter.phase_done("build", time.monotonic() - began)
    return built


def _what_runs(env: Environment, extra: str) -> dict[str, Any]:
    app = env.app.model_dump(mode="json", exclude={"name", "context", "dockerfile", "keep_releases", "prober", "migrate", "environment"})
    return {"app": app, "domains": env.domains, "tls": env.tls is not None, "extra": extra}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _carry_out(
    work: Work,
    plan: Plan,
    states: Sequence[HostState],
    options: Options,
    environ: Mapping[str, str],
    reporter: Progress,
    confirm: Confirm,
    began: float,
) -> Summary:
    env = work.env
    summary = Summary(plan.kind, env.name, "", plan.release, plan.version, list(work.servers), plan.previous,
                      notes=list(plan.notes), url=public.base_url(env, env.hosts[0]))  # fmt: skip
    agreed = confirm(plan, states)
    if plan.refusals:
        raise Refused(f"{plan.kind} refused, nothing was changed", why="\n         ".join(plan.refusals))
    if plan.unchanged or options.dry_run or not agreed:
        summary.result = "unchanged" if plan.unchanged else "planned" if options.dry_run else "declined"
        return _timed(summary, work, began)
    operation = randomness.token_hex(6)
    with _journalled(work, plan, operation, summary, began), _probing(work, states, summary):
        run = Run(plan, work.servers, operation, reporter)
        try:
            run.apply()
        finally:
            summary.phases = run.outcome.phases
        summary.notes += run.outcome.leftovers + [line for server in work.servers.values() for line in server.remarks]
        summary.result = "done"
    return _timed(summary, work, began)


def _timed(summary: Summary, work: Work, began: float) -> Summary:
    summary.seconds = round(time.monotonic() - began, 3)
    summary.round_trips = {link.name: link.calls for link in work.links}
    return summary


@contextmanager
def _journalled(work: Work, plan: Plan, operation: str, summary: Summary, began: float) -> Iterator[None]:
    head = {"operation": operation, "kind": plan.kind, "release": plan.release, "version": plan.version, "by": who()}
    for name, server in work.servers.items():
        server.journal({"event": "begin", **head, "previous": plan.previous[name]})
    result = "interrupted"
    try:
        yield
        result = "done"
    except TidegateError as error:
        result = {1: "undone", 5: "needs a person"}.get(error.exit_code, "failed")
        raise
    except KeyboardInterrupt:
        result = "undone"
        raise Failed(f"{plan.kind} interrupted and undone; what served before serves on") from None
    finally:
        seconds = round(time.monotonic() - began, 3)
        for name, server in work.servers.items():
            seen = summary.probes.get(name)
            counts = {"requests": seen.requests, "failures": seen.failures} if seen else {}
            _journal_end(server, {"event": "end", **head, "result": result, "seconds": seconds, **counts})


def _journal_end(server: Server, record: Mapping[str, Any]) -> None:
    try:
        server.journal(record)
    except TidegateError as error:
        server.remark(f"the journal has no end of this ({error.what}); the next deploy mentions it")


@contextmanager
def _probing(work: Work, states: Sequence[HostState], summary: Summary) -> Iterator[None]:
    """Send requests through every edge that serves something, as long as the plan is carried out."""
    app, domain = work.env.app, work.env.domains[0]
    for state in states:
        if state.serving and state.edge.running:
            work.servers[state.host].probe(domain, app.health.path, app.prober.interval)
    try:
        yield
    finally:
        for name, server in work.servers.items():
            try:
                report = server.probe_report(stop=True)
            except TidegateError:
                report = None  # the connection is gone, and its loss is reported by whoever needed it
            if report:
                summary.probes[name] = report
