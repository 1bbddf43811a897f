"""Dockerfiles to begin with: each a folder of docker/templates, told by its own files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.errors import ConfigError

FOLDER = Path(__file__).resolve().parent.parent / "docker" / "templates"


@dataclass(frozen=True)
class Template:
    """A template: its name, what it is for, the port that its image listens on, its files by name."""

    name: str
    description: str
    port: int
    files: Mapping[str, bytes]


def templates(folder: Path = FOLDER) -> dict[str, Template]:
    """Return every template there is: the first sentence of its Dockerfile says what for, its EXPOSE the port."""
    return {one.parent.name: _read(one) for one in sorted(folder.glob("*/Dockerfile"))}


def template(name: str, folder: Path = FOLDER) -> Template:
    """Return a template. Raises ConfigError for a name that none has."""
    found = templates(folder)
    if name not in found:
        raise ConfigError(f"there is no template {name!r}", where="--template", why=f"there are {', '.join(found)}",
                          fix="inv init --list")  # fmt: skip
    return found[name]


def _read(dockerfile: Path) -> Template:
    text = dockerfile.read_text("utf-8")
    description = re.match(r"#\s*(.+?)(?:\.\s|\.?$)", text, re.MULTILINE)
    port = re.search(r"^EXPOSE (\d+)", text, re.MULTILINE)
    files = {one.name: one.read_bytes() for one in sorted(dockerfile.parent.iterdir()) if one.is_file()}
    return Template(dockerfile.parent.name, description[1] if description else "", int(port[1]) if port else 0, files)
