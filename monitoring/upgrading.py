"""`inv monitoring.upgrade` on an environment's servers: Compose and the links, for monitoring.upgrade to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from monitoring import images
from monitoring.check import check_files
from monitoring.files import PROJECT
from monitoring.hosts import UPGRADE_NOTE, Host, at_work, decide, each, watcher
from monitoring.images import Lock, parse
from monitoring.inventory import Inventory, inventory
from monitoring.ready import await_targets
from monitoring.render import secret_names
from monitoring.snapshots import OnEngine
from monitoring.up import compose_up
from monitoring.upgrade import Change, go_back, go_on, unfinished, upgrade
from ops.config import Environment
from ops.console import Console
from ops.errors import Failed, Refused
from ops.link import Link
from ops.secret import Mask
from ops.secrets import resolve_secrets

Say = Callable[[str], None]
Agree = Callable[[Mapping[str, Sequence[Change]]], bool]
RESULTS = {
    "upgraded": "the stack runs on the images of monitoring/images.toml",
    "unchanged": "the stack runs on the images of monitoring/images.toml already",
    "put back": "the stack runs on its images from before the upgrade, with their data",
}
COPIED = ("grafana", "alertmanager")  # what cannot be collected again


class HostStack(OnEngine):
    """The stack of one server, as an upgrade sees it."""

    def __init__(self, host: Host, env: Environment, known: Inventory, watcher: Link, say: Say) -> None:
        copied = {name: f"{PROJECT}_{name}" for name in COPIED if name in host.images}
        super().__init__(host.server.engine, PROJECT, images.load()["gate"].name, copied)
        self._host, self._env, self._known, self._watcher, self._say = host, env, known, watcher, say

    @property
    def name(self) -> str:
        """The server."""
        return self._host.server.name

    def note(self) -> str:
        """Return the note, "" without one."""
        return self._host.server.link.call("read", path=UPGRADE_NOTE) or ""

    def write_note(self, text: str) -> None:
        """Replace the note, atomically and durably; "" removes it."""
        if text:
            self._host.server.link.call("write", path=UPGRADE_NOTE, text=text)
        else:
            self._host.server.link.call("remove", path=UPGRADE_NOTE)

    def bring(self, reference: str) -> None:
        """Have an image there."""
        images.bring(self.engine, reference, self._tell, self.name)

    def check(self, wanted: Mapping[str, str]) -> Sequence[str]:
        """Return what the programs in these images have against the configuration."""
        lock = {**images.load(), **{name: parse(reference) for name, reference in wanted.items()}}
        found = check_files(self.engine, self._host.files, lock)
        return [f"{one.service}: {one.said}" for one in found if one.ok is False and one.service in wanted]

    def stop(self, services: Sequence[str]) -> None:
        """Stop services; those that do not run are fine."""
        running = self._host.server.running()
        for name in services:
            if name in running:
                self.engine.stop(running[name], timeout=30)

    def start(self, wanted: Mapping[str, str]) -> None:
        """Run all services, these with these images and the others as they are. Raises Failed."""
        self._host.images = {**self._host.images, **wanted}
        compose_up(self._host, self._env, self._known, lambda _, what: self._tell(what), sorted(wanted))

    def healthy(self) -> str:
        """Wait until every target answers; return why not, or ""."""
        try:
            await_targets(
                self._watcher,
                self._known,
                self._env.monitoring.timeout,
                self._tell,
                self._host.server.crashed,
                self._host.watched.name,
            )
        except Failed as error:
            return f"{error.what}: {error.why}"
        return ""

    def _tell(self, what: str) -> None:
        self._say(f"{self.name}: {what}")


@dataclass(frozen=True)
class Wish:
    """What an upgrade is to do: go on with, or undo, one that never finished; ask registries for digests first."""

    refresh: bool = False
    go_on: bool = False
    put_back: bool = False


def upgrade_of(env: Environment, environ: Mapping[str, str], wish: Wish, agree: Agree, say: Say) -> str:
    """Change every server to the images of images.toml; returns what was done, in a word or two. Raises what upgrade does."""
    known = inventory(env)
    lock = images.refreshed(images.load(), images.registry_digest) if wish.refresh else images.load()
    secrets = resolve_secrets(env, secret_names(env, known), environ)
    with Mask(secrets), at_work(env, known, "monitoring.upgrade") as hosts:
        decide(env, known, hosts, secrets)
        stacks = [HostStack(host, env, known, watcher(hosts).server.link, say) for host in hosts]
        if wish.go_on or wish.put_back:
            _finish(stacks, partial(go_on if wish.go_on else go_back, say=say))
        if wish.put_back:
            return "put back"
        each(hosts, _require_placed)
        return _forward(stacks, lock, agree, say)


def _forward(stacks: Sequence[HostStack], lock: Lock, agree: Agree, say: Say) -> str:
    asked = False

    def agreed(planned: Mapping[str, Sequence[Change]]) -> bool:
        nonlocal asked
        asked = agree(planned)
        return asked

    if not upgrade(stacks, lock, agreed, say):
        return "declined"
    if lock != images.load():
        images.write(lock)
    return "upgraded" if asked else "unchanged"


def _require_placed(host: Host) -> None:
    """An upgrade changes images and nothing else. Raises Refused where `up` has something to do."""
    if host.server.differs(host.files):
        raise Refused("ops.toml, or Tidegate, has changed since the last up", where=host.server.name,
                      fix=f"inv monitoring.up -e {host.server.link.environment}, then the upgrade")  # fmt: skip


def _finish(stacks: Sequence[HostStack], end: Callable[..., None]) -> None:
    left = unfinished(stacks)
    if not left:
        raise Refused("no upgrade is unfinished", fix="inv monitoring.upgrade without --go-on and --put-back")
    for stack in stacks:
        if stack.name in left:
            end(stack, left[stack.name])


def show(console: Console, planned: Mapping[str, Sequence[Change]]) -> None:
    """Print what changes."""
    rows = (
        (server, one.service, one.old.name, one.new.partition("@")[0]) for server, changes in planned.items() for one in changes
    )
    console.table("", ("server", "service", "from", "to"), rows)
