"""The Compose file for working on the example."""

from __future__ import annotations

import http.client
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.bases import ensure_base
from ops.build_client import build
from ops.compose import Compose, program
from ops.stand_ins import DEBIAN
from ops.this_machine import local_client
from tests.integration.project import REPOSITORY, wait_until

FILE = REPOSITORY / "docker/compose.dev.yaml"
PROJECT = "tidegate-test-dev"


def test_it_is_what_compose_reads_and_mounts_the_code() -> None:
    services = Compose(PROJECT, {}, variables={"COMPOSE_PROFILES": "postgres"}).resolve(FILE)["services"]
    assert sorted(services) == ["db", "migrate", "migrate-postgres", "web", "web-on-postgres", "worker"]
    mounts = {mount["target"]: mount for mount in services["web"]["volumes"]}
    assert (mounts["/app/blog"]["source"], mounts["/app/blog"]["read_only"]) == (str(REPOSITORY / "example/blog"), True)
    assert (REPOSITORY / "example" / services["web"]["build"]["dockerfile"]).resolve() == REPOSITORY / "docker/Dockerfile"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in ("docker", "example"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "example/blog").chmod(0o755)
    tmp_path.chmod(0o755)
    for name in (DEBIAN, "postgres:17"):
        ensure_base(name, print)
    build(tmp_path / "example", f"{PROJECT}:dev", "--file", str(tmp_path / "docker/Dockerfile"))
    file = tmp_path / "docker/compose.dev.yaml"
    file.write_text(file.read_text().replace("tidegate/blog:dev", f"{PROJECT}:dev").replace("127.0.0.1:${", "127.0.0.1:${NONE:+"))
    try:
        yield tmp_path
    finally:
        compose(tmp_path, "down", "--volumes", "--timeout", "1")
        local_client().api.remove_image(f"{PROJECT}:dev")


def command(folder: Path, *words: str) -> list[str]:
    return [*program(), "-p", PROJECT, "-f", str(folder / "docker/compose.dev.yaml"), "--profile", "postgres", *words]


def compose(folder: Path, *words: str) -> None:
    done = subprocess.run(command(folder, *words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def ask(folder: Path, service: str) -> str:
    """Ask for the posts; what is not there yet, or just being restarted, says nothing."""
    known = subprocess.run(command(folder, "port", service, "3000"), capture_output=True, text=True)
    if known.returncode:
        return ""
    host, _, port = known.stdout.strip().rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/posts")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


@pytest.mark.integration
@pytest.mark.slow
def test_both_databases_serve_and_a_changed_file_is_served_soon(folder: Path) -> None:
    compose(folder, "up", "--detach", "--no-build", "--wait")
    assert [ask(folder, service) for service in ("web", "web-on-postgres")] == ['{"posts":[]}'] * 2
    with subprocess.Popen(
        command(folder, "watch", "--no-up"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as watch:
        try:
            assert watch.stdout
            assert any("Watch enabled" in line for line in watch.stdout)
            api = folder / "example/blog/api.py"
            api.write_text(api.read_text().replace('"posts"', '"tides"'))
            wait_until(lambda: "tides" in ask(folder, "web") and "tides" in ask(folder, "web-on-postgres"), "not restarted")
        finally:
            watch.terminate()
