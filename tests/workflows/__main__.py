"""`python -m tests.workflows`: jobs of the workflows in a container, on the files as they stand; what `nox -s workflows` runs.

Without arguments: every job that needs neither a server of yours nor GitHub, each after those that it needs. Those that deploy
are run against servers in containers by tests/integration/test_workflow_deploys.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.workflows.machines import LeftOut, container
from tests.workflows.runner import REPOSITORY, Done, Forge, Run, snapshot
from tests.workflows.workflows import job

USUAL = ("ci.sessions", "ci.nox", "ci.image")
QUICK = ("lint", "types", "docs")  # of the sessions: the others take minutes each, and are the same in a container


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.workflows", description="Run jobs of the workflows here.")
    parser.add_argument("--job", action="append", help="WORKFLOW.JOB, such as ci.image; may be given several times")
    parser.add_argument("--session", action="append", help=f"of ci.nox only these (default: {', '.join(QUICK)})")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tidegate-workflows-") as folder:
        forge = Forge(Path(folder), {REPOSITORY: snapshot(Path(folder, "repository"))})
        ended = [_run(forge, id, options.session or QUICK) for id in options.job or USUAL]
    return 0 if all(ended) else 1


def _run(forge: Forge, id: str, sessions: Sequence[str]) -> bool:
    """Run a job after those it needs; say how long it took and how it ended."""
    wanted = job(id)
    run = Run(forge, wanted.workflow, event="push", on_line=lambda line: print(f"  {line}", end="", flush=True))
    names = [*wanted.needs, wanted.name]
    ended = [_told(forge, run, name, matrix) for name in names for matrix in _matrix(run, name, sessions)]
    return all(ended)


def _matrix(run: Run, name: str, sessions: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    if (run.name, name) != ("ci", "nox"):
        return iter(({},))
    listed = json.loads(run.jobs["sessions"].outputs["matrix"])
    return iter([one for one in listed if one["session"] in sessions])


def _told(forge: Forge, run: Run, name: str, matrix: Mapping[str, Any]) -> bool:
    began, label = time.monotonic(), " ".join(filter(None, [f"{run.name}.{name}", matrix.get("session")]))
    try:
        with container(forge.folder) as machine:
            done = run.job(name, machine, matrix)
    except LeftOut as reason:
        done = run.jobs[name] = Done(f"left out: {reason}")
    print(f"{label}: {done.result} after {time.monotonic() - began:.0f} s", flush=True)
    return done.result != "failure"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
