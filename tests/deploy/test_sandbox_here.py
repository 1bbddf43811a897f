"""A sandbox brought up, looked at and removed on an engine with a memory (tests/deploy/a_server.py)."""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from invoke import Context

from deploy import sandbox
from deploy import tasks as deploys
from deploy.sandbox import Sandbox
from ops import local_engine, menu
from ops.errors import Failed
from tests.deploy.a_server import Engine

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDK leaves sockets of commands to the garbage collector
READY = "key ssh-ed25519 AAAA\nengine 26.1.5\n"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Serve as this machine's engine, with the servers' image built already."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/local.sock")
    monkeypatch.setattr(local_engine, "ensure", lambda report: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where locks are that a sandbox of this machine may hold
    with Engine(tmp_path / "local.sock") as found:
        Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        found.add_image(Sandbox(tmp_path).recipe.image)
        found.execs_said = lambda words: (0, READY)
        yield found
        found.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_servers_are_created_with_their_volumes_and_known_to_the_configuration(engine: Engine, tmp_path: Path) -> None:
    said: list[str] = []
    servers = sandbox.up(tmp_path, 2, said.append)
    names = [one.name for one in servers]
    assert sorted(said) == [f"starting {name}" for name in names]
    assert [engine.boxes[name].status for name in names] == ["running", "running"]
    assert len(engine.volumes) == 6
    assert [(one.engine, one.host_key, one.private) for one in servers] == [("26.1.5", "ssh-ed25519 AAAA", "172.17.0.2")] * 2
    assert len({port for one in servers for port in one.ports}) == 6
    written = (tmp_path / ".tidegate/environments/sandbox.toml").read_text()
    assert all(one.url in written for one in servers)
    assert all(one.https_port == one.ports[2] for one in servers)
    assert (tmp_path / ".tidegate/sandbox/id_ed25519.pub").read_text().startswith("ssh-ed25519 ")


def test_those_that_run_are_kept_and_those_that_do_not_are_revived(engine: Engine, tmp_path: Path) -> None:
    first = sandbox.up(tmp_path, 2, print)
    engine.boxes[first[0].name].status = "paused"
    engine.boxes[first[1].name].status = "exited"
    said: list[str] = []
    again = sandbox.up(tmp_path, 1, said.append)
    assert [(one.name, one.ports) for one in again] == [(one.name, one.ports) for one in first]
    assert {box.status for box in engine.boxes.values()} == {"running"}
    assert said == []


def test_one_whose_port_is_taken_by_now_moves_to_others_and_keeps_its_data(engine: Engine, tmp_path: Path) -> None:
    (first,) = sandbox.up(tmp_path, 1, print)
    engine.boxes[first.name].status = "exited"
    start = f"POST /containers/id-{first.name}/start"

    def refused(_: Any) -> tuple[int, str]:
        del engine.answers[start]
        return 500, "Bind for 127.0.0.1:80 failed: port is already allocated"

    engine.answers[start] = refused
    said: list[str] = []
    (moved,) = sandbox.up(tmp_path, 1, said.append)
    assert said == [f"{first.name}: one of its ports is taken by now; it moves to others, its data stays"]
    assert (moved.name, len(engine.volumes)) == (first.name, 3)
    assert not set(moved.ports) & set(first.ports)


def test_what_the_engine_refuses_is_told_with_the_sandbox_it_was_for(engine: Engine, tmp_path: Path) -> None:
    engine.answers["POST /volumes/create"] = 500
    with pytest.raises(Failed, match="this machine's engine refused") as caught:
        sandbox.up(tmp_path, 1, print)
    assert caught.value.where == f"sandbox {Sandbox(tmp_path).id}"
    assert "refused with 500" in caught.value.why


def test_the_status_asks_those_that_run_and_tells_the_others_as_they_are(engine: Engine, tmp_path: Path) -> None:
    running, stopped = sandbox.up(tmp_path, 2, print)
    engine.boxes[stopped.name].status = "exited"
    found = sandbox.status(tmp_path)
    assert [(one.name, one.state, one.engine) for one in found] == [
        (running.name, "running", "26.1.5"),
        (stopped.name, "exited", ""),
    ]
    assert [one.ports for one in found] == [running.ports, stopped.ports]


def test_removing_it_leaves_no_container_no_volume_no_key_and_no_environment(engine: Engine, tmp_path: Path) -> None:
    sandbox.up(tmp_path, 1, print)
    engine.add("of-somebody-else")
    said: list[str] = []
    sandbox.down(tmp_path, said.append)
    assert said == ["removing 1 sandbox servers and their data"]
    assert list(engine.boxes) == ["of-somebody-else"]
    assert engine.volumes == []
    assert not (tmp_path / ".tidegate/sandbox").exists()
    assert not (tmp_path / ".tidegate/environments/sandbox.toml").exists()
    assert sandbox.status(tmp_path) == []


def test_the_image_is_built_once_from_the_files_that_are_here(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[Any, ...]] = []
    monkeypatch.setattr(sandbox, "ensure_base", lambda *_: None)
    monkeypatch.setattr(sandbox, "build", lambda *wanted: built.append(wanted))
    said: list[str] = []
    one = Sandbox(tmp_path, target="bare")
    engine.images.clear()
    one.ensure_image(said.append)
    assert said == ["building the image of the sandbox servers"]
    assert built == [(sandbox.FOLDER, one.recipe.image, "--target", "bare")]
    engine.add_image(one.recipe.image)
    one.ensure_image(said.append)
    assert len(built) == 1


def test_the_tasks_show_where_the_servers_are(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(menu, "CONFIG", tmp_path / "ops.toml")
    (tmp_path / "Dockerfile").touch()
    (tmp_path / "ops.toml").write_text('[app]\nname = "blog"\nport = 3000\n')
    monkeypatch.setattr("deploy.servers.make_ready", lambda env, say, confirm: say(env.hosts[0].name, "ready"))
    deploys.up(Context())
    said = capsys.readouterr().out
    assert "ready" in said
    (one,) = sandbox.status(tmp_path)
    assert f"127.0.0.1:{one.ssh_port}" in said
    assert f"http://127.0.0.1:{one.http_port}" in said
    deploys.sandbox_status(Context(), json=True)
    assert f'"name": "{one.name}"' in capsys.readouterr().out
    deploys.down(Context())
    assert "removing 1 sandbox servers" in capsys.readouterr().out
