"""Configuration shown in the documents loads as it stands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ops.config import load
from tests.docs.documents import DOCUMENTS, Snippet, blocks

BLOCKS = [block for document in DOCUMENTS for block in blocks(document, "toml")]


def files_named_in(table: dict[str, Any]) -> list[str]:
    """Return the files that a configuration names, at any depth."""
    found = [str(value) for key, value in table.items() if key in ("certificate", "include", "dockerfile", "compose")]
    return found + [file for value in table.values() if isinstance(value, dict) for file in files_named_in(value)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_it_loads(block: Snippet, tmp_path: Path) -> None:
    for file in ["Dockerfile", *files_named_in(tomllib.loads(block.text))]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    path = tmp_path / "ops.toml"
    path.write_text(block.text)
    project = load(path, {})
    assert [project.environment(name).name for name in project.environments] == list(project.environments)
    assert project.environments
