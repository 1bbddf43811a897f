"""The packages in an image, read from what their package managers wrote down. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import Any

_INSTALLED = "installed"
_NAME = re.compile(r"(@[\w.~-]+/)?[\w.+~-]+")
_DPKG = re.compile(r"var/lib/dpkg/(status|status\.d/(?!.*\.md5sums$).*)")
_PUBLIC = re.compile(r".*@([\w-]+\.)*(debian\.org|alioth-lists\.debian\.net|ubuntu\.com)>?\s*")


@dataclass(frozen=True, order=True)
class Package:
    """An installed package: its kind as package URLs call it (deb, apk, pypi, npm), where the image says so, what it was built from.

    By that, the source package, distributions name what is vulnerable.
    """

    kind: str
    name: str
    version: str
    architecture: str
    path: str
    source: str = ""


@dataclass(frozen=True)
class System:
    """The distribution that an image is made of."""

    id: str = ""
    version: str = ""


def system(files: Mapping[str, bytes]) -> System:
    """Read os-release."""
    text = _text(files.get("etc/os-release") or files.get("usr/lib/os-release") or b"")
    values = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', text, re.MULTILINE))
    return System(values.get("ID", ""), values.get("VERSION_ID", ""))


def packages(files: Mapping[str, bytes]) -> tuple[Package, ...]:
    """Return every package that the files of package managers tell of, sorted, each once."""
    found = {package for path, data in files.items() for pattern, read in _READERS if pattern.fullmatch(path)
             for package in read(path, _text(data)) if _NAME.fullmatch(package.name) and package.version}  # fmt: skip
    return tuple(sorted(found))


def of_distribution(files: Mapping[str, bytes]) -> frozenset[str]:
    """Return the names of the .deb packages that Debian or Ubuntu maintains, by the address of the maintainer."""
    blocks = (block for path, data in files.items() if _DPKG.fullmatch(path) for block in _blocks(_text(data)))
    told = (dict(re.findall(r"^(Package|Maintainer): (.*)$", block, re.MULTILINE)) for block in blocks)
    return frozenset(one["Package"] for one in told if "Package" in one and _PUBLIC.fullmatch(one.get("Maintainer", "")))


def _blocks(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _debian(path: str, text: str) -> Iterator[Package]:
    for block in _blocks(text):
        known = dict(re.findall(r"^(Package|Status|Version|Architecture|Source): (.*)$", block, re.MULTILINE))
        if known.get("Status", _INSTALLED).split()[-1:] == [_INSTALLED]:
            source = known.get("Source", "").replace(" (", "@").rstrip(")")
            yield Package("deb", known.get("Package", ""), known.get("Version", ""), known.get("Architecture", ""), path, source)


def _alpine(path: str, text: str) -> Iterator[Package]:
    for block in text.split("\n\n"):
        known = dict(re.findall(r"^([PVAo]):(.*)$", block, re.MULTILINE))
        yield Package("apk", known.get("P", ""), known.get("V", ""), known.get("A", ""), path, known.get("o", ""))


def _python(path: str, text: str) -> Iterator[Package]:
    known = HeaderParser().parsestr(text)
    yield Package("pypi", re.sub(r"[-_.]+", "-", known.get("Name", "")).lower(), known.get("Version", ""), "", path)


def _node(path: str, text: str) -> Iterator[Package]:
    try:
        known: Any = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(known, dict) and isinstance(known.get("name"), str):
        yield Package("npm", known["name"], str(known.get("version") or ""), "", path)


_READERS: tuple[tuple[re.Pattern[str], Callable[[str, str], Iterator[Package]]], ...] = (
    (_DPKG, _debian),
    (re.compile(r"lib/apk/db/installed"), _alpine),
    (re.compile(r".*\.(dist-info/METADATA|egg-info/PKG-INFO)"), _python),
    (re.compile(r".*package\.json"), _node),
)
