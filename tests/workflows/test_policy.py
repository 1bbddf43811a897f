"""What holds of every workflow: pinned, without rights it does not use, and with no commands of its own."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from invoke.exceptions import ParseError
from invoke.parser import Parser, ParserContext
from invoke.program import Program

import tasks
from tests.workflows.workflows import FILES, ROOT, Job, job, jobs, load, workflow

JOBS = list(jobs())
TASKS = ("inv", "nox")
# Beside these two: what installs them, and how the one job that proposes a change does it.
INSTALLS = re.compile(r"pip install --require-hashes -r (?:\.\./tidegate/)?(requirements/\w+\.txt)")
ELSE = {"deploy-api.deploy": ["sha=$", "status=$", "gh", ":", "echo"], "ci.sessions": ["matrix=$", "echo"],
        "digests.digests": ["git", "gh", "grep", "exit"]}  # fmt: skip
WRITES = {"digests.digests": {"contents": "write", "pull-requests": "write"}}

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
every_job = pytest.mark.parametrize("job", JOBS, ids=lambda job: job.id)


def runs(job: Job) -> list[str]:
    """Return the scripts of a job."""
    return [step["run"] for step in job.steps if "run" in step]


def first_words(script: str) -> list[str]:
    """Return the first word of each command of a script: of those on one line, in a pipe, in `$(…)` and behind shell's words."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars="();&|<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found, begins = [], True
    for word in lexer:
        hidden = "$(" in word or "`" in word  # within quotes
        if set(word) <= set("();&|<>\n"):
            begins = begins or bool(set(word) - set("<>"))
        elif hidden or (begins and not re.fullmatch(r"exec|timeout|\d+m", word)):
            found.append(word)
            begins = False
    return found


def commands() -> list[list[str]]:
    """Return every inv command in the workflows."""
    lines = [line for job in JOBS for script in runs(job) for line in script.splitlines()]
    found = [re.sub(r"^exec (timeout \w+ )?", "", line) for line in lines]
    return [shlex.split(line.replace("${APPROVED:+--yes}", "--yes")) for line in found if line.startswith("inv ")]


@every_file
def test_actions_are_pinned_by_commit_with_their_version_beside_it(file: Path) -> None:
    used = re.findall(r"uses: (.*)", file.read_text())
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


def test_an_action_has_one_version_everywhere() -> None:
    used = {found for file in FILES for found in re.findall(r"uses: (\S+)@(\S+)", file.read_text())}
    assert len(used) == len({name for name, _ in used})


@every_file
def test_a_workflow_as_such_may_do_nothing(file: Path) -> None:
    assert load(file.read_text())["permissions"] == {}


@every_job
def test_a_job_may_only_read_unless_writing_is_its_purpose(job: Job) -> None:
    granted = job.data["permissions"]
    assert granted == WRITES.get(job.id, dict.fromkeys(granted, "read"))


@every_job
def test_every_checkout_forgets_its_credentials(job: Job) -> None:
    checkouts = [step for step in job.steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@every_job
def test_a_job_ends_by_itself(job: Job) -> None:
    assert 0 < job.data["timeout-minutes"] <= 180


@every_file
def test_runs_do_not_trample_on_each_other(file: Path) -> None:
    found = load(file.read_text())
    assert "concurrency" in found or all("concurrency" in one for one in found["jobs"].values())


@every_file
def test_nothing_runs_with_rights_for_what_strangers_send(file: Path) -> None:
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(load(file.read_text())["on"])
    assert "secrets: inherit" not in file.read_text()


@every_job
def test_no_value_is_pasted_into_a_script(job: Job) -> None:
    assert [script for script in runs(job) if "${{" in script] == []


@every_job
def test_scripts_only_call_what_people_type(job: Job) -> None:
    allowed = [*TASKS, *ELSE.get(job.id, [])]
    scripts = [script for script in runs(job) if not INSTALLS.fullmatch(script.strip())]
    assert [script for script in scripts for word in first_words(script) if word not in allowed] == []


@pytest.mark.parametrize("hidden", ["if true; then evil; fi", "  evil", "inv deploy\n  | evil", 'inv "$(evil)"', "inv `evil`", "X=1 evil",
                                    "inv a && evil", "exec timeout 5m evil", "inv a; evil", "inv a $(evil)", "nox\nevil"])  # fmt: skip
def test_no_command_hides_in_a_script(hidden: str) -> None:
    assert set(first_words(hidden)) - set(TASKS)


def test_every_inv_command_names_a_task_and_options_that_exist() -> None:
    assert len(commands()) > 8
    program = Program()
    initial = ParserContext(args=[*program.core_args(), *program.task_args()])
    contexts, wrong = tasks.namespace.to_contexts(), []
    for words in commands():
        try:
            Parser(initial=initial, contexts=contexts).parse_argv(words[1:])
        except ParseError as error:
            wrong.append(f"{shlex.join(words)}: {error}")
    assert wrong == []


def test_every_lock_that_is_installed_exists() -> None:
    named = {found[1] for job in JOBS for script in runs(job) if (found := INSTALLS.fullmatch(script.strip()))}
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_a_push_deploys_only_when_what_is_deployed_has_changed() -> None:
    on = workflow("deploy-api")["on"]
    assert on["push"]["branches"] == ["main"]
    paths = on["push"]["paths"]
    assert [path for path in paths if path != "known_hosts" and not (ROOT / path.removesuffix("/**")).exists()] == []
    assert {"ops.toml", "example/**", "docker/Dockerfile"} <= set(paths)


def test_what_holds_secrets_uses_no_cache_and_belongs_to_an_environment() -> None:
    holders = [one for one in JOBS if "secrets." in str(one.data)]
    assert {one.id for one in holders} == {"deploy-api.deploy", "maintenance.backups"}
    for one in holders:
        assert "environment" in one.data
        assert "cache" not in str(one.steps)


def test_one_job_deploys_and_nobody_cancels_it() -> None:
    deploy = job("deploy-api.deploy")
    assert deploy.data["concurrency"]["cancel-in-progress"] is False
    assert "inputs.environment || vars.STAGING" in deploy.data["concurrency"]["group"]
    (script,) = [script for script in runs(deploy) if "inv deploy" in script]
    (minutes,) = re.findall(r"^exec timeout (\d+)m ", script)
    assert int(minutes) + 15 <= deploy.data["timeout-minutes"], "the deploy is asked to end, and then needs time to undo"


def test_every_session_of_nox_runs_once_in_ci() -> None:
    tagged, default = sessions()
    scripts = [script for one in JOBS if one.workflow == "ci" for script in runs(one)]
    (left_out,) = [word for script in scripts for word in re.findall(r'--tags ci --keywords "not (\w+)"', script)]
    named = [word for script in scripts for word in re.findall(r"nox -s (\w+)", script)]
    assert sorted([*(tagged - {left_out}), *named]) == sorted(tagged | {"audit"})
    assert default <= tagged


def sessions() -> tuple[set[str], set[str]]:
    """Return the sessions with tag ci and those that run by default, as noxfile.py declares them."""
    functions = [node for node in ast.parse((ROOT / "noxfile.py").read_text()).body if isinstance(node, ast.FunctionDef)]
    marks = {
        one.name: ast.unparse(mark) for one in functions for mark in one.decorator_list if "nox.session" in ast.unparse(mark)
    }
    return {name for name, mark in marks.items() if "'ci'" in mark}, {
        name for name, mark in marks.items() if "default=False" not in mark
    }


def test_what_waits_or_is_cancelled_is_of_the_same_kind() -> None:
    ci = workflow("ci")["concurrency"]
    assert "github.event_name" in ci["group"]
    assert ci["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    assert "inputs.environment || vars.BACKUPS_OF" in workflow("maintenance")["concurrency"]["group"]


def test_only_the_default_branch_proposes_digests() -> None:
    assert job("digests.digests").data["if"] == "github.ref_name == github.event.repository.default_branch"
