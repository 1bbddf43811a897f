"""Readying an engine for real: on a fresh Debian 13 without systemd, as root."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from deploy.sandbox import Sandbox
from ops.this_machine import local_client

pytestmark = [pytest.mark.integration, pytest.mark.slow]
engine = cache(local_client)  # asked for by a test, never while tests are collected: there may be no engine yet
REPOSITORY = Path(__file__).resolve().parents[2]
ENSURE = "python3 -c 'from ops.local_engine import ensure; ensure(print)'"


class Machine:
    """A fresh machine on which our own code runs as root."""

    def __init__(self, container: str) -> None:
        self._container = container

    def run(self, script: str) -> str:
        """Run a shell script in the folder of our code; fails with its output."""
        run = engine().api.exec_create(self._container, ["bash", "-c", script], workdir="/opt")["Id"]
        output = engine().api.exec_start(run).decode()
        assert engine().api.exec_inspect(run)["ExitCode"] == 0, output
        return output

    def stop_engine(self, signal: str) -> None:
        """Signal the engine and wait until its process is gone."""
        gone = "while kill -0 $pid; do sleep 0.05; done"
        self.run(f"pid=$(cat /run/docker.pid); kill -{signal} $pid; {gone}")

    def install(self) -> None:
        """Bring our code there, and the Python that it needs."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for package in ("deploy", "ops"):
                archive.add(REPOSITORY / package, package)
        engine().api.put_archive(self._container, "/opt", buffer.getvalue())
        self.run("apt-get update -q && apt-get install -yq --no-install-recommends python3")
        self.run("touch /run/engine-stays-down")  # else what stands in for systemd there would start the engine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    sandbox = Sandbox(tmp_path_factory.mktemp("fresh"), "fresh", target="bare")
    try:
        fresh = Machine(sandbox.up(1, print)[0].name)
        fresh.install()
        yield fresh
    finally:
        sandbox.down(print)


def test_an_engine_is_installed_and_started_once_by_two_at_once(machine: Machine) -> None:
    said = machine.run(f"{ENSURE} & {ENSURE}; wait $!")
    assert said.count("starting this machine's Docker engine") == 1
    assert machine.run("python3 -c 'from ops.local_engine import answers; print(answers())'") == "True\n"


def test_an_engine_that_answers_is_left_alone(machine: Machine) -> None:
    assert machine.run(ENSURE) == ""


def test_a_killed_engine_whose_pid_file_names_another_process_starts_again(machine: Machine) -> None:
    machine.stop_engine("KILL")
    machine.run("echo 1 > /run/docker.pid")
    assert "starting" in machine.run(ENSURE)


def test_a_client_that_can_build_is_installed_where_there_is_none(machine: Machine) -> None:
    client = machine.run("python3 -c 'from ops.build_client import build_cli; print(*build_cli())'").strip()
    machine.run("printf 'FROM scratch\\nLABEL built=yes\\n' > Dockerfile")
    build = 'from ops.build_client import build; from pathlib import Path; build(Path("/opt"), "tried")'
    machine.run(f"python3 -c '{build}'")
    assert "tried" in machine.run(f"{client} images")


def test_an_engine_that_cannot_start_says_why(machine: Machine) -> None:
    machine.stop_engine("TERM")
    machine.run("mkdir -p /etc/docker && echo '{\"no-such-option\": 1}' > /etc/docker/daemon.json")
    said = machine.run(f"if {ENSURE} 2>&1; then exit 1; fi")
    assert "the Docker engine does not start" in said
    assert "no-such-option" in said
