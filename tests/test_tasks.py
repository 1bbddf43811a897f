"""What people type that needs no server: exit codes, words and files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke import Context, Exit

import tasks
from ops import menu

CONFIGURATION = """
[app]
name = "blog"
port = 3000
[environments.live]
domain = "a.example"
hosts = ["one.invalid"]
[environments.staging]
domain = "b.example"
hosts = ["two.invalid"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ops.toml of the folder that commands are typed in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(menu, "CONFIG", Path("ops.toml"))
    (tmp_path / "Dockerfile").touch()
    (tmp_path / "ops.toml").write_text(CONFIGURATION)
    return tmp_path / "ops.toml"


def typed(task: Any, **asked: Any) -> int:
    """Carry out a task and return its exit code."""
    try:
        task.body(Context(), **asked)
    except Exit as end:
        print(end.message, file=sys.stderr)
        return int(end.code)
    return 0


def test_a_configuration_without_mistakes_names_its_environments(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(tasks.config_check) == 0
    assert f"{file} is fine; environments: live, staging" in capsys.readouterr().out


def test_a_mistake_in_any_environment_is_told_with_the_exit_code_of_mistakes(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(CONFIGURATION.replace('"b.example"', "7"))
    assert typed(tasks.config_check) == 2
    assert "domain" in capsys.readouterr().err


def test_every_effective_value_says_where_it_comes_from(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(tasks.config_show, env="live", json=True) == 0
    found = {one["key"]: one for one in json.loads(capsys.readouterr().out)}
    assert str(found["app.port"]["value"]) == "3000"
    assert "ops.toml" in found["app.port"]["from"]


def test_a_new_app_gets_an_ops_toml_that_is_never_written_over(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(tasks.init, name="shop") != 0
    assert file.read_text() == CONFIGURATION
    file.unlink()
    assert typed(tasks.init, name="shop", port=8080, json=True) == 0
    assert str(file) in json.loads(capsys.readouterr().out)
    assert 'name = "shop"' in file.read_text()
    assert "port = 8080" in file.read_text()


def test_templates_are_listed_and_one_brings_what_its_image_is_built_from(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.unlink()
    (file.parent / "Dockerfile").unlink()
    assert typed(tasks.init, list=True, json=True) == 0
    listed = [one["template"] for one in json.loads(capsys.readouterr().out)]
    assert {"python", "static"} <= set(listed)
    assert not file.exists()
    assert typed(tasks.init, name="shop", template="python") == 0
    assert (file.parent / "Dockerfile").read_text().startswith("#")
    assert "run inv config.check" in capsys.readouterr().out
