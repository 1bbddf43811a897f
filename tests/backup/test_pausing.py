"""Pausing an app and bringing it back: real processes for nginx, a real page, and an engine on a real socket."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from backup.agent import writers
from backup.agent.errors import BackupError
from backup.agent.model import Settings
from backup.agent.report import Report
from backup.agent.writers import Paused, Writer, Writers
from deploy.edge import EdgeFile, render
from ops.agent import waits
from tests import an_engine
from tests.backup.agent_run import Lines
from tests.monitoring.a_stack import Stack

LIVE = render(EdgeFile(app="blog", release="v2", generation="v2-abc", upstream="10.213.1.140", port=3000, domains=("a.b",), body_size="1k",
                       timeout=60, idle=0.0, gzip=True, pem=None, environment="live"))  # fmt: skip
WEB = Writer("blog_web_v2", "v2", "web", {"Name": "unless-stopped"})
WORKER = Writer("blog_worker_v2", "v2", "worker", {"Name": "always"})
HEAL = 0.5


class Server:
    """A server with an app of two containers behind nginx, whose page tells what its live file says."""

    def __init__(self, folder: Path, engine: an_engine.Engine, page: Stack, nginx: int) -> None:
        self.engine, self.page, self.home = engine, page, folder / "srv"
        self.live = self.home / "edge/apps/blog.conf"
        for path in (self.live.parent, self.home / "edge/staged", self.home / "blog/releases"):
            path.mkdir(parents=True)
        self.live.write_text(LIVE)
        manifest = {"address": "127.0.0.1", "port": page.server_port, "health_path": "/health", "domains": ["a.b"]}
        (self.home / "blog/releases/v2.json").write_text(json.dumps(manifest))
        page.answers |= {"/": lambda: self.generation, "/health": "yes"}
        listed = [{"Id": one.name, "Names": [f"/{one.name}"],
                   "Labels": {"dev.tidegate.release": one.release, "dev.tidegate.process": one.process}} for one in (WEB, WORKER)]  # fmt: skip
        engine.answers |= {"GET /containers/json": listed, "POST /containers/tidegate-edge/kill": b""}
        engine.container("tidegate-edge", pid=nginx)
        for one in (WEB, WORKER):
            engine.container(one.name)
            engine.answers[f"GET /containers/{one.name}/json"]["HostConfig"] = {"RestartPolicy": one.policy}
            engine.answers |= {f"POST /containers/{one.name}/{word}": b"" for word in ("start", "stop", "update")}
        self.said = Lines()

    @property
    def generation(self) -> str:
        """Return what nginx's status page says: what its file told it when it was last reloaded, which takes no time here."""
        return str(writers.head(self.live.read_text()).get("generation", ""))

    def writers(self) -> Writers:
        settings = Settings("blog", "live", "one", (), home=str(self.home), engine=str(self.engine.socket_path), patience=HEAL)
        return Writers(settings, Report(self.said))  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with an_engine.engine(tmp_path) as engine, Stack() as page, subprocess.Popen(["sleep", "20"]) as nginx:
        Thread(target=page.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(writers, "STATUS_PORT", page.server_port)
        monkeypatch.setattr(writers, "STEADY", 0.0)
        monkeypatch.setattr(writers, "SWITCH_SECONDS", 1.0)
        yield Server(tmp_path, engine, page, nginx.pid)
        nginx.kill()
        page.shutdown()


def test_who_writes_is_who_runs_and_nginx_has_a_part_in_it_where_it_serves_the_app(server: Server) -> None:
    seen = server.writers().look()
    assert seen == Paused((WEB, WORKER), "v2-abc")
    server.engine.container("tidegate-edge", Running=False)
    assert server.writers().look().generation == ""
    del server.engine.answers["GET /containers/tidegate-edge/json"]
    assert server.writers().look().generation == ""
    server.engine.answers["GET /containers/json"] = []
    assert server.writers().look() == Paused()


def test_an_app_is_drained_closed_and_opened_with_the_file_that_was_live(server: Server) -> None:
    pause = server.writers()
    paused = pause.look()
    pause.drain(paused, "1")
    assert server.generation == "draining-1"
    assert "keepalive_timeout 0;" in server.live.read_text()
    pause.close(paused, "1")
    assert server.generation == "maintenance-1"
    assert "return 503" in server.live.read_text()
    pause.open(paused)
    assert server.live.read_text() == LIVE
    left = [path for path in server.home.rglob("*.conf*") if path != server.live]
    assert left == []
    pause.open(paused)
    assert server.live.read_text() == LIVE, "what was opened is open"


def test_an_app_without_a_part_in_nginx_is_not_looked_for_there(server: Server) -> None:
    pause = server.writers()
    for act in (pause.drain, pause.close):
        act(Paused((WORKER,)), "1")
    pause.open(Paused((WORKER,)))
    assert server.live.read_text() == LIVE
    assert server.engine.asked == []


def test_an_nginx_that_does_not_take_up_a_file_ends_it_with_its_answer(server: Server) -> None:
    server.page.answers["/"] = "v1-old"
    with pytest.raises(BackupError, match="nginx did not take up draining-1") as caught:
        server.writers().drain(Paused((WEB,), "v2-abc"), "1")
    assert caught.value.why == "it answers 'v1-old'"
    assert caught.value.fix == "docker logs tidegate-edge"


def test_workers_that_still_serve_somebody_are_told_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["bash", "-c", "exec -a 'nginx: worker process is shutting down' sleep 5"]) as worker:
        server.engine.container("tidegate-edge", pid=os.getpid())
        monkeypatch.setattr(waits, "_workers", lambda master: [worker.pid])
        monkeypatch.setattr(writers, "OPEN_SECONDS", 0.0)
        monkeypatch.setattr(waits, "_accepts", lambda pid, master: False)
        server.writers()._switch(LIVE.replace("v2-abc", "v2-def"), "v2-def", 0.0)
        worker.kill()
    assert "connections through nginx were still open after 0 s and may be cut" in "".join(server.said.text)


def test_what_ran_is_stopped_for_good_and_started_again_with_its_own_policy(server: Server) -> None:
    pause = server.writers()
    pause.stop(Paused((WEB, WORKER)))
    bodies = server.engine.bodies
    assert bodies[f"POST /containers/{WEB.name}/update"] == {"RestartPolicy": {"Name": "no"}}
    assert server.engine.asked.index(f"POST /containers/{WEB.name}/stop") < server.engine.asked.index(
        f"POST /containers/{WEB.name}/update"
    )
    pause.start(Paused((WEB, WORKER)), must=True)
    assert [bodies[f"POST /containers/{one.name}/update"] for one in (WEB, WORKER)] == [
        {"RestartPolicy": {"Name": "unless-stopped"}},
        {"RestartPolicy": {"Name": "always"}},
    ]
    assert server.page.asked == ["/health"] * 3


@pytest.mark.parametrize("must", [True, False])
def test_an_app_that_does_not_get_healthy_with_the_restored_data_fails_the_restore_and_else_is_told(
    server: Server, must: bool
) -> None:
    server.page.answers["/health"] = (500, "no table posts")
    listed = server.engine.answers["GET /containers/json"]
    server.engine.answers["GET /containers/json"] = listed if must else [one for one in listed if one["Id"] == WEB.name]
    if must:
        with pytest.raises(BackupError, match="does not get healthy with the restored data") as caught:
            server.writers().start(Paused((WEB,)), must=True)
        assert "no table posts" in caught.value.why
    else:
        server.writers().start(Paused((WEB,)), must=False)
        assert "the app runs again and is not healthy: blog_web_v2 (timeout)" in "".join(server.said.text)


def test_a_container_that_a_person_removed_meanwhile_is_told_of(server: Server) -> None:
    server.engine.answers["GET /containers/json"] = []
    server.writers().start(Paused((WORKER,)), must=False)
    assert f"the container {WORKER.name} is gone: deploy again" in "".join(server.said.text)
    assert f"POST /containers/{WORKER.name}/start" not in server.engine.asked


def test_a_release_without_a_manifest_is_judged_by_staying_up(server: Server) -> None:
    (server.home / "blog/releases/v2.json").unlink()
    server.writers().start(Paused((WEB,)), must=True)
    assert server.page.asked == []
