"""What a Python lock file holds: every entry, whatever its marker says, with a hash."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deploy.audit.locks import HOW_TO_LOCK, PYTHON_TOML
from deploy.audit.model import Pin, listed, shown
from ops.errors import ConfigError

OWN = {"virtual", "editable", "directory"}  # code of the project itself, which no advisory is about
_BUILT = (".whl", ".zip", ".tar.gz")  # a release of something, even where it lies in a folder
ELSEWHERE = {"git", "hg", "svn", "bzr", "url", "path", "vcs", "archive", "file"}


@dataclass(frozen=True)
class Entries:
    """The pins of a lock, and what in it comes from elsewhere than an index, so that no advisory can be looked up."""

    pins: tuple[Pin, ...]
    elsewhere: tuple[str, ...]


def read(path: Path) -> Entries:
    """Read a lock. Raises ConfigError when an entry has no hash or no exact version."""
    try:
        text = path.read_text()
        in_toml = any(fnmatch(path.name, pattern) for pattern in PYTHON_TOML)
        found = list(_of_document(tomllib.loads(text)) if in_toml else _of_lines(text))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{shown(path)} cannot be read", why=str(error), fix=HOW_TO_LOCK["Python"]) from error
    pins = tuple(dict.fromkeys(one for one in found if isinstance(one, Pin)))
    _check(path, pins)
    return Entries(pins, tuple(one for one in found if isinstance(one, str)))


def _check(path: Path, pins: tuple[Pin, ...]) -> None:
    if not pins:
        raise ConfigError(f"{shown(path)} holds no package", fix=HOW_TO_LOCK["Python"])
    if bare := [f"{pin.name} {pin.version}" for pin in pins if not pin.hashes]:
        why = "without them nobody can say that what is installed is what was audited"
        raise ConfigError(f"{shown(path)} has no hashes for {listed(bare)}", why=why, fix=HOW_TO_LOCK["Python"])


def _of_lines(text: str) -> Iterator[Pin | str]:
    for line in _whole_lines(text):
        wanted = re.split(r"\s--?\w", line)[0].strip()
        if line.startswith("-"):
            yield from _of_option(line)
        elif _is_folder(wanted):
            continue
        elif re.match(r"[\w+]+://|[./]", wanted):
            yield wanted
        else:
            yield from _of_requirement(wanted, line)


def _whole_lines(text: str) -> Iterator[str]:
    """Join lines that a backslash continues, and leave out comments, as pip does."""
    whole = ""
    for line in text.splitlines():
        code = re.sub(r"(^|\s+)#.*$", "", line).rstrip()
        whole += " " + code.removesuffix("\\")
        if not code.endswith("\\"):
            if whole.strip():
                yield whole.strip()
            whole = ""
    if whole.strip():
        yield whole.strip()


def _of_option(line: str) -> Iterator[str]:
    option, _, value = line.replace("=", " ", 1).partition(" ")
    if option.startswith(("-r", "--requirement")):
        raise ValueError(f"it names another file ({line}); a lock is one file")
    if option in ("-e", "--editable") and "://" in value:
        yield value.strip()


def _is_folder(wanted: str) -> bool:
    return wanted == "." or (wanted.startswith(("./", "../", "/", "file:")) and not wanted.partition(" ")[0].endswith(_BUILT))


def _of_requirement(wanted: str, line: str) -> Iterator[Pin | str]:
    try:
        requirement = Requirement(wanted)
    except InvalidRequirement as error:
        raise ValueError(f"{wanted}: {error}") from error
    if not requirement.url:
        exact = [one.version for one in requirement.specifier if one.operator in ("==", "===")]
        if len(exact) != 1 or len(requirement.specifier) != 1 or exact[0].endswith("*"):
            raise ValueError(f"{wanted}: not pinned to one version")
        yield _pin(requirement.name, exact[0], re.findall(r"--hash[= ]\s*(\w+:\w+)", line))
    elif not _is_folder(requirement.url):
        yield wanted


def _of_document(document: dict[str, Any]) -> Iterator[Pin | str]:
    """Read what uv, Poetry, PDM and PEP 751 write: packages with a name, a version, files and sometimes a source."""
    for package in document.get("packages") or document.get("package") or []:
        source = package.get("source", {})
        origin = {source["type"]} if "type" in source else {*source, *package}
        if origin & OWN:
            continue
        if origin & ELSEWHERE:
            yield f"{package['name']} from {listed(sorted(origin & ELSEWHERE))}"
        else:
            yield _pin(package["name"], package.get("version", ""), _hashes(package))


def _pin(name: str, version: str, hashes: list[str]) -> Pin:
    try:
        return Pin(canonicalize_name(name), str(Version(version)), tuple(hashes))
    except InvalidVersion as error:
        raise ValueError(f"{name}: {error}") from error


def _hashes(value: Any) -> list[str]:
    """Collect the hashes of a package's files, wherever the format keeps them."""
    if isinstance(value, list):
        return [found for one in value for found in _hashes(one)]
    if not isinstance(value, dict):
        return []
    named = [f"{algorithm}:{digest}" for algorithm, digest in value.get("hashes", {}).items()]
    own = [value["hash"]] if "hash" in value else []
    return named + own + [found for key, one in value.items() if key != "hashes" for found in _hashes(one)]
