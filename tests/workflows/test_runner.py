"""The runner does with a job what GitHub does, as far as our workflows go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.actions import UnknownAction
from tests.workflows.expressions import Unknown
from tests.workflows.machines import Here
from tests.workflows.runner import REPOSITORY, Done, Forge, JobRun, Run, snapshot
from tests.workflows.workflows import ROOT, Job, job

NOX = ("noxfile.py", "pyproject.toml", "requirements/nox.txt")
CHECKOUT = {"name": "check out", "uses": "actions/checkout@1", "with": {"path": "app"}}


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    (tmp_path / "forge").mkdir()
    repository = snapshot(tmp_path / "repository", files=NOX)
    return Forge(tmp_path / "forge", {REPOSITORY: repository})


def run(forge: Forge, *steps: Mapping[str, Any], **more: Any) -> Done:
    """Run a job of these steps."""
    named = [{"name": str(nth), **step} for nth, step in enumerate(steps)]
    return JobRun(Run(forge, "trial"), Job("trial", "job", {"steps": named, **more}), Here(), {}).run()


def test_the_matrix_of_ci_is_what_nox_lists(forge: Forge) -> None:
    done = Run(forge, "ci", event="push").job("sessions", Here())
    assert done.result == "success", done.log
    sessions = [one["session"] for one in json.loads(done.outputs["matrix"])]
    assert {"lint", "types", "docs", "integration", "demo"} <= set(sessions)
    assert [name for name in sessions if name.startswith("tests-3.")]
    assert "coverage" not in sessions


def test_a_push_deploys_nowhere_unless_the_repository_says_where(forge: Forge) -> None:
    push = Run(forge, "deploy-api", event="push")
    assert push.job("image", Here()).result == "skipped"
    assert push.job("deploy", Here()).result == "skipped"


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ({"environment": "staging"}, True),
        ({"environment": "staging", "run": "7"}, False),
        ({"environment": "production"}, False),
        ({"environment": "production", "build": True}, True),
        ({"environment": "production", "run": "7", "build": True}, False),
    ],
)
def test_an_image_is_built_only_where_none_is_named_and_never_by_hand_for_production(
    inputs: dict[str, Any], wanted: bool, forge: Forge
) -> None:
    run = Run(forge, "deploy-api", inputs=inputs)
    job = JobRun(run, Job("deploy-api", "image", {"if": _condition("image"), "steps": []}), Here(), {})
    assert (job.run().result == "success") is wanted


class WithGh(Here):
    """This machine, with what stands in for GitHub's command line."""

    path = f"{ROOT / 'tests/workflows/machine'}:{Here.path}"


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
@pytest.mark.parametrize(
    ("told", "number", "taken"),
    [
        ({}, "{}", True),
        ({"conclusion": "failure"}, "{}", False),
        ({"head_branch": "feature"}, "{}", False),
        ({"head_repository": {"full_name": "stranger/fork"}}, "{}", False),
        ({"path": ".github/workflows/ci.yml"}, "{}", False),
        ({"head_sha": "f" * 40}, "{}", False),  # of a tag that is called like the branch
        ({}, "7/../{}", False),
        ({}, "7", False),
    ],
)
def test_only_a_run_of_this_workflow_on_this_branch_that_went_well_is_promoted(
    told: Mapping[str, Any], number: str, taken: bool, forge: Forge
) -> None:
    earlier = Run(forge, "deploy-api")
    earlier.close()
    known = forge.outcomes / f"{earlier.number}.json"
    known.write_text(json.dumps({**json.loads(known.read_text()), **told}))
    look = {"steps": job("deploy-api.deploy").steps[:1], "outputs": {"sha": "${{ steps.built.outputs.sha }}"}}
    later = Run(forge, "deploy-api", inputs={"run": number.format(earlier.number)})
    done = JobRun(later, Job("deploy-api", "deploy", look), WithGh(), {}).run()
    assert (done.result, done.outputs) == (("success", {"sha": earlier.sha}) if taken else ("failure", {})), done.log


def _condition(name: str) -> str:
    return str(job(f"deploy-api.{name}").data["if"])


def test_steps_after_a_failure_are_left_out_unless_they_say_otherwise(forge: Forge) -> None:
    done = run(forge, {"run": "echo one"}, {"run": "false\necho two"}, {"run": "echo three"},
               {"run": "echo four", "if": "${{ !cancelled() }}"})  # fmt: skip
    assert done.result == "failure"
    assert [word for word in ("one", "two", "three", "four") if f"{word}\n" in done.log] == ["one", "four"]


def test_outputs_and_the_summary_go_where_github_reads_them(forge: Forge) -> None:
    done = run(forge, {"id": "first", "run": 'echo "a=1=2" >> "$GITHUB_OUTPUT"; echo "## told" >> "$GITHUB_STEP_SUMMARY"'},
               {"run": 'echo "got $A"', "env": {"A": "${{ steps.first.outputs.a }}${{ steps.first.outputs.none }}"}},
               outputs={"a": "${{ steps.first.outputs.a }}"})  # fmt: skip
    assert (done.result, done.outputs, done.summary) == ("success", {"a": "1=2"}, "## told\n")
    assert "got 1=2\n" in done.log


def test_a_step_sees_nothing_of_this_machines_environment(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THIS_MACHINE", "x")
    done = run(forge, {"run": "env"}, env={"GIVEN": "${{ github.sha }}"})
    assert "SECRET_OF_THIS_MACHINE" not in done.log
    assert "GITHUB_ACTIONS=true" in done.log
    assert "GIVEN=" in done.log


def test_artifacts_go_from_one_run_to_another(forge: Forge) -> None:
    first = run(forge, {"run": "mkdir image .data; touch image/a .data/b"},
                {"uses": "actions/upload-artifact@1", "with": {"name": "image", "path": "image", "if-no-files-found": "error"}},
                {"uses": "actions/upload-artifact@1", "with": {"name": "hidden", "path": ".data"}},
                {"uses": "actions/upload-artifact@1", "with": {"name": "none", "path": "none-*"}})  # fmt: skip
    assert first.result == "success", first.log
    options = {"pattern": "*", "path": "got", "merge-multiple": True, "run-id": "1001"}
    second = run(forge, {"uses": "actions/download-artifact@1", "with": options}, {"run": "ls got"})
    assert "a\nb\n" in second.log


def test_an_artifact_that_must_be_there_and_is_not_fails_the_job(forge: Forge) -> None:
    upload = {"uses": "actions/upload-artifact@1", "with": {"name": "x", "path": "no", "if-no-files-found": "error"}}
    assert run(forge, upload).result == "failure"


def test_a_checkout_is_the_commit_and_nothing_else(forge: Forge) -> None:
    (forge.repositories[REPOSITORY] / "uncommitted").touch()
    done = run(forge, CHECKOUT, {"run": "ls; git log --oneline | wc -l", "working-directory": "app"})
    assert done.result == "success", done.log
    assert "uncommitted" not in done.log
    assert "noxfile.py" in done.log


def test_what_it_does_not_know_is_an_error(forge: Forge) -> None:
    for step in ({"uses": "someone/else@1"}, {**CHECKOUT, "with": {"submodules": "true"}}):
        with pytest.raises(UnknownAction):
            run(forge, step)
    with pytest.raises(Unknown):
        run(forge, {"run": "true", "env": {"A": "${{ hashFiles('x') }}"}})
    with pytest.raises(Unknown):
        run(forge, {"id": "x", "run": 'echo "a<<END" >> "$GITHUB_OUTPUT"'})


def test_a_run_is_told_of_as_githubs_api_does(forge: Forge) -> None:
    first = Run(forge, "deploy-api")
    first.jobs["deploy"] = Done("failure")
    first.close()
    told = json.loads((forge.outcomes / f"{first.number}.json").read_text())
    assert told == {"id": int(first.number), "conclusion": "failure", "head_sha": first.sha, "head_branch": "main",
                    "path": ".github/workflows/deploy-api.yml", "head_repository": {"full_name": REPOSITORY}}  # fmt: skip
