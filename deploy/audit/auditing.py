"""An audit from end to end: locks found, tools asked, findings held against what is ignored. Read this first."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from deploy.audit import cargo_audit, ignores, npm_audit, osv, osv_service, pip_audit, python_lock
from deploy.audit.locks import find
from deploy.audit.model import Advisory, Answer, Finding, Gap, Lock, Pin, Report, shown
from deploy.audit.show import show
from ops.console import Console
from ops.errors import ConfigError, Refused

OLD = timedelta(days=30)


@dataclass
class _Work:
    """What was learned so far."""

    settings: dict[Path, ignores.Settings]
    gaps: list[Gap]
    warnings: list[str]
    asked: list[str] = field(default_factory=list)
    audited: list[tuple[Lock, int]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def learned(self, lock: Lock, packages: int, advisories: Iterable[Advisory]) -> None:
        self.audited.append((lock, packages))
        upgrade = self.settings[lock.project].upgrade
        self.findings += [Finding(lock, one, _next(lock, one, upgrade)) for one in advisories]


def audit(targets: Sequence[Path], now: datetime, *, offline: Path | None = None, url: str = pip_audit.SERVICE) -> Report:
    """Audit folders and lock files. Raises ConfigError for what is written wrongly; what cannot be asked is in the report."""
    found = find(targets)
    settings = {lock.project: ignores.read(lock.project, now.date()) for lock in found.locks}
    entries = {lock: python_lock.read(lock.path) for lock in found.locks if lock.kind == "Python"}
    work = _Work(settings, found.gaps, found.warnings)
    if entries:
        _try(work, partial(_python, work, entries, now, offline, url))
    for lock in found.locks:
        if lock.kind != "Python":
            _try(work, partial(_other, work, lock, now, offline))
    return _judged(work)


def audit_typed(console: Console, targets: Sequence[Path], offline: str | None, url: str | None) -> int:
    """Audit as somebody typed it, and show the report; returns the exit code. Raises ConfigError for an option that is empty."""
    for option, value in (("--offline", offline), ("--osv-url", url)):
        if value == "":  # must not mean "not given": that asks a service on the internet
            fix = f"give {option} a value, or leave it out"
            raise ConfigError(f"{option} is empty", why="an unset variable of the shell looks like this", fix=fix)
    report = audit(targets, datetime.now(UTC), offline=Path(offline) if offline else None, url=url or pip_audit.SERVICE)
    show(console, report)
    return report.exit_code


def _try(work: _Work, ask: Callable[[], None]) -> None:
    """Note what could not be asked, and go on: the other locks still can."""
    try:
        ask()
    except Refused as error:
        work.gaps.append(Gap.of(error))


def _python(work: _Work, entries: dict[Lock, python_lock.Entries], now: datetime, offline: Path | None, url: str) -> None:
    """Ask once about the pins of all locks: most of them are in several."""
    for lock, held in entries.items():
        work.gaps += [Gap(f"{lock}: {one}", "advisories are about releases in an index", _LOOK) for one in held.elsewhere]
    pins = [pin for held in entries.values() for pin in held.pins]
    answer = _answer(work, pins, now, offline, url)
    work.warnings += answer.warnings
    for lock, held in entries.items():
        work.learned(lock, len(held.pins), pip_audit.about(answer, held.pins))


_LOOK = "look it up by hand, or depend on a release instead"


def _answer(work: _Work, pins: list[Pin], now: datetime, offline: Path | None, url: str) -> Answer:
    if not offline:
        work.asked.append(url)
        return pip_audit.ask(pins, url)
    database = osv.load(offline)
    _tell_age(work, f"{database.count} advisories about Python packages", offline, database.newest, now)
    with osv_service.serving(database) as address:
        return pip_audit.ask(pins, address, vouched=True)


def _other(work: _Work, lock: Lock, now: datetime, offline: Path | None) -> None:
    if lock.kind == "Rust":
        database = cargo_audit.rustsec(offline) if offline else None
        if database:
            _tell_age(work, "advisories about Rust crates", database, cargo_audit.newest(database), now)
        else:
            work.asked.append(cargo_audit.DATABASE)
        answer = cargo_audit.ask(lock, database)
    elif offline:
        raise Refused(f"{lock} cannot be audited offline", why="npm audit only asks a registry", fix="run it without --offline")
    else:
        work.asked.append("the npm registry")
        answer = npm_audit.ask(lock)
    work.warnings += answer.warnings
    work.learned(lock, answer.packages, answer.advisories)


def _tell_age(work: _Work, what: str, folder: Path, newest: datetime, now: datetime) -> None:
    """Say how old advisories are, and warn where newer ones must be missing."""
    age = now - newest
    work.asked.append(f"{what} in {shown(folder)}, the newest {age.days} days old")
    if age > OLD:
        work.warnings.append(f"{shown(folder)} knows nothing that became known after {newest:%Y-%m-%d}: bring a newer copy")


def _judged(work: _Work) -> Report:
    findings: list[Finding] = []
    for project, settings in work.settings.items():
        ours = [one for one in work.findings if one.lock.project == project]
        marked, unused = ignores.apply(ours, settings.ignore)
        findings += marked
        if not work.gaps:
            file = shown(project / ignores.FILE)
            work.warnings += [ignores.unneeded(file, one) for one in unused]
    return Report(tuple(dict.fromkeys(work.asked)), tuple(work.audited), tuple(findings), tuple(work.gaps), tuple(work.warnings))


_UPGRADE = {
    "Cargo.lock": "cargo update --package {package}@{version}",
    "package-lock.json": "npm audit fix --package-lock-only",
    "npm-shrinkwrap.json": "npm audit fix --package-lock-only",
    "uv.lock": "uv lock --upgrade-package {package}",
    "poetry.lock": "poetry update --lock {package}",
    "pdm.lock": "pdm update --no-sync {package}",
}


def _next(lock: Lock, advisory: Advisory, upgrade: str | None) -> str:
    """Return the command that brings a release without the vulnerability into a lock."""
    command = upgrade or _UPGRADE.get(lock.path.name) or _compile(lock)
    command = command.replace("{package}", advisory.package).replace("{version}", advisory.version)
    folder = shown(lock.project)
    return command if folder == "." else f"cd {shlex.quote(folder)} && {command}"


def _compile(lock: Lock) -> str:
    made = lock.path.relative_to(lock.project)
    source = "pyproject.toml" if (lock.project / "pyproject.toml").is_file() else made.with_suffix(".in").as_posix()
    return (
        f"uv pip compile --generate-hashes --upgrade-package {{package}} {shlex.quote(source)} -o {shlex.quote(made.as_posix())}"
    )
