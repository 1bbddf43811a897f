"""The edge's main file is replaced only by one that nginx takes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import edge, edge_setup
from ops.agent import files
from ops.errors import Failed

OLD = "events {}\n"


class Here:
    """Carries out the agent's operations here; commands in a container of nginx over these files, or as told."""

    name = "one"

    def __init__(self, container: str | None = None) -> None:
        self.container = container
        self.answer = (0, "")
        self.ran: list[list[str]] = []

    def call(self, op: str, **wanted: Any) -> Any:
        if op != "execute":
            return getattr(files, op)(**wanted)
        self.ran.append(wanted["command"])
        if self.container is None:
            return self.answer
        done = subprocess.run(["docker", "exec", self.container, *wanted["command"]], capture_output=True, text=True)
        return done.returncode, done.stderr


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a folder here as the edge's."""
    monkeypatch.setattr(edge_setup, "EDGE_HOME", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(OLD)
    return tmp_path


def ensure(link: Here, *, runs: bool = True) -> bool:
    return edge_setup._ensure_files(link, runs=runs)  # type: ignore[arg-type]  # all of a link that it uses


def test_a_main_file_that_nginx_takes_replaces_the_old_one(home: Path) -> None:
    link = Here()
    assert ensure(link)
    assert link.ran == [["nginx", "-t", "-q", "-c", "/etc/nginx/tidegate/nginx.conf.new"]]
    assert (home / "nginx.conf").read_text() == edge.main_file()
    assert not (home / "nginx.conf.new").exists()


def test_a_right_main_file_is_left_alone(home: Path) -> None:
    ensure(Here())
    link = Here()
    assert not ensure(link)
    assert link.ran == []


def test_a_refused_main_file_leaves_the_old_one_and_the_next_bootstrap_tries_again(home: Path) -> None:
    link = Here()
    link.answer = (1, "unknown directive")
    for _ in range(2):
        with pytest.raises(Failed, match="unknown directive"):
            ensure(link)
        assert (home / "nginx.conf").read_text() == OLD
        assert not (home / "nginx.conf.new").exists()


def test_where_no_nginx_runs_the_file_is_put_in_place_without_a_test(home: Path) -> None:
    link = Here()
    assert ensure(link, runs=False)
    assert link.ran == []
    assert (home / "nginx.conf").read_text() == edge.main_file()


@pytest.fixture
def nginx(home: Path) -> Iterator[str]:
    """Run nginx over the folder."""
    home.chmod(0o755)
    run = [
        "docker",
        "run",
        "-d",
        "--rm",
        "--network=none",
        "-v",
        f"{home}:{edge.MOUNT}:ro",
        edge_setup.IMAGE,
        "nginx",
        "-g",
        "daemon off;",
    ]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    yield container
    subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)


@pytest.mark.integration
def test_nginx_itself_takes_the_main_file_and_refuses_one_that_includes_what_is_damaged(home: Path, nginx: str) -> None:
    (home / "apps").mkdir()
    (home / "apps" / "hand.conf").write_text("no_such_directive;\n")
    with pytest.raises(Failed, match="no_such_directive"):
        ensure(Here(nginx))
    assert (home / "nginx.conf").read_text() == OLD
    (home / "apps" / "hand.conf").unlink()
    assert ensure(Here(nginx))
