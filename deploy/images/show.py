"""What was found in an image, in words and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from deploy.images.bases import Base
    from deploy.images.lint import Mistake
    from deploy.images.scan import Report
    from deploy.images.size import Size
    from ops.console import Console

_SECRETS = ("path", "line", "secret", "begins", "layer", "deleted later", "made by")
_VULNERABILITIES = ("id", "severity", "package", "version", "mended in", "ignored")


def mistakes(console: Console, found: Iterable[Mistake]) -> None:
    """Print what is wrong with Dockerfiles, as compilers do."""
    for one in sorted(found, key=lambda one: (one.file, one.line, one.rule)):
        console.say(f"{one.file}:{one.line}: {one.rule}: {one.what}", "red")


def size(console: Console, measured: Size) -> None:
    """Print the layers of an image and what they come to."""
    layers = enumerate(measured.layers, 1)
    console.table("", ("", "MB", "made by"), ((nth, f"{bytes_ / 1e6:.1f}", made[:100]) for nth, (bytes_, made) in layers))
    reckoned = "" if measured.exact else ", reckoned: this engine cannot reach us"
    budget = f", budget {measured.budget / 1e6:.1f} MB" if measured.budget else ""
    console.say(f"{measured.image}: {measured.compressed / 1e6:.1f} MB as it travels{reckoned}{budget}", "bold")


def secrets(console: Console, report: Report) -> None:
    """Print where secrets are, and never what they are."""
    if report.secrets:
        console.table("secrets: whoever has the image has them, deleted or not", _SECRETS, (
            (one.path, one.line or "", one.kind, one.shown, one.layer or "", "yes" if one.deleted else "", one.instruction[:80])
            for one in report.secrets
        ))  # fmt: skip
        console.say("  next:  revoke them, and keep them out: .dockerignore, RUN --mount=type=secret, app.secrets of ops.toml")
    for mark in report.ignored:
        console.say(f"ignored until {mark.until}: {mark.finding.path}: {mark.reason}", "yellow")


def vulnerabilities(console: Console, report: Report) -> None:
    """Print what an update mends, how many more there are, and what was not looked at."""
    mended = [one for one in report.vulnerabilities or () if one.mendable]
    if mended:
        console.table("vulnerabilities that an update mends", _VULNERABILITIES, (
            (one.advisory.id, one.severity, one.advisory.package, one.advisory.version, ", ".join(one.advisory.fixed), one.ignored)
            for one in mended
        ))  # fmt: skip
    if waiting := len(report.vulnerabilities or ()) - len(mended):
        console.say(f"{waiting} more are known that no update mends yet", "yellow")
    for note in report.notes:
        console.say(note, "yellow")


def bases(console: Console, found: Iterable[Base], now: datetime) -> None:
    """Print base images with what a person should know of them."""
    for one in found:
        age = one.age(now)
        days = f"{age.days} days old" if age else "age unknown"
        console.say(f"{one.name}: {days}, {'pinned' if one.pinned else 'not pinned to a digest'}", "bold")
        for remark in one.remarks(now):
            console.say(f"  {remark}", "yellow")
