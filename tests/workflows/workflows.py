"""The workflows of this repository, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


@dataclass(frozen=True)
class Job:
    """A job of a workflow; `id` is how people name it here: ci.image."""

    workflow: str
    name: str
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The workflow and the job."""
        return f"{self.workflow}.{self.name}"

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The steps."""
        return list(self.data["steps"])

    @property
    def needs(self) -> list[str]:
        """The jobs before it."""
        named = self.data.get("needs", [])
        return [named] if isinstance(named, str) else list(named)


def load(text: str) -> dict[str, Any]:
    """Read a workflow; YAML 1.1 takes the word `on` for true."""
    found = yaml.safe_load(text)
    return {("on" if key is True else key): value for key, value in found.items()}


def workflow(name: str) -> dict[str, Any]:
    """Return a workflow by the name of its file."""
    return load((FOLDER / f"{name}.yml").read_text())


def jobs() -> Iterator[Job]:
    """Yield every job of every workflow."""
    for file in FILES:
        for name, data in load(file.read_text())["jobs"].items():
            yield Job(file.stem, name, data)


def job(id: str) -> Job:
    """Return a job by its id."""
    return {one.id: one for one in jobs()}[id]
