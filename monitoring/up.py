"""Bringing the stack up on an environment's servers, and taking it down: read this first.

Look, render (pure), check in the images themselves, place, run, reload, and wait until every target answers. Files are
replaced one by one and atomically, containers by Compose; so whatever a run that died left, the next one ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from monitoring import images
from monitoring.check import check_files
from monitoring.files import FOLDER, MEMBERS, PROJECT
from monitoring.hosts import UPGRADE_NOTE, Host, at_work, decide, each, watcher
from monitoring.inventory import Inventory, addresses, inventory
from monitoring.live import Http, Prometheus
from monitoring.publishing import prepare, publish
from monitoring.ready import await_targets, reload
from monitoring.render import PASSWORD, require_urls, secret_names
from monitoring.server import Server
from monitoring.snapshots import LABEL_SNAPSHOT
from monitoring.stack import RELOADED
from ops.compose import Compose
from ops.config import Environment
from ops.errors import Failed, Refused
from ops.secret import Mask, Secret
from ops.secrets import resolve_secrets

Say = Callable[[str, str], None]  # server, what
_STEPS = tuple(f" {step}" for step in (
    "Creating", "Created", "Recreate", "Recreated", "Starting", "Stopping", "Stopped", "Removing", "Waiting", "Running"))  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What came of it; `password` is Grafana's, where it was made now."""

    environment: str
    services: Mapping[str, Sequence[str]]
    targets: int
    seconds: float
    password: Secret | None
    remarks: Sequence[str]


def up(env: Environment, environ: Mapping[str, str], say: Say) -> Done:
    """Bring the stack to what ops.toml says, on every server.

    Raises ConfigError, Refused, Locked before anything runs otherwise than before, and Failed with the last words.
    """
    began, known = time.monotonic(), inventory(env)
    secrets = resolve_secrets(env, secret_names(env, known), environ)
    require_urls(env.monitoring, secrets)
    with Mask(secrets), at_work(env, known, "monitoring.up") as hosts:
        each(hosts, _require_no_upgrade)
        password = decide(env, known, hosts, secrets)
        public = prepare(env, known, hosts, secrets)
        each(hosts, lambda host: _bring_images(host, say))
        each(hosts, lambda host: _check(host, say))
        with _password_not_lost(watcher(hosts), password, say):
            each(hosts, lambda host: _run(host, env, known, say))
            publish(hosts, public, say)
            targets = _await(hosts, env, known, say)
        link = watcher(hosts).server.link
        remarks = [
            *_remarks(env, known),
            *_left_behind(hosts, known),
            *_stand_ins(hosts),
            *_remarks_of(hosts, env),
            *_silent_edges(Prometheus(Http(link)), env),
        ]
    services = {host.server.name: sorted(host.images) for host in hosts}
    return Done(env.name, services, targets, round(time.monotonic() - began, 1), password, remarks)


def down(env: Environment, say: Say, *, volumes: bool = False) -> list[str]:
    """Stop and remove the stack's containers, and with `volumes` all it has collected too; returns the volumes that stay."""
    known = inventory(env)
    with at_work(env, known, "monitoring.down") as hosts:
        if not volumes:  # else there is nothing left to go on with
            each(hosts, _require_no_upgrade)
        publish(hosts, None, say)
        # The stack goes last: the others' collectors can send what they have read.
        others = [host for host in hosts if not host.watched.stack]
        kept = [each(some, lambda host: _take_down(host, say, volumes=volumes)) for some in (others, [watcher(hosts)]) if some]
    return sorted({name for found in kept for names in found for name in names})


@contextmanager
def _password_not_lost(host: Host, password: Secret | None, say: Say) -> Iterator[None]:
    """Say where Grafana's new password is, should we never come to showing it."""
    try:
        yield
    except BaseException:
        if password:
            say(host.server.name, f"Grafana's password is in {FOLDER}/{PASSWORD} there; root may read it")
        raise


def _await(hosts: Sequence[Host], env: Environment, known: Inventory, say: Say) -> int:
    link = watcher(hosts).server.link

    def crashed() -> str:
        return "".join(each(hosts, lambda host: host.server.crashed()))

    return await_targets(link, known, env.monitoring.timeout, partial(say, link.name), crashed)


def _require_no_upgrade(host: Host) -> None:
    if host.server.link.call("read", path=UPGRADE_NOTE):
        environment = host.server.link.environment
        raise Refused("an upgrade of the stack never finished there", where=host.server.name,
                      fix=f"inv monitoring.upgrade -e {environment} --go-on, or --put-back for the old images and their data")  # fmt: skip


def _bring_images(host: Host, say: Say) -> None:
    lock = images.load()
    for name, image in host.images.items():
        if image == lock[name].name:
            images.bring(host.server.engine, lock[name].reference, partial(say, host.server.name), host.server.name)


def _check(host: Host, say: Say) -> None:
    """Have each service's own program judge its files before any of them is placed. Raises Refused."""
    say(host.server.name, "checking the configuration in its images")
    lock = {**images.load(), **{name: images.parse(image) for name, image in host.images.items()}}
    found = check_files(host.server.engine, host.files, lock)
    if wrong := [f"{one.service}: {one.said}" for one in found if one.ok is False]:
        raise Refused("the stack's own programs refuse this configuration, nothing was changed", where=host.server.name,
                      why="\n         ".join(wrong), fix="mend ops.toml; a rule of yours: monitoring/rules")  # fmt: skip


def _run(host: Host, env: Environment, known: Inventory, say: Say) -> None:
    """Put everything in place and run it; a service that reads its files only once starts anew before its health is waited for."""
    server = host.server
    before = server.running()
    server.own(host.wanted(env, known).volumes)
    changed = server.place(host.files, host.keep)
    changed |= {"alloy", "promtail"} if "collector" in changed else set()
    for name in sorted(changed & set(before) - set(RELOADED)):
        say(server.name, f"{name} starts anew with its changed files")
        server.engine.restart(before[name], timeout=30)
    compose_up(host, env, known, say)
    same = {name for name, id in server.running().items() if before.get(name) == id}
    for name in sorted(changed & same & set(RELOADED)):
        _reload(server, name, before[name], say)
    if changed:
        server.all_read()


def compose_up(host: Host, env: Environment, known: Inventory, say: Say, only: Sequence[str] = ()) -> None:
    """Have Compose make a server's containers (or `only` some) what they are to be, and wait for their health.

    Raises Failed with their last words.
    """
    server, target = host.server, host.wanted(env, known)
    compose = host.compose = Compose(PROJECT, {}, server.link.socket, target.variables)
    seconds = str(max(1, round(env.monitoring.timeout)))
    words: tuple[str, ...] = ("up", "--detach", "--wait", "--wait-timeout", seconds, "--pull", "never", "--no-build")
    words += ("--no-deps", *only) if only else ("--remove-orphans",)
    code, last = compose.follow(*words, document=target.document, say=lambda what: _passed_on(server.name, what, say))
    if code:
        raise Failed("the stack did not come up", where=server.name, why=last + server.last_words(),
                     fix=f"mend it and run this again; inv monitoring.status -e {env.name} shows what runs")  # fmt: skip


def _passed_on(name: str, what: str, say: Say) -> None:
    """Tell of Compose what is news: how each container ends up."""
    if not what.endswith(_STEPS):
        say(name, what.replace(f"Container {PROJECT}-", "").replace("-1 ", " "))


def _reload(server: Server, name: str, id: str, say: Say) -> None:
    say(server.name, f"{name} reads its files anew")
    signal = partial(server.engine.kill, id, "HUP")
    if name in ("prometheus", "alertmanager"):
        reload(server.link, name, signal)
    else:
        signal()


def _take_down(host: Host, say: Say, *, volumes: bool) -> list[str]:
    server = host.server
    compose = Compose(PROJECT, {}, server.link.socket)
    code, last = compose.follow("down", document=None, say=lambda what: _passed_on(server.name, what, say))
    if code:
        raise Failed("the stack is not all down", where=server.name, why=last, fix="run this again")
    kept = server.volumes()
    if not volumes:
        return kept
    for name in (*kept, *server.volumes(LABEL_SNAPSHOT)):
        server.engine.remove_volume(name)
    server.link.call("remove", path=UPGRADE_NOTE)
    server.place([])
    server.all_read()
    return []


def _remarks(env: Environment, known: Inventory) -> Iterator[str]:
    told = env.monitoring
    if not (told.slack or told.email or told.webhooks):
        yield "nobody is told of alerts: [monitoring.slack], [monitoring.email] or [monitoring.webhooks.NAME] in ops.toml"
    if not told.heartbeat:
        yield "nobody notices when the stack itself is dead: [monitoring] heartbeat in ops.toml"
    if not env.app.metrics:
        yield "the app's own figures are not read, so nothing tells of errors and slow answers: [app.metrics] in ops.toml"
    if told.collector == "promtail" and known.has("collector"):
        yield 'Promtail is no longer maintained, since March 2026: [monitoring] collector = "alloy"'
    if known.without:
        yield f"left out: {', '.join(sorted(known.without))}"


def _remarks_of(hosts: Sequence[Host], env: Environment) -> Iterator[str]:
    for host in hosts:
        yield from host.remarks
    if outdated := sorted({name for host in hosts for name in host.outdated}):
        yield f"other images than monitoring/images.toml has: {', '.join(outdated)}: inv monitoring.upgrade -e {env.name}"


def _stand_ins(hosts: Sequence[Host]) -> Iterator[str]:
    found = {name for host in hosts for name, one in images.images_running(host.server.engine, PROJECT).items() if one.stand_in}
    if found:
        yield f"stand-ins made of Debian's packages, not the upstream images, since no registry was reached: {', '.join(sorted(found))}"


def _left_behind(hosts: Sequence[Host], known: Inventory) -> Iterator[str]:
    """Name servers that were taken out of ops.toml: nobody has told them to stop."""
    before = {address for host in hosts for address in json.loads(host.found[MEMBERS] or "[]")}
    for address in sorted(before - set(addresses(known))):
        yield f"{address} is not in ops.toml any more and may still run exporters; as root there: docker compose -p {PROJECT} down"


def _silent_edges(prometheus: Prometheus, env: Environment) -> Iterator[str]:
    for one in prometheus.query("nginx_up == 0"):
        yield f"the edge of {one['metric']['host']} tells no figures: inv server.bootstrap -e {env.name} gives nginx its new main file"
