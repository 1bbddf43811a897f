"""What a deploy asks of a server: the seam between planned steps and the real thing (or the fake of the tests)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from deploy.model import HealthSpec, HostState, ImageRef, Pem, Probe, ProbeReport, ProcessSpec, Release

if TYPE_CHECKING:
    from ops.link import Link


class Backups(Protocol):
    """How a server's data is looked at and saved, brought by whoever wires things together; every method raises TidegateError."""

    def look(self, link: Link, *, install: bool) -> Mapping[str, Any] | None:
        """Return what deploy.data.parse takes; None where it cannot be told without installing the program that tells it."""

    def take(self, link: Link, id: str, release: str, *, first: bool) -> None:
        """Take a backup and decode it in full."""


class Watch(Protocol):
    """The monitoring, as far as a deploy speaks to it; nothing of it fails a deploy, and what it returns is to be told."""

    def begin(self, app: str, servers: Sequence[str], release: str) -> str:
        """Have alerts of the containers that are swapped wait."""

    def end(self, *, ok: bool) -> str:
        """Have them told again."""


class Server(Protocol):
    """A server under our lock; every method raises TidegateError when it cannot do what it says."""

    @property
    def name(self) -> str:
        """Return how people know the server."""

    def lock(self, holder: Mapping[str, str]) -> None:
        """Ask for the app's lock, held until the connection ends; `observe` raises Locked if it was not to be had."""

    def observe(self) -> HostState:
        """Look at containers, nginx, releases and the journal, after the lock. Raises Locked, Refused, Unreachable."""

    def cancel(self) -> None:
        """Let every wait on the server, and every transfer to it, end now."""

    def resume(self) -> None:
        """Allow waits again, and what is asked for after something that was not waited for has failed."""

    def remark(self, text: str) -> None:
        """Keep a remark for the summary."""

    def journal(self, record: Mapping[str, Any], *, wait: bool = True, optional: bool = False) -> None:
        """Append a record durably, before anything asked for later; without `wait`, trouble shows later, if not `optional`."""

    def tell_figures(self, text: str, *, wait: bool) -> None:
        """Put what a deploy tells of itself where monitoring reads it; trouble is a remark at most."""

    def receive(self, image: ImageRef) -> None:
        """Have the image completely, transferring only what is missing."""

    def back_up(self, id: str, release: str, *, first: bool) -> None:
        """Take a proven backup before a release; with `first`, sources need not be there yet. Raises Failed, Refused."""

    def run_once(self, spec: ProcessSpec, timeout: float) -> None:
        """Run a container to its end and remove it. Raises Failed with its output."""

    def start_new(self, specs: Sequence[ProcessSpec]) -> None:
        """Create and start containers, at once."""

    def start(self, containers: Sequence[str]) -> None:
        """Start kept containers."""

    def stop(self, containers: Sequence[str], seconds: float) -> None:
        """Send SIGTERM, and SIGKILL after `seconds`; those already stopped are fine."""

    def remove(self, containers: Sequence[str]) -> None:
        """Remove containers; those already gone are fine."""

    def wait_healthy(self, wanted: Sequence[HealthSpec], timeout: float) -> None:
        """Wait until all are healthy. Raises Failed with the last logs, the health output and the likely cause."""

    def start_edge(self) -> None:
        """Start a stopped edge nginx."""

    def write_pem(self, pem: Pem) -> None:
        """Put a certificate with its key where nginx reads it."""

    def remove_pem(self, name: str) -> None:
        """Remove a certificate with its key."""

    def stage_edge(self, content: str) -> None:
        """Write the app's next nginx file beside the live one and have nginx test it. Raises Failed with its words."""

    def unstage_edge(self) -> None:
        """Remove the staged file if there is one."""

    def switch_edge(self, generation: str | None) -> float:
        """Make the staged file live (None: remove the live one), reload, prove it; returns seconds. Raises Failed."""

    def restore_edge(self, content: str, generation: str) -> float:
        """Make nginx's earlier file live again, even on a full disk; returns seconds. Raises Failed."""

    def wait_old_workers(self, timeout: float) -> bool:
        """Wait until nginx workers from before the last switch have ended; returns whether they did."""

    def write_release(self, release: Release, bill: str = "") -> None:
        """Write a manifest, marked as not yet complete, and the bill of materials of its image, if there is one."""

    def complete_release(self, id: str) -> None:
        """Mark a release as one that has served; completed ones are left as they are."""

    def remove_release(self, id: str) -> None:
        """Remove a manifest, complete or not, and the bill of materials before it."""

    def remove_image(self, name: str) -> None:
        """Remove an image's name; one that is gone or in use is left."""

    def probe(self, probe: Probe, interval: float) -> None:
        """Start sending requests through the edge."""

    def probe_mark(self) -> None:
        """Count failures from here on separately."""

    def probe_report(self, *, stop: bool, minimum: int = 0) -> ProbeReport | None:
        """Return what the prober saw, once it has seen so many requests since the mark; None when it was never started."""

    def verify_public(self, release: Release) -> str:
        """Ask through the public address whether the release answers; returns what was asked. Raises Failed."""
