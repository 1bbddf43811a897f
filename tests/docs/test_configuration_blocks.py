"""Configuration shown in the documents loads, as it stands or, where it is a part, with the rest of a small one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.audit import ignores
from deploy.images.size import budget_of
from ops.config import ConfigProblems, load
from ops.errors import ConfigError
from tests.docs.documents import DOCUMENTS, Block, blocks

BLOCKS = [block for document in DOCUMENTS for block in blocks(document, "toml")]
APP = '\n[app]\nname = "shop"\nport = 3000\n'
PRODUCTION = '\n[environments.production]\ndomain = "shop.example.com"\nhosts = ["203.0.113.10"]\n'


def files_named_in(table: dict[str, Any]) -> list[str]:
    """Return the files that a configuration names, at any depth."""
    found = [str(value) for key, value in table.items() if key in ("certificate", "include", "dockerfile", "compose")]
    return found + [file for value in table.values() if isinstance(value, dict) for file in files_named_in(value)]


def whole(text: str) -> str:
    """Return a configuration with what a part of one leaves out."""
    shown = tomllib.loads(text)
    return text + ("" if "name" in shown.get("app", {}) else APP) + ("" if "environments" in shown else PRODUCTION)


def assert_loads(text: str, folder: Path) -> None:
    """Read it as the file that it is of: audit.toml, budgets.toml, else ops.toml."""
    shown = tomllib.loads(text)
    if "ignore" in shown:
        written = min(one["expires"] for one in shown["ignore"]) - ignores.LONGEST  # an example need not be of today
        ignores.parse(shown, "audit.toml", written)
    elif "compressed_mb" in text:
        (folder / "budgets.toml").write_text(text)
        assert all(budget_of(folder / "Dockerfile", table) for table in shown if isinstance(shown[table], dict))
    else:
        assert_is_configuration(text, folder)


def assert_is_configuration(text: str, folder: Path) -> None:
    for file in ["Dockerfile", *files_named_in(tomllib.loads(text))]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    (folder / "ops.toml").write_text(whole(text))
    project = load(folder / "ops.toml", {})
    assert [project.environment(name).name for name in project.environments] == list(project.environments) != []


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_it_loads(block: Block, tmp_path: Path) -> None:
    assert_loads(block.text, tmp_path)


def test_a_part_of_a_configuration_loads_with_the_rest(tmp_path: Path) -> None:
    assert_loads('[app.health]\npath = "/ready"\n', tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        '[app.health]\npaths = "/ready"\n',
        "[monitor]\n",
        APP + "prot = 1\n",
        '[[ignore]]\nid = "CVE-2020-1"\nexpires = 2027-01-01\n',
        "[shop]\ncompressed_mb = 0\n",
    ],
)
def test_a_key_that_is_none_would_be_found(wrong: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ConfigProblems)):
        assert_loads(wrong, tmp_path)
