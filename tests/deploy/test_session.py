"""Where a session remembers what it shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.session import Session, cache_folder, reserve
from ops.config import load
from ops.errors import ConfigError

CONFIGURATION = """
app = { name = "blog", context = ".", dockerfile = "Dockerfile", port = 3000 }
environments.production = { domain = "blog.example.com", hosts = ["deploy@203.0.113.10"] }
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def test_nothing_of_a_session_is_written_into_the_project(tmp_path: Path, cache: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").touch()
    (project / "ops.toml").write_text(CONFIGURATION)
    before = sorted(project.rglob("*"))
    with Session(load(project / "ops.toml", {}).environment("production"), ships=True) as session:
        assert session.state.parent == cache / "tidegate"
        assert [path.name for path in session.state.iterdir()] == ["registry.json"]
        assert session.state.stat().st_mode & 0o777 == 0o700
    assert sorted(project.rglob("*")) == before


def test_every_project_has_a_cache_of_its_own_whatever_way_leads_there(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to("one")
    assert cache_folder(tmp_path / "one") == cache_folder(tmp_path / "link")
    assert cache_folder(tmp_path / "one") != cache_folder(tmp_path / "two")
    assert len(cache_folder(tmp_path).name) == 12


@pytest.mark.parametrize("named", ["", "relative"])
def test_the_cache_is_in_the_home_unless_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(tmp_path).parent == tmp_path / "home/.cache/tidegate"


def test_a_cache_that_cannot_be_written_is_an_error_to_show(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cache cannot be written"):
        reserve(tmp_path / "file" / "state")
