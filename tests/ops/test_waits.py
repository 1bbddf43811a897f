"""What an agent waits for: containers on a real socket's engine, pages of a real server, real processes as nginx's workers."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ops.agent import waits
from ops.agent.engine import Engine, EngineError
from tests import an_engine
from tests.local_ssh import until
from tests.monitoring.a_stack import Stack

MASTER = """
trap : HUP
bash -c 'exec -a "nginx: worker process" sleep 600' &
echo $!
while :; do wait; done
"""
SHUTTING_DOWN = "exec -a 'nginx: worker process is shutting down' sleep 20"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[an_engine.Engine]:
    with an_engine.engine(tmp_path) as found:
        yield found


@pytest.fixture
def engine(server: an_engine.Engine) -> Engine:
    return Engine(str(server.socket_path))


@pytest.fixture
def app() -> Iterator[Stack]:
    """A container's page."""
    with Stack() as found:
        Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


def web(app: Stack, **more: Any) -> dict[str, Any]:
    return {"container": "web", "address": "127.0.0.1", "port": app.server_port, "path": "/health", "host": "a.example",
            "successes": 2, "interval": 0.01, **more}  # fmt: skip


def healthy(
    engine: Engine, *wanted: dict[str, Any], timeout: float = 0.1, then: Any = (), cancelled: bool = False
) -> dict[str, Any]:
    cancel = threading.Event()
    if cancelled:
        cancel.set()
    return waits.healthy(engine, list(wanted), list(then), timeout, cancel)


def test_a_container_is_healthy_once_it_has_answered_well_several_times_in_a_row(
    server: an_engine.Engine, engine: Engine, app: Stack
) -> None:
    server.container("web")
    server.answers["POST /containers/old/stop"] = b""
    answers = iter([(200, "yes"), (503, "not yet"), (200, "yes"), (200, "yes"), (500, "asked once too often")])
    app.answers["/health"] = lambda: next(answers)
    then = [["POST", "/containers/old/stop", None, [404], 5.0]]
    assert healthy(engine, web(app), timeout=5, then=then) == {"ok": True}
    assert app.asked == ["/health"] * 4
    assert server.asked[-1] == "POST /containers/old/stop"


def test_one_that_does_not_answer_well_in_time_is_told_with_its_last_answer(
    server: an_engine.Engine, engine: Engine, app: Stack
) -> None:
    server.container("web")
    app.answers["/health"] = (503, "no database\n")
    failed = {"ok": False, "container": "web", "reason": "timeout"}
    assert healthy(engine, web(app)) == {**failed, "last": "/health answered 503: no database"}
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    said = healthy(engine, web(app, port=port))
    assert said["last"].startswith(f"/health on port {port}: ")
    assert healthy(engine, web(app), cancelled=True)["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("state", "last"),
    [
        ({"Status": "exited", "ExitCode": 3}, "exit code 3"),
        ({"Status": "restarting", "ExitCode": 137, "OOMKilled": True}, "exit code 137, out of memory"),
    ],
)
def test_one_that_ended_is_not_waited_for(
    server: an_engine.Engine, engine: Engine, app: Stack, state: dict[str, Any], last: str
) -> None:
    server.container("web", **state)
    server.container("worker")
    found = healthy(engine, {"container": "worker", "steady": 9e9}, web(app), timeout=60)
    assert found == {"ok": False, "container": "web", "reason": "died", "last": last}


def test_one_that_has_been_restarted_before_is_well_and_one_that_is_restarted_meanwhile_is_not(
    server: an_engine.Engine, engine: Engine, app: Stack
) -> None:
    server.container("web", restarts=3)
    app.answers["/health"] = "yes"
    assert healthy(engine, web(app), timeout=5)["ok"]

    def restarted() -> tuple[int, str]:
        server.container("web", restarts=4, ExitCode=1)
        return 503, "starting"

    app.answers["/health"] = restarted
    assert healthy(engine, web(app), timeout=60)["reason"] == "died"


def test_what_the_engine_calls_unhealthy_is_not_asked(server: an_engine.Engine, engine: Engine, app: Stack) -> None:
    server.container("web", Health={"Status": "unhealthy", "Log": [{"Output": "old"}, {"Output": "disk full\n"}]})
    assert healthy(engine, web(app))["last"] == "the engine says unhealthy: disk full"
    assert app.asked == []


def test_a_container_without_a_page_is_well_once_it_has_stayed_up(server: an_engine.Engine, engine: Engine) -> None:
    server.container("worker", StartedAt=f"{datetime.now(UTC) - timedelta(seconds=5):%Y-%m-%dT%H:%M:%S.%f}123Z")
    assert healthy(engine, {"container": "worker", "steady": 4.0}) == {"ok": True}
    assert healthy(engine, {"container": "worker", "steady": 60.0})["last"].startswith("running for 5.")
    server.container("worker", Status="created")
    assert healthy(engine, {"container": "worker", "steady": 0.0})["reason"] == "timeout"


def test_the_images_own_check_is_run_at_once_and_not_when_the_engine_gets_to_it(server: an_engine.Engine, engine: Engine) -> None:
    ran: list[list[str]] = []

    def answer(command: list[str]) -> tuple[int, str]:
        ran.append(command)
        return (1, "cold\n") if len(ran) == 1 else (0, "warm")

    server.execs("web", answer)
    server.container("web", check={"Test": ["CMD-SHELL", "curl -f localhost"]})
    assert healthy(engine, {"container": "web", "steady": 0.0}, timeout=5) == {"ok": True}
    assert ran == [["/bin/sh", "-c", "curl -f localhost"]] * 2
    server.container("web", check={"Test": ["CMD", "check", "it"]})
    assert healthy(engine, {"container": "web", "steady": 0.0}) == {"ok": True}
    assert ran[-1] == ["check", "it"]
    server.container("web", check={"Test": ["NONE"]})
    assert healthy(engine, {"container": "web", "steady": 0.0}) == {"ok": True}
    assert len(ran) == 3


def test_a_check_that_fails_or_does_not_end_is_told(server: an_engine.Engine, engine: Engine) -> None:
    server.container("web", check={"Test": ["CMD", "check"], "Timeout": 50_000_000})
    server.execs("web", lambda command: (7, "no route\n"))
    assert healthy(engine, {"container": "web", "steady": 0.0})["last"] == "its health check ended with exit code 7: no route"
    ends = threading.Event()
    server.execs("web", lambda command: (int(ends.wait(10)), ""))
    try:
        assert healthy(engine, {"container": "web", "steady": 0.0})["last"].startswith("its health check did not end: ")
    finally:
        ends.set()


def test_it_looks_again_as_soon_as_something_happens(server: an_engine.Engine, engine: Engine) -> None:
    server.container("job")
    cancel = threading.Event()

    def end(_: Any) -> dict[str, Any]:
        server.container("job", Status="exited", ExitCode=4)
        server.happened.set()
        return {"State": {"Status": "running"}}

    server.answers["GET /containers/job/json"] = end
    assert waits.ended(engine, "job", 60, cancel) == {"code": 4}


def test_a_job_that_goes_on_is_given_up_in_the_end_and_at_once_when_cancelled(server: an_engine.Engine, engine: Engine) -> None:
    server.container("job")
    cancel = threading.Event()
    assert waits.ended(engine, "job", 0.0, cancel) == {"reason": "timeout"}
    cancel.set()
    assert waits.ended(engine, "job", 60, cancel) == {"reason": "cancelled"}


def test_an_engine_that_goes_away_ends_the_wait(server: an_engine.Engine, engine: Engine, app: Stack) -> None:
    server.container("web")
    server.ends.set()
    with pytest.raises(OSError, match="closed its event stream"):
        healthy(engine, web(app, interval=5), timeout=60)


def test_what_the_engine_refuses_is_told_by_call_and_reason(server: an_engine.Engine, engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"GET /containers/web/json: 404 .*refused with 404"):
        healthy(engine, {"container": "web", "steady": 0.0})
    with pytest.raises(EngineError, match="does not answer"):
        Engine(f"{server.socket_path}.none").inspect("web")


def test_a_sequence_ends_early_where_an_answer_says_that_it_may(server: an_engine.Engine, engine: Engine) -> None:
    server.answers["GET /info"] = {"ID": "x"}
    calls: list[list[Any]] = [["POST", "/containers/web/stop", None, [404], 5.0], ["GET", "/info", None, [], 5.0]]
    assert engine.sequence(calls) is None
    assert "GET /info" not in server.asked
    assert engine.sequence(calls[1:]) == {"ID": "x"}


class Nginx:
    """A process with one worker, and what the status page answers."""

    def __init__(self, server: an_engine.Engine, page: Stack, folder: Path) -> None:
        self.process = subprocess.Popen(["bash", "-c", MASTER], stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdout
        self.worker = int(self.process.stdout.readline())
        self.page, self.server = page, server
        self.live, self.staged = folder / "live.conf", folder / "staged.conf"
        self.live.write_text("old")
        page.answers["/"] = "old"
        server.container("edge", pid=self.process.pid)

    def on_reload(self, reload: Callable[[], object]) -> None:
        def signalled(_: Any) -> bytes:
            reload()
            return b""

        self.server.answers["POST /containers/edge/kill"] = signalled

    def end_worker(self) -> None:
        os.kill(self.worker, 15)
        assert until(lambda: not Path(f"/proc/{self.worker}").exists())

    def switch(self, engine: Engine, *, staged: bool = True, timeout: float = 5.0, answer: str = "new") -> dict[str, Any]:
        check = {"address": "127.0.0.1", "port": self.page.server_port, "host": "s.internal", "answer": answer, "successes": 3}
        return waits.switch(engine, "edge", str(self.staged) if staged else "", str(self.live), check, timeout)


@pytest.fixture
def nginx(server: an_engine.Engine, app: Stack, tmp_path: Path) -> Iterator[Nginx]:
    found = Nginx(server, app, tmp_path)
    assert until(lambda: "nginx: worker" in Path(f"/proc/{found.worker}/cmdline").read_text())
    yield found
    os.killpg(found.process.pid, 9)
    found.process.communicate()


def test_nginx_has_switched_once_all_fresh_connections_get_the_new_generation_and_no_old_worker_accepts(
    nginx: Nginx, engine: Engine
) -> None:
    nginx.staged.write_text("new")
    answers = iter(["old\n", "new\n", "old\n"])
    nginx.page.answers["/"] = lambda: next(answers, "new\n")
    nginx.on_reload(nginx.end_worker)
    found = nginx.switch(engine)
    assert (found["ok"], found["old"], found["last"].strip()) == (True, [nginx.worker], "new")
    assert len(nginx.page.asked) == 6
    assert (nginx.live.read_text(), Path(f"{nginx.staged}.back").read_text()) == ("new", "old")
    assert waits.workers_gone(engine, "edge", found["old"], 5.0, threading.Event())["ok"]


def test_an_old_worker_that_goes_on_accepting_has_not_switched(nginx: Nginx, engine: Engine) -> None:
    nginx.staged.write_text("new")
    nginx.on_reload(lambda: nginx.page.answers.update({"/": "new"}))
    found = nginx.switch(engine, timeout=0.2)
    assert found == {"ok": False, "seconds": 0.2, "old": [nginx.worker], "last": "new"}


def test_one_that_only_serves_its_open_requests_on_is_waited_for_later(
    server: an_engine.Engine, engine: Engine, nginx: Nginx
) -> None:
    """It does not accept any more, as its title says."""
    with subprocess.Popen(["bash", "-c", SHUTTING_DOWN]) as old:
        assert until(lambda: "shutting down" in Path(f"/proc/{old.pid}/cmdline").read_text())
        server.container("edge", pid=os.getpid())
        assert not waits._accepts(old.pid, os.getpid())
        cancel = threading.Event()
        found = waits.workers_gone(engine, "edge", [old.pid], 0.05, cancel)
        assert (found["ok"], found["left"]) == (False, [old.pid])
        cancel.set()
        assert not waits.workers_gone(engine, "edge", [old.pid], 60, cancel)["ok"]
        old.terminate()
    assert waits.workers_gone(engine, "edge", [old.pid], 60, threading.Event())["left"] == []
    assert not waits._accepts(old.pid, os.getpid())


def test_an_app_that_is_taken_off_has_its_file_removed_and_a_404_is_the_proof(nginx: Nginx, engine: Engine) -> None:
    def reload() -> None:
        nginx.page.answers["/"] = (404, "")
        nginx.end_worker()

    nginx.on_reload(reload)
    assert nginx.switch(engine, staged=False, answer="")["ok"]
    assert not nginx.live.exists()


def test_a_status_page_that_does_not_answer_is_told(nginx: Nginx, engine: Engine) -> None:
    nginx.staged.write_text("new")
    nginx.on_reload(nginx.page.server_close)
    nginx.page.shutdown()
    found = nginx.switch(engine, timeout=0.1)
    assert not found["ok"]
    assert "refused" in found["last"]


def test_processes_that_cannot_be_seen_are_told_before_anything_is_changed(
    nginx: Nginx, engine: Engine, server: an_engine.Engine
) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    server.container("edge", pid=gone.pid)
    with pytest.raises(OSError, match="hidepid"):
        nginx.switch(engine)
    assert nginx.live.read_text() == "old"


def test_the_ports_on_which_a_container_listens_are_those_of_its_process(server: an_engine.Engine, engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        server.container("web", pid=os.getpid())
        assert one.getsockname()[1] in waits.listening(engine, "web")
    server.container("web", pid=0)
    assert waits.listening(engine, "web") == []


def test_whoever_answers_anything_answers(app: Stack) -> None:
    assert waits.answers("127.0.0.1", app.server_port, 0.0)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not waits.answers("127.0.0.1", port, 0.1)


def test_what_is_no_http_is_no_answer() -> None:
    def babble(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=babble, args=(listener,), daemon=True).start()
        with pytest.raises(OSError, match="not an HTTP answer"):
            waits.http_get("127.0.0.1", listener.getsockname()[1], "/", "a.example", 5.0)
