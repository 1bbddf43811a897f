"""The steps a plan is made of: each says what it does and how it is undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from deploy.model import HealthSpec, ImageRef, Pem, ProcessSpec, Release
from deploy.server import Server
from ops.errors import Failed


class Step(Protocol):
    """One change on one server."""

    @property
    def title(self) -> str:
        """Return what it does, in a few words; it is shown and journalled."""

    @property
    def why(self) -> str:
        """Return why the plan has it."""

    def apply(self, server: Server) -> None:
        """Do it. Raises TidegateError."""

    def undo(self, server: Server) -> None:
        """Take it back, whether it was done wholly, half, or not at all."""


class _NothingToUndo:
    def undo(self, server: Server) -> None:
        """Leave it: doing it again does no harm."""


@dataclass(frozen=True)
class StartEdge(_NothingToUndo):
    """Start the edge nginx again."""

    why: str = "the edge nginx is stopped"
    title: str = "start the edge"

    def apply(self, server: Server) -> None:
        """Start it."""
        server.start_edge()


@dataclass(frozen=True)
class RestoreEdge(_NothingToUndo):
    """Make nginx's file agree with what nginx answers."""

    content: str
    generation: str
    why: str
    title: str = "restore the nginx file of the serving release"

    def apply(self, server: Server) -> None:
        """Switch to the file of the release that answers anyway."""
        server.restore_edge(self.content, self.generation)


@dataclass(frozen=True)
class RemoveContainers(_NothingToUndo):
    """Remove containers that serve nothing."""

    containers: tuple[str, ...]
    why: str
    stop_seconds: float = 10.0

    @property
    def title(self) -> str:
        """Name them."""
        return f"remove {', '.join(self.containers)}"

    def apply(self, server: Server) -> None:
        """Stop them gracefully, then remove them."""
        server.stop(self.containers, self.stop_seconds)
        server.remove(self.containers)


@dataclass(frozen=True)
class Stop(_NothingToUndo):
    """Stop containers and keep them for a rollback."""

    containers: tuple[str, ...]
    stop_seconds: float
    why: str

    @property
    def title(self) -> str:
        """Name them."""
        return f"stop {', '.join(self.containers)}"

    def apply(self, server: Server) -> None:
        """SIGTERM, grace, SIGKILL."""
        server.stop(self.containers, self.stop_seconds)


@dataclass(frozen=True)
class Ship(_NothingToUndo):
    """Bring the image to the server."""

    image: ImageRef
    why: str

    @property
    def title(self) -> str:
        """Name the image."""
        return f"{'pull' if self.image.pull else 'ship'} {self.image.name}"

    def apply(self, server: Server) -> None:
        """Transfer what is missing."""
        server.receive(self.image)


@dataclass(frozen=True)
class Backup(_NothingToUndo):
    """Save the app's data, decoded in full before it counts; the backup stays whatever comes after."""

    id: str
    release: str
    first: bool
    why: str = "what a migration does to the data no rollback takes back"

    @property
    def title(self) -> str:
        """Name the backup."""
        return f"back up the data as {self.id}"

    def apply(self, server: Server) -> None:
        """Take it."""
        server.back_up(self.id, self.release, first=self.first)


@dataclass(frozen=True)
class Migrate:
    """Run the migrations in a one-off container of the new image with the new environment."""

    spec: ProcessSpec
    timeout: float
    why: str = "migrations run before the new version starts"

    @property
    def title(self) -> str:
        """Show the command."""
        return f"migrate: {' '.join(self.spec.command)}"

    def apply(self, server: Server) -> None:
        """Run it to its end."""
        server.run_once(self.spec, self.timeout)

    def undo(self, server: Server) -> None:
        """Remove the container if it is still there; what it did to the data stays."""
        server.remove((self.spec.name,))


@dataclass(frozen=True)
class StartNew:
    """Create and start the containers of a new release."""

    specs: tuple[ProcessSpec, ...]
    why: str

    @property
    def title(self) -> str:
        """Name them."""
        return f"start {', '.join(spec.name for spec in self.specs)}"

    def apply(self, server: Server) -> None:
        """Create and start them."""
        server.start_new(self.specs)

    def undo(self, server: Server) -> None:
        """Stop and remove them."""
        names = tuple(spec.name for spec in self.specs)
        try:
            server.stop(names, self.specs[0].stop_seconds)
        finally:
            server.remove(names)


@dataclass(frozen=True)
class StartKept:
    """Start the kept containers of an earlier release."""

    containers: tuple[str, ...]
    stop_seconds: float
    why: str

    @property
    def title(self) -> str:
        """Name them."""
        return f"start {', '.join(self.containers)}"

    def apply(self, server: Server) -> None:
        """Start them."""
        server.start(self.containers)

    def undo(self, server: Server) -> None:
        """Stop them again; they stay kept."""
        server.stop(self.containers, self.stop_seconds)


@dataclass(frozen=True)
class StageEdge:
    """Write the next nginx file and have nginx test it."""

    content: str
    pem: Pem | None = None
    why: str = "a bad nginx file must fail before anything is switched"
    title: str = "stage the nginx file and test it"

    def apply(self, server: Server) -> None:
        """Stage and test."""
        if self.pem:
            server.write_pem(self.pem)
        server.stage_edge(self.content)

    def undo(self, server: Server) -> None:
        """Remove what is staged."""
        server.unstage_edge()


@dataclass(frozen=True)
class WaitHealthy(_NothingToUndo):
    """Wait until the new containers are healthy."""

    wanted: tuple[HealthSpec, ...]
    timeout: float
    why: str = "nobody switches until everybody is healthy"

    @property
    def title(self) -> str:
        """Name them."""
        return f"wait until {', '.join(one.container for one in self.wanted)} healthy"

    def apply(self, server: Server) -> None:
        """Wait."""
        server.wait_healthy(self.wanted, self.timeout)


@dataclass(frozen=True)
class WriteManifest:
    """Write the release's manifest before it can serve."""

    release: Release
    bill: str = ""  # of materials
    why: str = "what serves always has a manifest"

    @property
    def title(self) -> str:
        """Name the release."""
        return f"write the manifest of {self.release.id}"

    def apply(self, server: Server) -> None:
        """Write it as not yet complete."""
        server.write_release(self.release, self.bill)

    def undo(self, server: Server) -> None:
        """Remove it: the release never served."""
        server.remove_release(self.release.id)


@dataclass(frozen=True)
class Switch:
    """Point nginx at the new release, with proof."""

    release: str
    generation: str
    back_content: str | None
    back_generation: str | None
    drain_seconds: float
    why: str

    @property
    def title(self) -> str:
        """Name where requests go."""
        return f"switch requests to {self.release}"

    def apply(self, server: Server) -> None:
        """Rename, reload, prove."""
        server.probe_mark()
        server.switch_edge(self.generation)

    def undo(self, server: Server) -> None:
        """Switch back with the same proof, and let the requests in flight finish."""
        if self.back_content is not None and self.back_generation is not None:
            server.restore_edge(self.back_content, self.back_generation)
        else:
            server.switch_edge(None)
        server.wait_old_workers(self.drain_seconds)


@dataclass(frozen=True)
class Verify(_NothingToUndo):
    """Check from outside that the new release answers."""

    release: Release
    required: bool
    why: str = "users come through the public address"
    title: str = "verify through the public address"

    def apply(self, server: Server) -> None:
        """Ask; where it was not reachable before either, a failure is only remarked."""
        try:
            server.verify_public(self.release)
        except Failed as failed:
            if self.required:
                raise
            server.remark(f"{failed.what} ({failed.why}); it was not reachable before either, so this does not count")


@dataclass(frozen=True)
class AwaitOldWorkers(_NothingToUndo):
    """Wait for nginx workers that may still send requests to the old release."""

    seconds: float
    why: str = "old workers still proxy to the old release"
    title: str = "let open requests finish"

    def apply(self, server: Server) -> None:
        """Wait until they are gone, or the drain time is over."""
        server.wait_old_workers(self.seconds)


@dataclass(frozen=True)
class JudgeProbes(_NothingToUndo):
    """Compare what the prober saw since the switch with the budget."""

    budget: int
    minimum: int
    why: str = "while the old release still runs, going back costs nothing"
    title: str = "judge what users saw since the switch"

    def apply(self, server: Server) -> None:
        """Wait for so many requests since the switch; fail when more than the budget failed, and more than before it."""
        report = server.probe_report(stop=False, minimum=self.minimum)
        if report and report.after_mark > self.budget and report.worse:
            raise Failed(f"{report.after_mark} of {report.requests_after_mark} requests failed after the switch",
                         where=server.name, why=", ".join(f"{count}× {what}" for what, count in report.reasons.items()),
                         fix="inv deploy.logs shows what the new version said")  # fmt: skip


@dataclass(frozen=True)
class CompleteRelease(_NothingToUndo):
    """Mark the release as one that has served."""

    release: str
    why: str = "only releases that have served are offered for a rollback"

    @property
    def title(self) -> str:
        """Name it."""
        return f"complete {self.release}"

    def apply(self, server: Server) -> None:
        """Rename its manifest."""
        server.complete_release(self.release)


@dataclass(frozen=True)
class Prune(_NothingToUndo):
    """Remove what nothing that is kept needs."""

    why: str
    releases: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    pems: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name what goes."""
        return f"prune {', '.join(self.releases or self.images or self.pems)}"

    def apply(self, server: Server) -> None:
        """Containers first, then the manifest that explains them, then images and certificates nobody needs."""
        if self.containers:
            server.remove(self.containers)
        for release in self.releases:
            server.remove_release(release)
        for image in self.images:
            server.remove_image(image)
        for pem in self.pems:
            server.remove_pem(pem)
