"""What a server's agent is asked, through a real connection: beside it an engine that answers on a real socket."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ops import link as links
from ops.link import AgentError, Link
from tests import an_engine
from tests.an_engine import framed
from tests.local_ssh import HOST, environment, install_ssh, until
from tests.monitoring.a_stack import Stack


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[an_engine.Engine]:
    with an_engine.engine(tmp_path) as found:
        monkeypatch.setattr(links, "ENGINE_SOCKET", str(found.socket_path))
        yield found


@pytest.fixture
def link(server: an_engine.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    install_ssh(tmp_path, monkeypatch)
    found = Link(environment(tmp_path), HOST)
    yield found
    found.close()


@pytest.fixture
def page() -> Iterator[Stack]:
    with Stack() as found:
        Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


def test_its_first_words_tell_the_engine(link: Link) -> None:
    assert link.hello()["engine"]["ApiVersion"] == "1.44"


def test_the_state_of_a_container_is_told_and_of_one_that_is_not_there_nothing(link: Link, server: an_engine.Engine) -> None:
    server.container("web", Status="paused")
    assert [link.call("state_of", container=name) for name in ("web", "none")] == ["paused", None]


def test_one_answer_tells_everything_of_an_app(link: Link, server: an_engine.Engine, page: Stack, tmp_path: Path) -> None:
    for name, text in {
        "releases/v1.json": "one",
        "releases/v2.json.staged": "two",
        "edge/a.conf": "server",
        "tls/a.pem": "pem",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "journal.jsonl").write_text("x" * 20_000 + "end")
    server.answers["GET /info"] = {"ID": "engine"}
    page.answers["/"] = "v1-abc\n"
    check = {"address": "127.0.0.1", "port": page.server_port, "host": "s.internal"}
    asked: dict[str, Any] = {
        "folder": str(tmp_path / "releases"), "journal": str(tmp_path / "journal.jsonl"), "edge": str(tmp_path / "edge"),
        "check": check, "engine": {"info": "/info", "gone": "/nothing"},
    }  # fmt: skip
    found = link.call("look", **asked)
    assert found["engine"] == {"info": {"ID": "engine"}, "gone": None}
    assert found["releases"] == {"v1.json": "one", "v2.json.staged": "two"}
    assert (len(found["journal"]), found["journal"][-3:]) == (16384, "end")
    assert (found["edge"], found["pems"]) == ({"a.conf": "server"}, ["a.pem"])
    assert (found["edge_answers"], found["answering"]) == (True, "v1-abc")
    assert found["srv"]["total"] > found["srv"]["free"] > 0
    page.answers["/"] = (404, "nobody")
    found = link.call("look", **asked)
    assert (found["edge_answers"], found["answering"]) == (True, None)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        check["port"] = closed.getsockname()[1]
    found = link.call("look", **{**asked, "journal": str(tmp_path / "none")})
    assert (found["edge_answers"], found["answering"], found["journal"]) == (False, None, "")


def test_sequences_of_calls_are_made_at_once_and_each_tells_its_last_answer(link: Link, server: an_engine.Engine) -> None:
    server.answers |= {"GET /info": {"ID": "engine"}, "POST /containers/a/start": b""}
    calls = [
        [["POST", "/containers/a/start", None, [304], 5.0], ["GET", "/info", None, [], 5.0]],
        [["POST", "/containers/a/start", {"x": 1}, [], 5.0]],
    ]
    assert link.call("engine", sequences=calls) == [{"ID": "engine"}, None]
    assert link.call("engine", sequences=[]) == []
    with pytest.raises(AgentError, match="404") as caught:
        link.call("engine", sequences=[[["POST", "/containers/b/start", None, [], 5.0]]])
    assert caught.value.kind == "EngineError"


def test_a_commands_code_and_words_and_a_containers_log_are_told(link: Link, server: an_engine.Engine) -> None:
    server.execs("web", lambda command: (3, " ".join(command)))
    server.answers["GET /containers/web/logs"] = framed("one\n", "zwei ü\n") + b"\x01\0"
    assert link.call("execute", container="web", command=["nginx", "-t"], timeout=5.0) == [3, "nginx -t"]
    assert link.call("logs", container="web", lines=40) == "one\nzwei ü"


def call(method: str, path: str) -> list[list[Any]]:
    return [[method, path, None, [], 5.0]]


def run(link: Link, timeout: float = 30.0) -> Any:
    begin, stop, end = (
        call("POST", "/containers/job/start"),
        call("POST", "/containers/job/stop"),
        call("DELETE", "/containers/job"),
    )
    return link.send("run", begin=begin, stop=stop, end=end, container="job", timeout=timeout)


@pytest.fixture
def job(server: an_engine.Engine) -> an_engine.Engine:
    server.container("job")
    server.answers |= {
        "POST /containers/job/start": b"", "POST /containers/job/stop": b"", "DELETE /containers/job": b"",
        "GET /containers/job/logs": framed("its last words\n"),
    }  # fmt: skip
    return server


def test_a_container_that_ran_to_its_end_is_removed_and_tells_how_it_ended(link: Link, job: an_engine.Engine) -> None:
    job.container("job", Status="exited", ExitCode=2)
    assert run(link).result(10) == {"code": 2, "said": "its last words"}
    assert job.asked[-1] == "DELETE /containers/job"
    assert "POST /containers/job/stop" not in job.asked


def test_one_that_does_not_end_is_stopped_and_removed_as_well(link: Link, job: an_engine.Engine) -> None:
    assert run(link, 0.0).result(10) == {"reason": "timeout", "said": "its last words"}
    assert job.asked[-2:] == ["POST /containers/job/stop", "DELETE /containers/job"]


def test_whoever_cancels_is_heard_while_another_operation_waits(link: Link, job: an_engine.Engine) -> None:
    waiting = run(link, 600.0)
    assert until(lambda: "GET /containers/job/json" in job.asked)
    link.cancel()
    assert waiting.result(10)["reason"] == "cancelled"
    link.call("resume")
    job.container("job", Status="exited")
    assert run(link).result(10)["code"] == 0


def test_where_it_cannot_even_begin_it_is_removed_and_the_reason_told(link: Link, job: an_engine.Engine) -> None:
    job.answers["POST /containers/job/start"] = 500
    with pytest.raises(AgentError, match="refused with 500"):
        run(link).result(10)
    assert job.asked[-2:] == ["POST /containers/job/stop", "DELETE /containers/job"]


def test_a_container_is_waited_for_there(link: Link, server: an_engine.Engine, page: Stack) -> None:
    server.container("web")
    page.answers["/health"] = "yes"
    wanted = {
        "container": "web",
        "address": "127.0.0.1",
        "port": page.server_port,
        "path": "/health",
        "host": "a.b",
        "successes": 1,
    }
    assert link.call("healthy", wanted=[wanted], then=[], timeout=10.0) == {"ok": True}
    assert link.call("answers", address="127.0.0.1", port=page.server_port, timeout=1.0)
    assert link.call("listening", container="web") == []
    assert link.call("workers_gone", edge="web", old=[], timeout=1.0)["ok"]


def probe(link: Link, page: Stack, **more: Any) -> None:
    asked = {"address": "127.0.0.1", "port": page.server_port, "host": "a.b", "path": "/", "interval": 0.005, **more}
    link.call("probe", **asked)


def test_what_users_see_is_counted_from_the_mark_on(link: Link, page: Stack) -> None:
    page.answers["/"] = "yes"
    link.call("probe_mark")
    assert link.call("probe_report", stop=True, minimum=1) is None, "nobody probes"
    probe(link, page)
    link.call("probe_mark")
    found = link.call("probe_report", stop=False, minimum=5)
    assert found["requests_since_mark"] >= 5
    assert not found["failures"]
    assert link.call("probe_report", stop=True, minimum=0)["requests"] >= found["requests"]


def test_a_report_does_not_wait_for_what_nobody_answers_once_it_is_cancelled(link: Link, page: Stack) -> None:
    page.answers["/"] = (500, "broken")
    probe(link, page, interval=60.0)
    waiting = link.send("probe_report", stop=True, minimum=1000)
    link.cancel()
    assert waiting.result(4)["requests"] < 1000


def test_nobodys_certificate_is_asked_for_on_the_port_of_tls(link: Link, tmp_path: Path) -> None:
    """The probe asks over loopback, where the edge's certificate is for another name."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                    "-subj", "/CN=other", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    try:
        page = Stack(("127.0.3.7", 443))
    except PermissionError:
        pytest.skip("only root listens on port 443")
    with page, ThreadPoolExecutor() as pool:
        page.socket = context.wrap_socket(page.socket, server_side=True)
        page.answers["/"] = "yes"
        pool.submit(page.serve_forever, 0.01)
        link.call("probe", address="127.0.3.7", port=443, host="a.b", path="/", interval=0.005)
        link.call("probe_mark")
        found = link.call("probe_report", stop=True, minimum=2)
        page.shutdown()
    assert found["requests_since_mark"] >= 2
    assert not found["failures"], found
