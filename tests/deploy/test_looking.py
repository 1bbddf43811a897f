"""Status, history, logs and one-off commands of a server that is this machine, as the tasks show them."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import inspect
from deploy import tasks as deploys
from ops.errors import Failed
from ops.names import LABEL_RELEASE
from tests.deploy.a_project import Project, a_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Project]:
    with a_project(tmp_path, monkeypatch, capsys) as found:
        yield found


def web(project: Project, release: str = "v1") -> str:
    """Return the name of a release's container."""
    return next(name for name in project.here.engine.boxes if name.endswith(f"_{release}"))


def test_status_tells_what_serves_and_what_a_rollback_can_go_to(project: Project) -> None:
    assert "nothing runs" in project.run(deploys.status)
    project.deploy("v1")
    project.deploy("v2")
    said = project.run(deploys.status)
    assert "kept for a rollback: v1" in said
    found = json.loads(project.run(deploys.status, json=True))
    assert (found["kept"], found["drift"], found["unreachable"]) == (["v1"], "", [])
    (row,) = found["servers"]
    assert (row["server"], row["process"], row["version"], row["note"]) == ("deploy@server.invalid", "web", "v2", "serves")


def test_status_tells_of_an_nginx_that_answers_otherwise_and_of_what_a_dead_deploy_left(project: Project) -> None:
    project.deploy("v1")
    left = project.here.engine.add(
        "blog_web_v0", Labels={**project.here.engine.boxes[web(project)].body["Labels"], LABEL_RELEASE: "v0"}
    )
    assert left.status == "running"
    said = project.run(deploys.status)
    assert "left by a deploy that did not finish" in said
    project.here.edge.heads = [{**head, "generation": "v1-otherwise"} for head in project.here.edge.heads]
    assert "nginx answers with another generation: deploy again" in project.run(deploys.status)


def test_status_tells_what_it_knows_and_which_server_cannot_be_reached(project: Project) -> None:
    project.deploy("v1")
    project.here.engine.answers["GET /version"] = 500
    said = project.refused(deploys.status, 3)
    assert "deploy@server.invalid: the engine does not answer" in said
    assert "500" in said
    assert "server.bootstrap -e test" in said


def test_servers_that_serve_different_releases_are_told(project: Project) -> None:
    project.deploy("v1")
    (state,), _ = inspect.observe(project.here.env)
    other = replace(state, host="two", edge=replace(state.edge, answering=None, release=None))
    assert inspect.drift([state]) == ""
    assert inspect.drift([state, other]) == "servers differ: deploy@server.invalid serves v1, two serves nothing"
    assert inspect.kept([]) == []


def test_history_tells_the_newest_first_and_what_never_finished(project: Project) -> None:
    project.deploy("v1")
    journal = project.here.home / "blog/journal.jsonl"
    head = {"operation": "x", "kind": "deploy", "release": "v3", "by": "ann"}
    with journal.open("a") as file:
        file.write(json.dumps({"time": "2999-01-01T00:00:00", "event": "begin", **head}) + "\n")
        file.write(json.dumps({"time": "2999-01-01T00:00:01", "event": "end", **head, "operation": "of nobody"}) + "\nhalf a li")
    found = json.loads(project.run(deploys.history, json=True))
    assert [(one["release"], one["result"]) for one in found] == [("v3", "never finished"), ("v1", "done")]
    said = project.run(deploys.history, number=1)
    assert "never finished" in said
    assert "v1" not in said


def test_the_logs_are_those_of_the_serving_container_line_by_line(project: Project) -> None:
    project.deploy("v1")
    project.here.engine.boxes[web(project)].words = "GET / 200\nGET /é 404\nhalf a line"
    assert project.run(deploys.logs) == "GET / 200\nGET /é 404\nhalf a line\n"
    project.here.engine.boxes[web(project)].words = "whole\n"
    assert project.run(deploys.logs) == "whole\n"


def test_logs_of_a_process_that_does_not_serve_are_refused_and_those_that_do_are_named(project: Project) -> None:
    project.deploy("v1")
    said = project.refused(deploys.logs, 3, process="worker")
    assert "no worker process serves" in said
    assert "processes of the serving release: web" in said


def test_a_log_that_breaks_off_is_told_from_one_that_ends(project: Project) -> None:
    project.deploy("v1")
    project.here.engine.answers[f"GET /containers/{web(project)}/logs"] = 500
    with pytest.raises(Failed, match="the log broke off") as caught:
        inspect.logs(project.here.env, "web", 10, follow=False, show=lambda *_: None)
    assert (caught.value.where, caught.value.fix) == ("deploy@server.invalid", "inv deploy.status shows what runs")


def test_logs_of_several_servers_say_whose_they_are(project: Project) -> None:
    project.deploy("v1")
    project.here.engine.boxes[web(project)].words = "hello\n"
    text = (project.here.home.parent / "ops.toml").read_text()
    (project.here.home.parent / "ops.toml").write_text(text.replace("hosts = [", 'hosts = ["deploy@other.invalid", '))
    assert sorted(project.run(deploys.logs).split("\n")) == ["", "deploy@other.invalid: hello", "deploy@server.invalid: hello"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDK leaves the socket of a command to the garbage collector
def test_a_command_is_run_in_the_serving_container_and_its_exit_code_is_ours(project: Project) -> None:
    project.deploy("v1")
    ran: list[list[str]] = []

    def answer(words: list[str]) -> tuple[int, str]:
        ran.append(words)
        return len(ran) - 1, "two tables\n"

    project.here.engine.execs_said = answer
    assert project.run(deploys.exec_, command="manage 'my tables'") == "two tables\n"
    assert "it ended with exit code 1" in project.refused(deploys.exec_, 1, command="manage 'my tables'")
    assert ran == [["manage", "my tables"]] * 2
    gc.collect()
