"""Rust crates: cargo audit reads a Cargo.lock beside a RustSec database."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from deploy import programs
from deploy.audit.model import Advisory, Answer, Lock
from ops.errors import ConfigError, Refused

DATABASE = "https://github.com/RustSec/advisory-db"
FILTERS = ("target_arch", "target_os", "severity", "ignore")


def ask(lock: Lock, database: Path | None) -> Answer:
    """Ask about a Cargo.lock; a database of one's own is not refreshed. Raises Refused when there is no answer."""
    program = programs.find("cargo-audit")
    offline = ["--no-fetch", "--stale", "--db", str(database.absolute())] if database else []
    command = [program, "audit", "--json", "--no-yanked", "--file", str(lock.path.absolute()), *offline]
    with tempfile.TemporaryDirectory(prefix="tidegate-audit-") as folder:  # so that no .cargo/audit.toml has a say
        return read(programs.run(command, Path(folder)), lock)


def rustsec(folder: Path) -> Path:
    """Return the RustSec database in a folder: itself, or the one below. Raises Refused when there is none."""
    for place in (folder, *sorted(folder.glob("*"))):
        if next((place / "crates").glob("*/*.md"), None):
            return place
    raise Refused(f"{folder} holds no advisories about Rust crates", fix=f"put a copy of {DATABASE} there")


def newest(database: Path) -> datetime:
    """Return the day of a database's newest advisory."""
    texts = (path.read_text(errors="replace") for path in database.glob("crates/*/*.md"))
    days = [found[1] for text in texts if (found := re.search(r'^date = "(\d{4}-\d\d-\d\d)"', text, re.MULTILINE))]
    if not days:
        raise Refused(f"no advisory in {database} says when it was written", fix=f"put a copy of {DATABASE} there")
    return datetime.fromisoformat(max(days)).replace(tzinfo=UTC)


def read(done: CompletedProcess[str], lock: Lock) -> Answer:
    """Read what cargo audit wrote; without its document, or without advisories, nothing was learned."""
    try:
        document: dict[str, Any] = json.loads(done.stdout)
        known, packages = document["database"]["advisory-count"], document["lockfile"]["dependency-count"]
        settings, found = document["settings"], tuple(map(_advisory, document["vulnerabilities"]["list"]))
        warnings = tuple(_warnings(document["warnings"]))
    except (ValueError, LookupError, TypeError):
        why = next((line for line in done.stderr.splitlines() if line.startswith("error")), "") or programs.said(done)
        fix = f"see that {DATABASE} can be reached, or name a folder with a copy (--offline)"
        raise Refused(f"cargo audit did not audit {lock}", why=why, fix=fix) from None
    if not known:
        raise Refused(f"cargo audit knows no advisory for {lock}", fix=f"put a copy of {DATABASE} where --offline looks")
    if filters := [key for key in FILTERS if settings.get(key)]:
        raise ConfigError(f"cargo audit's own audit.toml hides findings by {', '.join(filters)}",
                          fix="write ignores into audit.toml beside Cargo.lock, with a reason and an end")  # fmt: skip
    return Answer(packages, found, warnings)


def _advisory(told: dict[str, Any]) -> Advisory:
    advisory, package = told["advisory"], told["package"]
    return Advisory(package["name"], package["version"], advisory["id"], tuple(advisory["aliases"]),
                    tuple(told["versions"]["patched"]), advisory["title"])  # fmt: skip


def _warnings(told: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    for kind, found in sorted(told.items()):
        for one in found:
            advisory = one.get("advisory") or {"id": "", "title": ""}
            yield f"{one['package']['name']} {one['package']['version']} is {kind}: {advisory['id']} {advisory['title']}".rstrip(
                " :"
            )
