"""Runs the jobs of a workflow here: `run` steps for real, actions by what does the same, GitHub by what they need of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.workflows import expressions
from tests.workflows.actions import Site, perform
from tests.workflows.expressions import Known
from tests.workflows.machines import Machine
from tests.workflows.workflows import ROOT, Job, workflow

REPOSITORY, BRANCH = "owner/repository", "main"
_HOSTED = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_REF_NAME": BRANCH,
           "GITHUB_SERVER_URL": "https://github.com"}  # fmt: skip


@dataclass
class Done:
    """How a job ended: success, failure or skipped."""

    result: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    summary: str = ""


@dataclass
class Forge:
    """What GitHub keeps: repositories, and the artifacts and outcomes of runs, in a folder."""

    folder: Path
    repositories: Mapping[str, Path]
    runs: int = 0

    @property
    def artifacts(self) -> Path:
        """Where artifacts are, by run and name."""
        return self.folder / "artifacts"

    @property
    def outcomes(self) -> Path:
        """Where outcomes of runs are, as GitHub's API tells of them."""
        return self.folder / "runs"


@dataclass
class Run:
    """A run of a workflow for one event."""

    forge: Forge
    name: str
    event: str = "workflow_dispatch"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    on_line: Callable[[str], None] = lambda _: None
    jobs: dict[str, Done] = field(default_factory=dict)
    number: str = ""
    sha: str = ""

    def __post_init__(self) -> None:
        self.forge.runs += 1
        self.number = self.number or str(1000 + self.forge.runs)
        head = ["git", "-C", str(self.forge.repositories[REPOSITORY]), "rev-parse", "HEAD"]
        self.sha = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        self.forge.outcomes.mkdir(parents=True, exist_ok=True)
        on_branch = subprocess.run([*head[:3], "rev-list", "HEAD"], capture_output=True, text=True, check=True).stdout
        (self.forge.outcomes / "commits").write_text(on_branch)

    def job(self, name: str, machine: Machine, matrix: Mapping[str, Any] | None = None) -> Done:
        """Run one job after those it needs, and remember how it ended."""
        data = workflow(self.name)["jobs"][name]
        done = JobRun(self, Job(self.name, name, data), machine, matrix or {}).run()
        self.jobs[name] = done
        return done

    def close(self) -> None:
        """Let the forge tell of this run."""
        went_well = all(done.result != "failure" for done in self.jobs.values())
        about = {"id": int(self.number), "conclusion": "success" if went_well else "failure", "head_sha": self.sha,
                 "head_branch": BRANCH, "path": f".github/workflows/{self.name}.yml",
                 "head_repository": {"full_name": REPOSITORY}}  # fmt: skip
        (self.forge.outcomes / f"{self.number}.json").write_text(json.dumps(about))


@dataclass
class JobRun:
    """A job of a run, at work."""

    run_: Run
    job: Job
    machine: Machine
    matrix: Mapping[str, Any]
    failed: bool = False
    steps: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def run(self) -> Done:
        """Run the steps, and tell how it ended. Raises Unknown, UnknownAction, LeftOut."""
        if not self._wanted():
            return Done("skipped")
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=self.run_.forge.folder))
        self.workspace, self.temp = folder / "workspace", folder / "temp"
        self.workspace.mkdir()
        self.temp.mkdir()
        try:
            for step in self.job.steps:
                self._step(step)
            outputs = {name: expressions.filled(text, self._known()) for name, text in self.job.data.get("outputs", {}).items()}
            summary = self.temp / "summary"
            told = summary.read_text() if summary.exists() else ""
            return Done("failure" if self.failed else "success", outputs if not self.failed else {}, "".join(self.log), told)
        finally:
            shutil.rmtree(folder)

    def _wanted(self) -> bool:
        needed = [self.run_.jobs[name].result for name in self.job.needs]
        functions = {
            "success": lambda: all(one == "success" for one in needed),
            "failure": lambda: "failure" in needed,
            "cancelled": lambda: False,
        }
        return expressions.condition(str(self.job.data.get("if", "true")), Known(self._contexts(), functions))

    def _known(self) -> Known:
        functions = {"success": lambda: not self.failed, "failure": lambda: self.failed, "cancelled": lambda: False}
        return Known(self._contexts(), functions)

    def _contexts(self) -> dict[str, Any]:
        run = self.run_
        github = {"sha": run.sha, "ref": f"refs/heads/{BRANCH}", "repository": REPOSITORY, "run_id": run.number, "token": "none",
                  "workflow": run.name, "event_name": run.event}  # fmt: skip
        needs = {name: {"result": done.result, "outputs": done.outputs} for name, done in run.jobs.items()}
        return {"github": github, "inputs": run.inputs, "vars": run.variables, "secrets": run.secrets, "needs": needs,
                "matrix": self.matrix, "steps": self.steps}  # fmt: skip

    def _step(self, step: Mapping[str, Any]) -> None:
        if "id" in step:
            self.steps[step["id"]] = {"outputs": _Outputs()}
        if not expressions.condition(str(step.get("if", "true")), self._known()):
            return
        self._say(f"── {self.job.id}: {step['name']}\n")
        try:
            worked = self._uses(step) if "uses" in step else self._run(step)
        except (OSError, subprocess.CalledProcessError) as error:
            self._say(f"{error}\n")
            worked = False
        self.failed = self.failed or not worked

    def _say(self, line: str) -> None:
        self.log.append(line)
        self.run_.on_line(line)

    def _uses(self, step: Mapping[str, Any]) -> bool:
        options = {
            name: expressions.written(expressions.value(text, self._known())) for name, text in step.get("with", {}).items()
        }
        run = self.run_
        site = Site(self.machine, self.workspace, self.temp / "python", run.forge.repositories, REPOSITORY, run.sha,
                    run.forge.artifacts, run.number)  # fmt: skip
        perform(step["uses"], options, site)
        return True

    def _run(self, step: Mapping[str, Any]) -> bool:
        script = self.temp / "script.sh"
        script.write_text(expressions.filled(step["run"], self._known()))
        (self.temp / "output").write_text("")
        default = self.job.data.get("defaults", {}).get("run", {}).get("working-directory", ".")
        folder = self.workspace / step.get("working-directory", default)
        process = self.machine.start(["bash", "-e", str(script)], folder, self._env(step))
        with process:
            for line in process.stdout or ():
                if not line.startswith("::add-mask::"):  # GitHub shows no value there either
                    self._say(line)
        if "id" in step:
            self.steps[step["id"]]["outputs"].update(_outputs((self.temp / "output").read_text()))
        return process.returncode == 0

    def _env(self, step: Mapping[str, Any]) -> dict[str, str]:
        given = {**self.job.data.get("env", {}), **step.get("env", {})}
        filled = {name: expressions.written(expressions.value(text, self._known())) for name, text in given.items()}
        own = {
            "HOME": str(self.temp), "PATH": f"{self.temp}/python/bin:{self.machine.path}", "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(self.temp / "output"), "GITHUB_STEP_SUMMARY": str(self.temp / "summary"),
            "GITHUB_WORKSPACE": str(self.workspace), "GITHUB_SHA": self.run_.sha, "GITHUB_RUN_ID": self.run_.number,
            "GITHUB_WORKFLOW_REF": f"{REPOSITORY}/.github/workflows/{self.run_.name}.yml@refs/heads/{BRANCH}",
            "LOCAL_RUNS": str(self.run_.forge.outcomes), "PIP_CACHE_DIR": str(self.run_.forge.folder / "pip"),
            "PIP_NO_COMPILE": "1",
        }  # fmt: skip
        return {**_HOSTED, **own, **filled}


class _Outputs(dict[str, str]):
    """A step's outputs: one that it did not set is empty."""

    def __contains__(self, name: object) -> bool:
        return True


def _outputs(text: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in text.splitlines()]
    if any(not sign or "<<" in name for name, sign, _ in pairs):
        raise expressions.Unknown(f"outputs of more than one line: {text!r}")
    return {name: value for name, _, value in pairs}


def snapshot(target: Path, change: Callable[[Path], None] = lambda _: None, files: Iterable[str] = ()) -> Path:
    """Make a repository of one commit from the files of this one as they stand, tracked or new, after a change."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = list(files) or subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    change(target)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", BRANCH, target], check=True)
    commit(target, "as it stands")
    return target


def commit(repository: Path, message: str) -> None:
    """Commit all that there is."""
    git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", message], check=True)
