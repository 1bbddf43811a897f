"""The nouns of an audit: locks, pins, findings, gaps, the report. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from ops.errors import TidegateError

Kind = Literal["Python", "Rust", "Node"]


@dataclass(frozen=True)
class Lock:
    """A lock file, and the folder that it was found for, whose audit.toml counts."""

    path: Path
    kind: Kind
    project: Path

    def __str__(self) -> str:
        return shown(self.path)


@dataclass(frozen=True)
class Pin:
    """A release of a Python package that a lock holds, under its normalized name."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Advisory:
    """A known vulnerability of one release of a package, as a tool told it."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    summary: str

    @property
    def names(self) -> frozenset[str]:
        """Every identifier that it goes by."""
        return frozenset((self.id, *self.aliases))


@dataclass(frozen=True)
class Accepted:
    """Why a finding is ignored, and until when."""

    reason: str
    expires: date


@dataclass(frozen=True)
class Finding:
    """A vulnerability in a lock, the next command to run, and whether it is ignored."""

    lock: Lock
    advisory: Advisory
    fix: str
    accepted: Accepted | None = None


@dataclass(frozen=True)
class Gap:
    """What was not audited, so that the audit is not clean."""

    what: str
    why: str
    fix: str

    @classmethod
    def of(cls, error: TidegateError) -> Gap:
        """Tell of an error that kept a lock from being audited."""
        return cls(f"{error.where}: {error.what}" if error.where else error.what, error.why, error.fix)


@dataclass(frozen=True)
class Answer:
    """What one tool says about locks: how many packages it looked at, what it found, what it wants to be known."""

    packages: int
    advisories: tuple[Advisory, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that an audit learned, and did not."""

    asked: tuple[str, ...]
    audited: tuple[tuple[Lock, int], ...]
    findings: tuple[Finding, ...]
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]

    @property
    def open(self) -> tuple[Finding, ...]:
        """The findings that nobody decided to ignore."""
        return tuple(one for one in self.findings if not one.accepted)

    @property
    def exit_code(self) -> int:
        """1 when something was found, 3 when something could not be audited, 0 when neither."""
        return 1 if self.open else 3 if self.gaps else 0

    def document(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "clean": self.exit_code == 0,
            "exit_code": self.exit_code,
            "asked": list(self.asked),
            "audited": [{"lock": str(lock), "kind": lock.kind, "packages": packages} for lock, packages in self.audited],
            "findings": [_finding(one) for one in self.findings],
            "not_audited": [asdict(one) for one in self.gaps],
            "warnings": list(self.warnings),
        }


def shown(path: Path) -> str:
    """Write a path as people would type it: relative where it is below this folder."""
    full = path.absolute()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def listed(words: Iterable[str], limit: int = 5) -> str:
    """Write the first few of many."""
    every = list(words)
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")


def _finding(one: Finding) -> dict[str, Any]:
    ignored = one.accepted and {"reason": one.accepted.reason, "expires": one.accepted.expires.isoformat()}
    return {"lock": str(one.lock), **asdict(one.advisory), "next": one.fix, "ignored": ignored}
