"""How an app's own coverage is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import app_coverage
from ops.errors import ConfigError, Failed, Refused

TESTED = "from it import double\n\n\ndef test_double() -> None:\n    assert double(2) == 4\n"
HALF = "def double(number):\n    return 2 * number\n\n\ndef half(number):\n    return number / 2\n"


def app(place: Path, tests: str = TESTED) -> Path:
    (place / "it.py").write_text(HALF)
    (place / "test_it.py").write_text(tests)
    (place / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\npythonpath = ['.']\n[tool.coverage.run]\nomit = ['test_*']\n"
    )
    return place


def test_a_python_app_passes_when_its_tests_run_enough_of_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    app_coverage.measure(app(tmp_path), 75, [str(tmp_path / "test_it.py")])
    assert "TOTAL" in capfd.readouterr().out


def test_a_python_app_fails_below_the_floor(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="less of it ran than --fail-under asks"):
        app_coverage.measure(app(tmp_path), 76)


def test_no_test_is_no_coverage(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no test ran"):
        app_coverage.measure(app(tmp_path, ""), 0)


def test_an_app_is_measured_in_its_own_environment(tmp_path: Path) -> None:
    own = app(tmp_path) / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert {command[0] for command in app_coverage.commands(tmp_path, 0)} == {str(own)}
    own.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(Refused, match=r"lacks coverage or pytest\n  next:  .*/.venv/bin/python -m pip install coverage pytest"):
        app_coverage.commands(tmp_path, 0)


@pytest.mark.parametrize(
    ("installed", "command"),
    [
        ({"cargo-llvm-cov", "cargo-tarpaulin"}, ["cargo", "llvm-cov", "--fail-under-lines", "80"]),
        ({"cargo-tarpaulin"}, ["cargo", "tarpaulin", "--fail-under", "80"]),
    ],
)
def test_a_rust_app_is_measured_by_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: set[str], command: list[str]
) -> None:
    (tmp_path / "Cargo.toml").write_text("")
    monkeypatch.setattr(app_coverage, "which", lambda name: name if name in installed else None)
    assert app_coverage.commands(tmp_path, 80.0) == [command]
    monkeypatch.setattr(app_coverage, "which", lambda name: f"/cargo/bin/{name}")
    assert app_coverage.commands(tmp_path, 80.0)[0][0] == "/cargo/bin/cargo"


def test_a_tool_for_rust_that_is_missing_is_said_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Cargo.toml").write_text("")
    monkeypatch.setattr(app_coverage, "which", lambda _name: None)
    with pytest.raises(Refused, match="cargo install cargo-llvm-cov"):
        app_coverage.commands(tmp_path, 80)


def test_an_app_in_another_language_is_not_known_here(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "gyp.py").touch()
    with pytest.raises(ConfigError, match="no app whose coverage can be measured here"):
        app_coverage.commands(tmp_path, 80)
