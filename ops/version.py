"""The version of Tidegate: what the wheel was built as, or what git's tags say of this clone.

The wheel is built with what `version` returns, so the two agree; hence it needs nothing but the standard library.
"""

from __future__ import annotations

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ROOT.name == "_app"  # as the wheel lays it out
UNKNOWN = "0"
_DESCRIBE = (
    "describe",
    "--tags",
    "--long",
    "--always",
    "--dirty",
    "--abbrev=7",
    "--match=v[0-9]*",
    "--exclude=*-*",
)  # a release's name has no hyphen
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")  # of the hook that runs us
_DESCRIBED = re.compile(r"(?:v(?P<tag>\d[\w.]*)-(?P<later>\d+)-g)?(?P<commit>[0-9a-f]+)(?P<dirty>-dirty)?")


def version(root: Path = ROOT) -> str:
    """Return the version of what is in the folder; UNKNOWN where nothing tells it."""
    if PACKAGED and root == ROOT:
        return metadata.version("tidegate")
    return _of_clone(root) or _of_sdist(root) or UNKNOWN


def from_git(described: str) -> str:
    """Return a version for the answer of `git describe`: the tag's own, or one after it that names the commit."""
    match = _DESCRIBED.fullmatch(described)
    if match is None:
        return ""
    tag, later, commit, dirty = match.groups()
    if tag and later == "0" and not dirty:
        return tag
    after = f"{tag}.post{later}" if tag else UNKNOWN
    return f"{after}+g{commit}{'.dirty' if dirty else ''}"


def _of_clone(root: Path) -> str:
    if not (root / ".git").exists():  # the repository around it, if any, is another project's
        return ""
    here = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    try:
        done = subprocess.run(["git", "-C", root, *_DESCRIBE], env=here, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return from_git(done.stdout.strip())


def _of_sdist(root: Path) -> str:
    told = root / "PKG-INFO"
    found = re.search(r"^Version: (.+)$", told.read_text("utf-8"), re.MULTILINE) if told.is_file() else None
    return found[1] if found else ""
