"""What actions of GitHub do, done here: only those, and only those of their options, that our workflows use."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests.workflows.machines import Machine


@dataclass(frozen=True)
class Site:
    """Where an action is at work: the job's machine and folders, the repositories and the artifacts of all runs."""

    machine: Machine
    workspace: Path
    python: Path
    repositories: Mapping[str, Path]
    repository: str
    sha: str
    artifacts: Path
    run: str


With = Mapping[str, str]
Action = Callable[[Site, With], None]


class UnknownAction(Exception):
    """A workflow uses something that has no equivalent here."""


def perform(uses: str, options: With, site: Site) -> None:
    """Do what an action does. Raises UnknownAction, LeftOut, OSError, CalledProcessError."""
    name = uses.partition("@")[0]
    if name not in ACTIONS:
        raise UnknownAction(uses)
    action, known = ACTIONS[name]
    if more := set(options) - known:
        raise UnknownAction(f"{uses} with {', '.join(sorted(more))}")
    action(site, options)


def _checkout(site: Site, options: With) -> None:
    source = site.repositories[options.get("repository") or site.repository]
    target = site.workspace / options.get("path", ".")
    subprocess.run(["git", "init", "--quiet", target], check=True)
    git = ["git", "-C", str(target)]
    depth = [f"--depth={wanted}"] if (wanted := options.get("fetch-depth", "1")) != "0" else []
    subprocess.run([*git, "fetch", "--quiet", *depth, f"file://{source}", options.get("ref") or site.sha], check=True)
    subprocess.run([*git, "checkout", "--quiet", "--force", "FETCH_HEAD"], check=True)


def _setup_python(site: Site, options: With) -> None:
    site.machine.make_python(options["python-version"], site.python)


def _upload(site: Site, options: With) -> None:
    base, files = _found(site.workspace, options["path"])
    if options.get("include-hidden-files") != "true":
        files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(base).parts)]
    if not files and options.get("if-no-files-found") == "error":
        raise FileNotFoundError(f"no files were found at {options['path']}")
    for file in files:
        target = site.artifacts / site.run / options["name"] / file.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _found(workspace: Path, pattern: str) -> tuple[Path, list[Path]]:
    path = workspace / pattern
    if path.is_dir():
        return path, [file for file in path.rglob("*") if file.is_file()]
    return path.parent, sorted(file for file in path.parent.glob(path.name) if file.is_file())


def _download(site: Site, options: With) -> None:
    if options.get("merge-multiple") != "true":
        raise UnknownAction("download-artifact without merge-multiple")
    run = site.artifacts / (options.get("run-id") or site.run)
    for artifact in sorted(run.iterdir()) if run.is_dir() else []:
        if fnmatch(artifact.name, options["pattern"]):
            shutil.copytree(artifact, site.workspace / options.get("path", "."), dirs_exist_ok=True)


ACTIONS: Mapping[str, tuple[Action, set[str]]] = {
    "actions/checkout": (_checkout, {"repository", "ref", "path", "persist-credentials", "fetch-depth"}),
    "actions/setup-python": (_setup_python, {"python-version", "cache", "cache-dependency-path"}),
    "actions/upload-artifact": (_upload, {"name", "path", "include-hidden-files", "if-no-files-found", "retention-days"}),
    "actions/download-artifact": (_download, {"pattern", "path", "merge-multiple", "run-id", "github-token"}),
}
