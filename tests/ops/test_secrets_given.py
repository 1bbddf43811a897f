"""Secrets that come as the text of an .env file in one variable, as CI has them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
