"""What is in an image's layers: walked once, each file looked at where it is, deleted ones as well."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO

from deploy.images.layers import Image, Layer
from deploy.images.packages import of_distribution
from deploy.images.secret_rules import Hit, in_assignment, in_command, in_file, in_text, masked

LARGEST = 32 * 1024**2  # of a larger file only so much is looked at
_OF_PACKAGES = re.compile(
    r"(var/lib/dpkg/(status|status\.d/.*|info/.*\.md5sums)|lib/apk/db/installed|(etc|usr/lib)/os-release"
    r"|.*\.(dist-info/METADATA|egg-info/PKG-INFO)|(.*/)?node_modules/(@[^/]+/)?[^/]+/package\.json)"
)
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(frozen=True)
class Finding:
    """A secret in an image: where, what made that layer, and whether a later layer deletes it, which hides nothing."""

    path: str
    kind: str
    line: int
    shown: str
    layer: int
    instruction: str
    deleted: bool = False
    md5: str = ""


@dataclass(frozen=True)
class Contents:
    """All that was seen: secrets, the files that tell which packages there are, and files too large to be read whole."""

    findings: tuple[Finding, ...]
    files: Mapping[str, bytes]
    cut: tuple[str, ...]


@dataclass
class _View:
    """The file system as the layers so far make it, as far as it matters here."""

    findings: list[Finding] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)


def look(image: Image) -> Contents:
    """Read every file of every layer, and the image's configuration. A packaged file that nobody changed is public."""
    view = _View()
    for nth, layer in enumerate(image.layers, 1):
        _read(view, nth, layer)
    public = _packaged(view.files)
    secret = [one for one in view.findings if (one.path, one.md5) not in public]
    return Contents((*secret, *in_configuration(image)), view.files, tuple(view.cut))


def _read(view: _View, nth: int, layer: Layer) -> None:
    """Take in one layer; what it hides is of the layers before it, wherever in the layer it says so."""
    new = _View()
    hidden: list[str] = []
    with layer.open() as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=1024 * 1024) as members:
        for member in members:
            path = _readable(member.name).removeprefix("./").strip("/")
            folder, _, name = path.rpartition("/")
            if name == _OPAQUE:
                hidden.append(f"{folder}/")
            elif name.startswith(_WHITEOUT):
                hidden.append(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
            elif not member.isdir():
                hidden.append(path)  # replaced, if it was there
                if member.isreg() and (content := members.extractfile(member)):
                    _file(new, path, content, member.size)
    gone = _Gone(hidden)
    made = masked(layer.instruction)
    view.files = {path: data for path, data in view.files.items() if not gone.has(path)} | new.files
    view.findings = [replace(one, deleted=one.deleted or gone.has(one.path)) for one in view.findings]
    view.findings += [replace(one, layer=nth, instruction=made) for one in new.findings]
    view.cut += new.cut


def _readable(name: str) -> str:
    """Write a name so that a terminal, JSON and people can take it, whatever bytes it is made of."""
    return name if name.isprintable() else ascii(name)[1:-1]


class _Gone:
    """Paths that a layer hides: named ones with all below them, and folders (`a/`) emptied by it."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = set(paths)

    def has(self, path: str) -> bool:
        """Tell whether a path of an earlier layer is not seen any more."""
        parts = path.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return (
            path in self._paths
            or "/" in self._paths
            or any(f"{folder}/" in self._paths or folder in self._paths for folder in above)
        )


def _file(view: _View, path: str, content: IO[bytes], size: int) -> None:
    data = content.read(LARGEST)
    if size > LARGEST:
        view.cut.append(path)
    if _OF_PACKAGES.fullmatch(path):
        view.files[path] = data
    md5 = ""
    for hit in in_file(path, data):
        md5 = md5 or hashlib.md5(data, usedforsecurity=False).hexdigest()
        found = _finding(_shown(path, hit), hit, md5)
        if found not in view.findings:
            view.findings.append(found)


def _shown(path: str, hit: Hit) -> str:
    """Name a folder that must not be there once, and not each of its files."""
    folder = hit.kind.removesuffix(" folder")
    return path if folder == hit.kind else f"{path.partition(f'{folder}/')[0]}{folder}"


def _finding(path: str, hit: Hit, md5: str = "") -> Finding:
    return Finding(path, hit.kind, hit.line, hit.shown, 0, "", md5="" if hit.kind.endswith(" folder") else md5)


def _packaged(files: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Return the path and MD5 of each file as a package of the distribution has it; one of the house's own is not public."""
    public = of_distribution(files)
    lists = [data for path, data in files.items() if path.endswith(".md5sums") and _package_of(path) in public]
    pairs = (line.split(None, 1) for data in lists for line in data.decode("utf-8", "replace").splitlines())
    return {(pair[1], pair[0]) for pair in pairs if len(pair) == 2}


def _package_of(list_: str) -> str:
    return list_.rpartition("/")[2].removesuffix(".md5sums").partition(":")[0]


def in_configuration(image: Image) -> Iterator[Finding]:
    """Yield the secrets of an image's configuration: its environment, its labels, the steps of its history.

    What a step sets is told once: by the step only where a later one has set it to something else.
    """
    own = image.config.get("config") or {}
    variables = [("environment", *one.partition("=")[::2]) for one in own.get("Env") or ()]
    labels = [("label", key, value) for key, value in (own.get("Labels") or {}).items()]
    told: set[Hit] = set()
    for where, name, value in variables + labels:
        if hit := in_assignment(name, value):
            told |= {hit, *in_text(value.encode("utf-8", "replace"))}
            yield replace(_finding(f"{where} {name}", hit), instruction="configuration")
    for step in image.config.get("history") or ():
        said = str(step.get("created_by") or "")
        sets = said.startswith(("ENV ", "LABEL ", "/bin/sh -c #(nop)  ENV", "/bin/sh -c #(nop)  LABEL"))
        for hit in in_command(said):
            if not (sets and hit in told):
                yield replace(_finding(f"history: {hit.kind}", hit), instruction=masked(" ".join(said.split())))
