"""The commands beside a plain deploy: what they print, and that looking changes nothing."""

from __future__ import annotations

import json

import pytest

from tests.integration.project import App

pytestmark = pytest.mark.integration


def release(app: App, change: str, *words: str) -> str:
    """Deploy a configuration that differs and return its release."""
    app.configure(environment={"BEHAVIOUR": "healthy", "CHANGE": change})
    return str(app.deploy(*words).document["release"])


def only(values: list[str]) -> str:
    """Return the one value that all servers agree on."""
    (value,) = set(values)
    return value


def test_a_dry_run_shows_every_step_with_its_reason_and_changes_nothing(shaky: App) -> None:
    shaky.configure(environment={"BEHAVIOUR": "healthy", "CHANGE": "planned"})
    before = [server.look(journals=True) for server in shaky.servers]
    for words in (["deploy"], ["deploy", "--force"], ["deploy.prune"]):
        document = shaky.inv(*words, "--dry-run", "--json").document
        assert all(step["why"] and step["step"] and step["server"] for step in document["steps"])
        assert document["refusals"] == []
    plan = shaky.inv("deploy", "--dry-run").said
    assert "nothing was changed" in plan
    assert [word for word in ("start", "healthy", "switch", "verify", "drain") if word not in plan] == []
    assert [server.look(journals=True) for server in shaky.servers] == before


def test_an_unchanged_deploy_says_so_and_force_restarts(shaky: App) -> None:
    before, serving = shaky.look(), only(shaky.serving())
    done = shaky.deploy()
    assert done.document["result"] == "unchanged"
    assert "nothing to do" in done.err
    assert shaky.look() == before
    with shaky.users() as users:
        forced = shaky.deploy("--force").document
    users.nobody_noticed()
    assert forced["version"] == done.document["version"]
    assert only(shaky.serving()) == forced["release"] != serving


def test_status_tells_what_serves_and_history_what_happened(shaky: App) -> None:
    new = release(shaky, "seen")
    status = shaky.inv("deploy.status", "--json").document
    assert {row["release"] for row in status["servers"]} == {new}
    assert sorted(row["process"] for row in status["servers"]) == ["web", "web", "worker", "worker"]
    assert status["drift"] == ""
    assert status["unreachable"] == []
    assert new not in status["kept"]
    assert new in shaky.inv("deploy.status").out
    newest = shaky.inv("deploy.history", "--json", "--number", "2").document
    assert [(one["release"], one["kind"], one["result"], one["failures"]) for one in newest] == 2 * [(new, "deploy", "done", 0)]
    assert all(one["seconds"] > 0 and one["by"] for one in newest)


@pytest.mark.slow
def test_drift_between_servers_is_shown_and_the_next_deploy_ends_it(shaky: App) -> None:
    old, new = only(shaky.serving()), release(shaky, "drift")
    everything = shaky.config.read_text()
    environment = shaky.root / ".tidegate/environments/sandbox.toml"
    both = environment.read_text()
    lines = both.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if "{ address" in line)
    environment.write_text("".join(lines[:first] + lines[first + 1 :]))
    try:
        shaky.inv("deploy.rollback", "--to", old)
    finally:
        environment.write_text(both)
    assert shaky.serving() == [new, old]
    status = shaky.inv("deploy.status", "--json").document
    assert old in status["drift"]
    assert new in status["drift"]
    shaky.config.write_text(everything)
    assert only(shaky.serving()) if shaky.deploy().document["result"] == "done" else False


def test_logs_and_exec_reach_the_serving_containers(shaky: App) -> None:
    said = shaky.inv("deploy.logs").out.splitlines()
    assert len([line for line in said if "healthy: listening on 3000" in line]) == 2
    worker = shaky.inv("deploy.logs", "--process", "worker", "--tail", "1").out
    assert worker.count("worker: working") == 2
    assert shaky.inv("deploy.exec", "echo 'two  words' '$HOME'").out == "two  words $HOME\n"
    assert "exit code 7" in shaky.inv("deploy.exec", "sh -c 'exit 7'", code=7).said
    assert "processes of the serving release: web, worker" in shaky.inv("deploy.exec", "true", "--process", "none", code=3).said


def test_pruning_keeps_what_serves_and_what_a_rollback_needs(shaky: App) -> None:
    shaky.configure()
    names = [release(shaky, f"kept {number}") for number in range(3)]
    shaky.configure(environment={"BEHAVIOUR": "healthy", "CHANGE": "kept 2"}, keep_releases=2)
    shaky.inv("deploy.prune")
    there = {f"{shaky.name}_{process}_{one}" for process in ("web", "worker") for one in names[1:]}
    assert [set(one) for one in shaky.containers()] == [there, there]
    assert shaky.inv("deploy.status", "--json").document["kept"] == [names[1]]
    back = shaky.inv("deploy.rollback", "--to", names[1], "--json").document
    assert back["release"] == only(shaky.serving()) == names[1]
    assert shaky.inv("deploy.exec", "printenv CHANGE").out == "kept 1\n"
    shaky.inv("deploy.rollback", code=3)
    assert only(shaky.serving()) == names[1]


@pytest.mark.slow
def test_pruning_after_a_rollback_keeps_what_the_next_rollback_needs(shaky: App) -> None:
    names = [release(shaky, f"line {number}") for number in range(4)]
    shaky.inv("deploy.rollback", "--to", names[1])
    shaky.configure(keep_releases=2)
    shaky.inv("deploy.prune")
    assert only(shaky.serving()) == names[1]
    assert shaky.inv("deploy.rollback", "--json").document["release"] == names[0]


@pytest.mark.slow
def test_a_rollback_to_a_named_release_brings_its_own_environment_back(shaky: App) -> None:
    first = release(shaky, "the first")
    second = release(shaky, "the second")
    shaky.configure(environment={"BEHAVIOUR": "unhealthy", "CHANGE": "none of them"}, health={"path": "/health?new"})
    with shaky.users() as users:
        for wanted, value in ((first, "the first"), (second, "the second")):
            done = shaky.inv("deploy.rollback", "--to", wanted, "--json").document
            assert done["release"] == only(shaky.serving()) == wanted
            assert shaky.inv("deploy.exec", "printenv CHANGE").out == f"{value}\n"
            print(f"rollback in {done['seconds']} s")
    users.nobody_noticed()
    refused = shaky.inv("deploy.rollback", "--json", "--to", "never-was", code=3)
    assert "no kept release never-was" in refused.document["cause"]
    assert second in refused.document["cause"]


@pytest.mark.slow
def test_a_health_path_that_changes_with_the_release_fails_nobody_in_either_direction(shaky: App) -> None:
    shaky.configure(environment={"BEHAVIOUR": "broken_pages"})  # answers /health and nothing else
    old = shaky.deploy().document["release"]
    shaky.configure(health={"path": "/elsewhere", "timeout": "20s"})
    with shaky.users() as users:
        done = [shaky.deploy().document, shaky.inv("deploy.rollback", "--json").document]
    users.nobody_noticed()
    assert only(shaky.serving()) == old
    assert not [probe for one in done for probe in one["probes"].values() if probe["failures"]]


def test_every_json_answer_is_one_document(shaky: App) -> None:
    for words in ("server.check", "config.show", "sandbox.status", "deploy.prune"):
        json.loads(shaky.inv(words, "--json").out)
    error = shaky.inv("deploy", "--json", "--env", "nowhere", code=2)
    assert error.document["exit_code"] == 2
    assert "nowhere" in error.document["error"]
    assert shaky.inv("deploy", "--json", "--version", "; touch /tmp/pwned", code=2).document["exit_code"] == 2
