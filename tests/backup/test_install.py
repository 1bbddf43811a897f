"""What puts the program and its settings in their places: whole or not at all, and nobody else's."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backup.agent import install

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return what it answers to a request."""

    def answer(**request: Any) -> dict[str, Any]:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request) + "\n"))
        install.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return answer


def file(path: Path, content: bytes = b"program", mode: int = 0o755, *, sent: bool = False, **more: Any) -> dict[str, Any]:
    known = {"path": str(path), "mode": mode, "digest": hashlib.sha256(content).hexdigest(), **more}
    return known | ({"content": base64.b64encode(content).decode()} if sent else {})


def settings(path: Path, environment: str, *, sent: bool = False) -> dict[str, Any]:
    return file(path, json.dumps({"environment": environment}).encode(), 0o600, sent=sent, environment=environment)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_lacks_is_told_first_and_put_there_when_it_comes(ask: Ask, tmp_path: Path) -> None:
    program, told = tmp_path / "lib/tidegate/backup.pyz", tmp_path / "srv/blog/backup.json"
    assert ask(program=file(program), settings=settings(told, "live")) == {"missing": ["program", "settings"]}
    assert not program.parent.exists()
    assert ask(program=file(program, sent=True), settings=settings(told, "live", sent=True)) == {"missing": []}
    assert (program.read_bytes(), mode(program), mode(told)) == (b"program", 0o755, 0o600)
    assert (mode(program.parent), mode(told.parent)) == (0o755, 0o700)
    assert ask(program=file(program), settings=settings(told, "live")) == {"missing": []}


def test_another_content_or_mode_is_replaced_and_nothing_is_left_beside_it(ask: Ask, tmp_path: Path) -> None:
    program = tmp_path / "backup.pyz"
    ask(program=file(program, b"old", sent=True))
    assert ask(program=file(program)) == {"missing": ["program"]}
    (tmp_path / f"backup.pyz.{os.getpid()}.new").write_text("of one that was killed")
    ask(program=file(program, sent=True))
    program.chmod(0o700)
    assert ask(program=file(program)) == {"missing": ["program"]}
    ask(program=file(program, sent=True))
    assert [(one.name, mode(one)) for one in tmp_path.iterdir()] == [("backup.pyz", 0o755)]


def test_settings_of_another_environment_are_left_as_they_are(ask: Ask, tmp_path: Path) -> None:
    told = tmp_path / "backup.json"
    ask(settings=settings(told, "live", sent=True))
    program = tmp_path / "backup.pyz"
    found = ask(program=file(program, sent=True), settings=settings(told, "staging", sent=True))
    assert found == {"missing": [], "other": "live"}
    assert json.loads(told.read_text())["environment"] == "live"
    assert not program.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_settings_that_nobody_could_use_are_replaced(ask: Ask, tmp_path: Path, text: str) -> None:
    told = tmp_path / "backup.json"
    told.write_text(text)
    assert ask(settings=settings(told, "live", sent=True)) == {"missing": []}
    assert json.loads(told.read_text())["environment"] == "live"


def test_bytes_that_were_changed_on_their_way_are_put_nowhere(ask: Ask, tmp_path: Path) -> None:
    program = tmp_path / "backup.pyz"
    with pytest.raises(SystemExit, match="not what was sent"):
        ask(program={**file(program, sent=True), "content": base64.b64encode(b"other").decode()})
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_put_no_draft_is_left(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "backup.pyz").mkdir()
    (tmp_path / "backup.pyz/in the way").touch()
    with pytest.raises(IsADirectoryError):
        install._put(**file(tmp_path / "backup.pyz", sent=True))
    assert [one.name for one in tmp_path.iterdir()] == ["backup.pyz"]
