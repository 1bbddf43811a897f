"""`inv monitoring.upgrade`: new images behind a health gate, and back to the old ones with their data when they fail.

On each server a note says how far it is, written before the step it announces. Whatever dies when, the next upgrade finds
the note and goes on or goes back; without one there is nothing unfinished.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from monitoring.images import Lock, Running, is_wanted, parse
from ops.errors import Failed, NeedsPerson, Refused
from ops.interrupts import no_more_interrupts
from ops.who import who

Say = Callable[[str], None]


class Phase(StrEnum):
    """How far an upgrade is on a server."""

    STOPPING = "stopping"  # nothing new has run: the data is as it was
    STARTING = "starting"  # the copies are whole, and the new may have changed the data
    RETURNING = "returning"  # the copies are being put back


@dataclass(frozen=True)
class Change:
    """One service whose image changes: what runs, and the reference of what is to run."""

    service: str
    old: Running
    new: str


@dataclass(frozen=True)
class Begun:
    """An upgrade of one server, as its note has it."""

    changes: tuple[Change, ...]
    phase: Phase
    by: str
    since: str

    def dump(self) -> str:
        """Return it as a note."""
        return json.dumps(asdict(self))


class Stack(Protocol):
    """What an upgrade asks of one server."""

    @property
    def name(self) -> str:
        """The server."""

    def running(self) -> Mapping[str, Running]:
        """Return the image of each service's container, started or not."""

    def note(self) -> str:
        """Return the note, "" without one."""

    def write_note(self, text: str) -> None:
        """Replace the note, atomically and durably; "" removes it."""

    def bring(self, reference: str) -> None:
        """Have an image there."""

    def check(self, images: Mapping[str, str]) -> Sequence[str]:
        """Return what the programs in these images have against the configuration."""

    def stop(self, services: Sequence[str]) -> None:
        """Stop services; those that do not run are fine."""

    def start(self, images: Mapping[str, str]) -> None:
        """Run all services, these with these images and the others as they are."""

    def healthy(self) -> str:
        """Wait until all services are healthy; return why they are not, or ""."""

    def keeps_data(self, service: str) -> bool:
        """Say whether a service's volume is copied before its image changes."""

    def hold(self, service: str, old: Running) -> None:
        """Keep an image whatever cleans up."""

    def snapshot(self, service: str) -> None:
        """Copy the volume of a stopped service, in place of an older copy."""

    def put_back(self, service: str) -> None:
        """Make the volume of a stopped service what its copy is."""

    def give_back(self, old: Running) -> None:
        """Let an image have its name again."""

    def let_go(self, services: Sequence[str], unused: Sequence[str]) -> None:
        """Remove copies, and images that nothing uses."""


def plan(running: Mapping[str, Running], lock: Lock) -> tuple[Change, ...]:
    """Return what changes on a server: services that run on another image than the lock file's. Pure."""
    return tuple(
        Change(service, old, lock[service].reference)
        for service, old in sorted(running.items())
        if service in lock and not (old.name == lock[service].name and is_wanted(lock[service], old.digests))
    )


def unfinished(stacks: Sequence[Stack]) -> dict[str, Begun]:
    """Return the upgrades that never came to their end, by server."""
    return {stack.name: begun for stack in stacks if (begun := _begun(stack))}


def upgrade(stacks: Sequence[Stack], lock: Lock, agree: Callable[[Mapping[str, Sequence[Change]]], bool], say: Say) -> bool:
    """Bring and check the new images everywhere, then change to them server by server; returns whether that was agreed to.

    Raises Refused before anything is changed, Failed when a server is back on its old images, NeedsPerson when it is not.
    """
    if left := unfinished(stacks):
        raise Refused(f"an upgrade of {', '.join(left)} never finished", why="; ".join(map(_told, left.values())),
                      fix="run this with --go-on, or with --put-back for the old images and their data")  # fmt: skip
    planned = {stack.name: changes for stack in stacks if (changes := plan(stack.running(), lock))}
    if not planned or not agree(planned):
        return not planned
    concerned = [stack for stack in stacks if stack.name in planned]
    for stack in concerned:
        _prepare(stack, planned[stack.name])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for stack in concerned:
        _carry_out(stack, Begun(planned[stack.name], Phase.STOPPING, who(), now), say)
    return True


def go_on(stack: Stack, begun: Begun, say: Say) -> None:
    """Bring an unfinished upgrade to its end. Raises Refused where that is too late, else as `upgrade` does."""
    if begun.phase is Phase.RETURNING:
        raise Refused("the old data is being put back, half of it may be there", where=stack.name, fix="run this with --put-back")
    _prepare(stack, begun.changes)
    _carry_out(stack, begun, say)


def go_back(stack: Stack, begun: Begun, say: Say) -> None:
    """Put the old images and their data back. Raises NeedsPerson when they do not run then."""
    services = [change.service for change in begun.changes]
    if begun.phase is not Phase.STOPPING:
        stack.write_note(replace(begun, phase=Phase.RETURNING).dump())
        stack.stop(services)
        for service in filter(stack.keeps_data, services):
            say(f"{stack.name}: putting back the data of {service}")
            stack.put_back(service)
    for change in begun.changes:
        stack.give_back(change.old)
    say(f"{stack.name}: starting the old images of {', '.join(services)}")
    stack.start({change.service: change.old.name for change in begun.changes})
    if why := stack.healthy():
        raise NeedsPerson("the old images are back and are not healthy", where=stack.name, why=why, fix=_AGAIN)
    stack.write_note("")
    stack.let_go(services, ())


_AGAIN = "put that right, then run the upgrade with --put-back: the copies of the data are kept"


def _prepare(stack: Stack, changes: Sequence[Change]) -> None:
    """Have the new images there, and the configuration checked by them."""
    for change in changes:
        stack.bring(change.new)
    if problems := stack.check({change.service: parse(change.new).name for change in changes}):
        raise Refused("the new images do not take the configuration", where=stack.name, why="\n         ".join(problems),
                      fix="mend it, inv monitoring.up, then upgrade; nothing was changed")  # fmt: skip


def _carry_out(stack: Stack, begun: Begun, say: Say) -> None:
    try:
        _forward(stack, begun, say)
    except BaseException as error:
        no_more_interrupts()
        _return(stack, error, say)
        raise
    names = {parse(change.new).name for change in begun.changes}
    old = [change.old.name for change in begun.changes if change.old.name not in names]
    stack.let_go([change.service for change in begun.changes], old)
    say(f"{stack.name}: upgraded and healthy")


def _forward(stack: Stack, begun: Begun, say: Say) -> None:
    if begun.phase is Phase.STOPPING:
        stack.write_note(begun.dump())
        _hold(stack, begun, say)
        begun = replace(begun, phase=Phase.STARTING)
        stack.write_note(begun.dump())
    say(f"{stack.name}: starting {', '.join(change.new.partition('@')[0] for change in begun.changes)}")
    stack.start({change.service: parse(change.new).name for change in begun.changes})
    if why := stack.healthy():
        raise Failed("the new images do not become healthy", where=stack.name, why=why)
    stack.write_note("")


def _hold(stack: Stack, begun: Begun, say: Say) -> None:
    """Keep what the way back takes. Data is copied while nobody writes to it."""
    for change in begun.changes:
        stack.hold(change.service, change.old)
    data = [change.service for change in begun.changes if stack.keeps_data(change.service)]
    stack.stop(data)
    for service in data:
        say(f"{stack.name}: copying the data of {service}")
        stack.snapshot(service)


def _return(stack: Stack, error: BaseException, say: Say) -> None:
    """Go back as far as the note says, and tell it. Raises Failed, or NeedsPerson when that fails too."""
    why = str(error) or "interrupted"
    say(f"{stack.name}: going back: {why}")
    try:
        begun = _begun(stack)
        if begun is None:  # nothing was begun, or all was done
            return
        go_back(stack, begun, say)
    except NeedsPerson:
        raise
    except Exception as second:  # noqa: BLE001  # whatever it is, a person has to know how far this came
        raise NeedsPerson("the upgrade failed, and so did going back", where=stack.name, why=f"{why}; then: {second}",
                          fix=_AGAIN) from error  # fmt: skip
    raise Failed("the upgrade failed; the old images are back, with their data", where=stack.name, why=why,
                 fix="mend that, or stay with the old images.toml") from error  # fmt: skip


def _begun(stack: Stack) -> Begun | None:
    if not (text := stack.note()):
        return None
    known = json.loads(text)
    changes = tuple(Change(one["service"], _running(one["old"]), one["new"]) for one in known["changes"])
    return Begun(changes, Phase(known["phase"]), known["by"], known["since"])


def _running(known: Mapping[str, Any]) -> Running:
    return Running(known["name"], known["id"], tuple(known["digests"]))


def _told(begun: Begun) -> str:
    return f"{begun.by} began it at {begun.since}: {', '.join(change.service for change in begun.changes)} ({begun.phase})"
