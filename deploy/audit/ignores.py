"""audit.toml: which findings are ignored, why and until when; and how its locks are made anew. Pure but for `read`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

from packaging.utils import canonicalize_name
from pydantic import Field, ValidationError

from deploy.audit.model import Accepted, Advisory, Finding, shown
from ops.config_problems import ConfigProblems, Problem, from_pydantic
from ops.config_types import Model
from ops.errors import ConfigError

FILE = "audit.toml"
LONGEST = timedelta(days=180)
Line = Annotated[str, Field(strict=True, min_length=1, pattern=r"\S")]


class Ignore(Model):
    """One finding that somebody decided to live with for a while."""

    id: Line
    reason: Line
    expires: date
    package: Line | None = None

    def covers(self, advisory: Advisory) -> bool:
        """Say whether it is about that finding, under any of its names."""
        same = not self.package or canonicalize_name(self.package) == canonicalize_name(advisory.package)
        return same and self.id in advisory.names

    def __str__(self) -> str:
        return self.id + (f" of {self.package}" if self.package else "")


class Settings(Model):
    """What audit.toml can say."""

    ignore: tuple[Ignore, ...] = ()
    upgrade: Line | None = None


def read(folder: Path, today: date, name: str = FILE) -> Settings:
    """Read a folder's audit.toml, if it has one. Raises ConfigError for mistakes in it and ignores that have expired."""
    path = folder / name
    if not path.is_file():
        return Settings()
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(path)} cannot be read", why=str(error), fix=f"put {shown(path)} right") from error
    return parse(document, shown(path), today)


def parse(document: dict[str, Any], file: str, today: date) -> Settings:
    """Validate what an audit.toml says, on a day."""
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        raise ConfigProblems(from_pydantic(error.errors(include_url=False), Settings, lambda key: (file, key))) from None
    if problems := [_problem(file, nth, one, today) for nth, one in enumerate(settings.ignore) if not _in_time(one, today)]:
        raise ConfigProblems(problems, fix="upgrade the package, or decide anew and write until when")
    return settings


def apply(findings: Iterable[Finding], ignores: Iterable[Ignore]) -> tuple[list[Finding], list[Ignore]]:
    """Mark what is ignored; return the findings, and the ignores that are about none of them."""
    left = list(ignores)
    unused = set(left)
    marked = []
    for finding in findings:
        covering = [one for one in left if one.covers(finding.advisory)]
        unused -= set(covering)
        accepted = Accepted(covering[0].reason, covering[0].expires) if covering else None
        marked.append(replace(finding, accepted=accepted))
    return marked, [one for one in left if one in unused]


def unneeded(file: str, ignore: Ignore) -> str:
    """Say that an ignore is about nothing that is found."""
    return f"{file}: nothing is found any more that the ignore of {ignore} is about: remove it"


def _in_time(ignore: Ignore, today: date) -> bool:
    return today <= ignore.expires <= today + LONGEST


def _problem(file: str, nth: int, ignore: Ignore, today: date) -> Problem:
    found = f"{ignore.expires}" if ignore.expires > today else f"{ignore.expires}: the ignore of {ignore} has expired"
    return Problem(file, f"ignore[{nth}].expires", f"a day from {today} to {today + LONGEST}", found)
