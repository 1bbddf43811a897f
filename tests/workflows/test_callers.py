"""What docs/ci.md shows to other repositories fits the workflows that it calls."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.workflows import FILES, FOLDER, ROOT, load, workflow

CALLERS = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE | re.DOTALL)
CALLED = re.compile(r"uses: \S+/\.github/workflows/([\w-]+)\.yml@\S+")
LEVELS = ("none", "read", "write")

REUSABLE = {file.stem for file in FILES if "workflow_call" in load(file.read_text())["on"]}

every_caller = pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.split()[1])


def call(caller: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job that calls, and what the called workflow says of calls."""
    (calling,) = load(caller)["jobs"].values()
    (name,) = CALLED.findall(caller)
    return calling, workflow(name)


def test_every_workflow_has_a_caller_of_a_few_lines() -> None:
    assert {name for caller in CALLERS for name in CALLED.findall(caller)} == REUSABLE
    assert [caller for caller in CALLERS if len(caller.splitlines()) > 25] == []


@every_caller
def test_it_gives_what_is_required_and_nothing_unknown(caller: str) -> None:
    calling, called = call(caller)
    takes = called["on"]["workflow_call"]
    given, secrets = set(calling.get("with", {})), set(calling.get("secrets", {}))
    assert {name for name, one in takes["inputs"].items() if one.get("required")} <= given
    assert given <= set(takes["inputs"])
    assert secrets == set(takes.get("secrets", {}))  # an environment's own are seen only under names that are handed over


@every_caller
def test_it_grants_what_the_jobs_need(caller: str) -> None:
    calling, called = call(caller)
    assert load(caller)["permissions"] == {}
    for one in called["jobs"].values():
        for scope, level in one["permissions"].items():  # also of jobs that a call skips: GitHub compares before it starts
            assert LEVELS.index(calling["permissions"].get(scope, "none")) >= LEVELS.index(level), scope


@every_caller
def test_it_pins_tidegate_by_commit_and_hands_over_the_same(caller: str) -> None:
    calling, _ = call(caller)
    repository, commit = re.findall(r"(\S+?/\S+?)/\.github/workflows/\S+@([0-9a-f]{40})$", calling["uses"])[0]
    assert calling["with"]["tidegate-repository"] == repository
    assert calling["with"]["tidegate-ref"] == commit


@every_caller
def test_actionlint_has_nothing_against_it(caller: str, tmp_path: Path) -> None:
    program = shutil.which("actionlint")
    if not program:
        pytest.skip("actionlint is not installed")
    folder = tmp_path / ".github" / "workflows"
    shutil.copytree(FOLDER, folder)
    (tmp_path / ".git").mkdir()
    here = re.sub(r"uses: \S+(/\.github/workflows/\S+)@\S+.*", r"uses: .\1", caller)
    (folder / "caller.yml").write_text(here)
    done = subprocess.run(
        [program, "-no-color", folder / "caller.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
