"""Which lock files a folder has, and what in it no lock file speaks for."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.audit.model import Gap, Kind, Lock, shown
from ops.errors import ConfigError

PYTHON_TOML = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "pylock.*.toml")
PYTHON_LINES = ("requirements*.lock", "requirements/*.lock")
PYTHON_TEXT = ("requirements*.txt", "requirements/*.txt")
NAMES: dict[str, Kind] = {"Cargo.lock": "Rust", "package-lock.json": "Node", "npm-shrinkwrap.json": "Node"}
HOW_TO_LOCK: dict[Kind, str] = {
    "Python": "uv pip compile --generate-hashes pyproject.toml -o requirements.lock",
    "Rust": "cargo generate-lockfile",
    "Node": "npm install --package-lock-only",
}
NOT_COVERED: dict[str, tuple[Kind | None, str]] = {  # of which language, and what audits it
    "pnpm-lock.yaml": ("Node", "pnpm audit"),
    "yarn.lock": ("Node", "yarn npm audit --all --recursive"),
    "bun.lock": ("Node", "bun audit"),
    "bun.lockb": ("Node", "bun audit"),
    "Pipfile.lock": ("Python", "pipenv requirements --hash > requirements.lock, and audit that"),
    "go.sum": (None, "govulncheck ./..."),
    "Gemfile.lock": (None, "bundle audit"),
    "composer.lock": (None, "composer audit --locked"),
}


@dataclass
class Found:
    """What there is to audit, and what cannot be."""

    locks: list[Lock] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find(targets: Iterable[Path]) -> Found:
    """Find the locks of folders, and take locks that are named. Raises ConfigError where there is nothing to audit."""
    found = Found()
    for target in targets:
        if target.is_dir():
            _folder(target, found)
        elif target.is_file():
            _named(target, found)
        else:
            raise ConfigError(f"there is no {shown(target)}", fix="name a folder or a lock file")
    found.locks = list(dict.fromkeys(found.locks))
    return found


def _named(path: Path, found: Found) -> None:
    if path.name in NOT_COVERED:
        found.gaps.append(_not_covered(path))
    else:
        found.locks.append(Lock(path, NAMES.get(path.name, "Python"), path.parent))


def _folder(folder: Path, found: Found) -> None:
    locks = [*_python(folder, found), *(Lock(folder / name, kind, folder) for name, kind in NAMES.items())]
    locks = [one for one in locks if one.path.is_file()]
    others = [name for name in NOT_COVERED if (folder / name).is_file()]
    locked = {one.kind for one in locks} | {NOT_COVERED[name][0] for name in others}
    bare = [_unlocked(folder / name, kind) for kind, (name, _) in MANIFESTS.items() if kind not in locked]
    gaps = [_not_covered(folder / name) for name in others] + [gap for gap in bare if gap]
    if not locks and not gaps:
        raise ConfigError(f"no lock file in {shown(folder)}", why="there is nothing that says which releases an app is made of",
                          fix=HOW_TO_LOCK["Python"])  # fmt: skip
    found.locks += locks
    found.gaps += gaps


def _python(folder: Path, found: Found) -> list[Lock]:
    """Return the Python locks; a requirements file without hashes is one only where nothing else is."""
    sure = _matching(folder, (*PYTHON_TOML, *PYTHON_LINES))
    texts = _matching(folder, PYTHON_TEXT)
    sure += [path for path in texts if "--hash" in path.read_text(errors="replace")]
    if sure:
        spoken_for = {*sure, *_sources(folder, sure)}
        found.gaps += [_loose(path.relative_to(folder), folder) for path in texts if path not in spoken_for]
    return [Lock(path, "Python", folder) for path in sure or texts]


def _sources(folder: Path, locks: Iterable[Path]) -> set[Path]:
    """Return what locks were compiled from, as the comments of their entries say (`# via -r requirements.txt`)."""
    texts = (path.read_text(errors="replace") for path in locks)
    return {folder / name for text in texts for name in re.findall(r"^ *#.* -r ([^\s,]+)", text, re.MULTILINE)}


def _loose(name: Path, folder: Path) -> Gap:
    lock = name.with_suffix(".lock").as_posix()
    command = HOW_TO_LOCK["Python"].replace("pyproject.toml", name.as_posix()).replace("requirements.lock", lock)
    return Gap(shown(folder / name), "it has no hashes, and no lock beside was made from it", command)


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]


def _not_covered(path: Path) -> Gap:
    return Gap(shown(path), "lock files of this kind are not audited here", NOT_COVERED[path.name][1])


def _unlocked(manifest: Path, kind: Kind) -> Gap | None:
    """Say that a manifest names packages and no lock says which releases."""
    if not manifest.is_file():
        return None
    try:
        wants = MANIFESTS[kind][1](manifest.read_text())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{shown(manifest)} cannot be read", why=str(error), fix="put it right") from error
    return Gap(shown(manifest), "there is no lock file of it beside", HOW_TO_LOCK[kind]) if wants else None


def _pyproject(text: str) -> bool:
    document = tomllib.loads(text)
    poetry = document.get("tool", {}).get("poetry", {}).get("dependencies", {})
    return bool(document.get("project", {}).get("dependencies") or poetry)


def _package_json(text: str) -> bool:
    document: dict[str, Any] = json.loads(text)
    return any(document.get(key) for key in ("dependencies", "devDependencies", "optionalDependencies"))


MANIFESTS: dict[Kind, tuple[str, Callable[[str], bool]]] = {
    "Python": ("pyproject.toml", _pyproject),
    "Rust": ("Cargo.toml", lambda _text: True),
    "Node": ("package.json", _package_json),
}
