"""What speaks against an image: secrets in its layers, vulnerabilities in its packages; and its bill of materials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from deploy.audit import ignores
from deploy.audit.ignores import Ignore
from deploy.images import vulnerabilities as known
from deploy.images.bill import bill
from deploy.images.contents import LARGEST, Finding, look
from deploy.images.layers import Image
from deploy.images.packages import Package, packages
from deploy.images.vulnerabilities import Vulnerability

FILE = "scan.toml"  # which findings in images are ignored; written like audit.toml, whose vulnerabilities count as well

Ask = Callable[[str], Sequence[Vulnerability]]


@dataclass(frozen=True)
class Ignored:
    """A secret that somebody decided to leave where it is, why, and until when."""

    finding: Finding
    reason: str
    until: date


@dataclass(frozen=True)
class Report:
    """All that a scan learned of an image."""

    image: str
    id: str
    secrets: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]
    packages: tuple[Package, ...]
    bill: str
    cut: tuple[str, ...] = ()
    vulnerabilities: tuple[Vulnerability, ...] | None = None  # None: nobody looked
    unused: tuple[Ignore, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 when something speaks against the image."""
        return 1 if self.secrets or any(one.open for one in self.vulnerabilities or ()) else 0

    @property
    def clean(self) -> bool | None:
        """Tell whether nothing speaks against it; None when nothing was found, but not all was looked for."""
        return False if self.exit_code else None if self.vulnerabilities is None else True

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was not looked at, and which ignores are about nothing."""
        said = [f"of {path} only the first {LARGEST // 1024**2} MiB were looked at" for path in self.cut]
        said += [] if self.packages else ["no package manager left a record: what is linked into a program is not seen"]
        said += ["known vulnerabilities were not looked for"] if self.vulnerabilities is None else []
        said += [ignores.unneeded(FILE, one) for one in self.unused]
        return tuple(said)

    def document(self) -> dict[str, Any]:
        """Return it for scripts."""
        found = self.vulnerabilities
        return {
            "image": self.image, "id": self.id, "clean": self.clean, "exit_code": self.exit_code, "notes": list(self.notes),
            "secrets": [_secret(one) for one in self.secrets],
            "ignored": [{**_secret(one.finding), "reason": one.reason, "until": one.until.isoformat()} for one in self.ignored],
            "packages": len(self.packages),
            "vulnerabilities": None if found is None else [one.document() for one in found],
        }  # fmt: skip


def scan(image: Image, root: Path, today: date, epoch: int) -> Report:
    """Look into an image; ignores are those beside its ops.toml. Raises ConfigError."""
    said = ignores.read(root, today, FILE).ignore
    contents = look(image)
    about_paths = {mark.id: mark for mark in reversed(said) if not mark.package}
    secrets = [(one, about_paths.get(one.path)) for one in contents.findings]
    return Report(
        image.name, image.id, tuple(one for one, mark in secrets if not mark),
        tuple(Ignored(one, mark.reason, mark.expires) for one, mark in secrets if mark),
        packages(contents.files), bill(image, contents.files, epoch), contents.cut,
    )  # fmt: skip


def with_vulnerabilities(report: Report, root: Path, today: date, ask: Ask) -> Report:
    """Add what is known against its packages. Raises Refused when that cannot be told, ConfigError."""
    ours, others = (ignores.read(root, today, name).ignore for name in (FILE, ignores.FILE))
    found = known.apply(ask(report.image), [*ours, *others])
    unused = tuple(one for one in ours if not _needed(one, report.ignored, found))
    return replace(report, vulnerabilities=tuple(found), unused=unused)


def _needed(mark: Ignore, secrets: Sequence[Ignored], found: Sequence[Vulnerability]) -> bool:
    hides = not mark.package and any(one.finding.path == mark.id for one in secrets)
    return hides or any(mark.covers(one.advisory) for one in found)


def _secret(one: Finding) -> Mapping[str, Any]:
    return {key: value for key, value in asdict(one).items() if key != "md5"}
