"""Secrets that come as the text of an .env file in one variable, as CI has them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ops import menu
from ops.config_models import SecretSource
from ops.errors import ConfigError
from ops.secrets import GIVEN, resolve_secrets
from tests.local_ssh import environment


def found(folder: Path, names: tuple[str, ...], **environ: str) -> dict[str, str]:
    """Return the secrets as they stand."""
    env = environment(folder).model_copy(update={"project_root": folder})
    return {name: secret.reveal() for name, secret in resolve_secrets(env, names, environ).items()}


def test_they_are_found_by_name(tmp_path: Path) -> None:
    text = "# ours\r\nSECRET_KEY='a b'\r\nDB_URL=postgres://x\r\n"
    assert found(tmp_path, ("SECRET_KEY", "DB_URL"), **{GIVEN: text}) == {"SECRET_KEY": "a b", "DB_URL": "postgres://x"}


def test_a_variable_of_the_name_comes_before_them_and_they_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env.test"
    file.touch(0o600)
    file.write_text("A=file\nB=file\nC=file\n")
    wanted = {"A": "variable", "B": "given", "C": "file"}
    assert found(tmp_path, ("A", "B", "C"), A="variable", **{GIVEN: "A=given\nB=given\n"}) == wanted


def test_an_unclear_line_is_refused_without_its_contents(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        found(tmp_path, ("A",), **{GIVEN: "A=1\nhunter2 is the word\n"})
    assert caught.value.where == f"{GIVEN}: line 2"
    assert "hunter2" not in str(caught.value)


def test_no_program_that_a_command_starts_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv(GIVEN, "A=hunter2\n")
    with menu.opened() as console:
        assert GIVEN.encode() not in subprocess.run(["env"], capture_output=True, check=True).stdout
        assert found(tmp_path, ("A",), **console.environ) == {"A": "hunter2"}
        env = environment(tmp_path).model_copy(update={"secrets": {"B": SecretSource(command=("env",))}})
        assert GIVEN not in resolve_secrets(env, ("B",), console.environ)["B"].reveal()
    assert os.environ[GIVEN] == "A=hunter2\n"


def test_github_is_told_to_hide_each_value_and_a_document_stays_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv(GIVEN, "A='hunter2'\nB=\"50%\\nmore\"\nC=\n")
    with menu.opened(json=True) as console:
        console.document({"a": 1})
    told = capsys.readouterr()
    assert told.err == "::add-mask::hunter2\n::add-mask::50%25%0Amore\n"
    assert json.loads(told.out) == {"a": 1}


def test_without_them_a_command_has_the_environment_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GIVEN, raising=False)
    with menu.opened() as console:
        assert console.environ is os.environ
    assert GIVEN not in os.environ
