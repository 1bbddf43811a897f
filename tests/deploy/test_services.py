"""Databases and caches beside the app, brought up, shown and taken down on a server that is this machine.

The Compose file is read by Compose itself; what it would do on an engine is done by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import services
from deploy import tasks as deploys
from deploy.docker_server import DockerServer
from ops import local_engine
from ops.compose import Compose
from ops.link import Link
from ops.names import LABEL_SERVICES
from tests.deploy.a_project import Project, a_project

FILE = """
services:
  db:
    image: postgres:17
    environment: {POSTGRES_PASSWORD: "${DB_PASSWORD}"}
    volumes: ["db-data:/var/lib/postgresql/data"]
volumes: {db-data: {}}
"""
PROJECT = "blog-services"


class Composed:
    """What Compose was told to do, and what it does to the engine."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.told: list[tuple[str, ...]] = []
        self.ends: tuple[int, str] = (0, "done")
        self.hash = ""

    def follow(self, compose: Compose, *words: str, document: Any, say: Callable[[str], None]) -> tuple[int, str]:
        self.told.append(words)
        say(f"Compose: {words[0]}")
        if words[0] == "down":
            self.project.here.engine.boxes = {
                name: one for name, one in self.project.here.engine.boxes.items() if PROJECT not in name
            }
        elif not self.ends[0]:
            self.hash = compose.hashes(document)["db"]
            self.have("running")
        return self.ends

    def have(self, status: str, environment: str = "test", **more: Any) -> None:
        """Have the database's container on the server."""
        labels = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": "db", LABEL_SERVICES: environment,
                  "com.docker.compose.config-hash": self.hash}  # fmt: skip
        mounts = [{"Type": "volume", "Name": f"{PROJECT}_db-data"}, {"Type": "bind", "Source": "/etc"}]
        self.project.here.engine.add(f"{PROJECT}-db-1", status, "postgres:17", Labels=labels, Mounts=mounts, **more)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Project]:
    monkeypatch.setenv("DB_PASSWORD", "hunter2hunter2")
    (tmp_path / "services.yaml").write_text(FILE)
    with a_project(tmp_path, monkeypatch, capsys) as found:
        found.write(more='services = {compose = "services.yaml", secrets = ["DB_PASSWORD"]}')
        yield found


@pytest.fixture
def composed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Composed:
    found = Composed(project)
    monkeypatch.setattr(Compose, "follow", lambda compose, *words, **named: found.follow(compose, *words, **named))
    return found


def test_services_come_up_once_their_images_are_there_and_then_run_as_described(project: Project, composed: Composed) -> None:
    said = project.run(deploys.services_up)
    for word in (
        "create",
        "not there yet",
        "deploy@server.invalid pulls postgres:17",
        "Compose: up",
        "the services are up and healthy",
    ):
        assert word in said
    assert "postgres:17" in project.here.engine.images
    (told,) = composed.told
    assert told[:5] == ("up", "--detach", "--wait", "--wait-timeout", "120")
    assert {"--pull", "never", "--no-build", "--remove-orphans"} <= set(told)
    again = project.run(deploys.services_up)
    assert "runs as described" in again
    assert "pulls" not in again


def test_the_status_shows_each_with_its_volumes_and_how_it_ended(project: Project, composed: Composed) -> None:
    assert "no service runs: inv services.up" in project.run(deploys.services_status)
    composed.have("exited")
    project.here.engine.boxes[f"{PROJECT}-db-1"].code = 3
    said = project.run(deploys.services_status)
    for word in ("postgres:17", "exited (3)", f"{PROJECT}_db-data", "2026-01-01T00:00:09Z"):
        assert word in said
    assert "/etc" not in said


def test_ports_are_shown_with_where_they_lead() -> None:
    ports = {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "15432"}], "53/udp": None}
    assert list(services._ports({"NetworkSettings": {"Ports": ports}})) == ["127.0.0.1:15432→5432"]
    assert list(services._ports({"NetworkSettings": {"Ports": None}})) == []


def test_taking_them_down_names_the_volumes_that_stay(project: Project, composed: Composed) -> None:
    composed.have("running")
    said = project.run(deploys.services_down)
    for word in ("remove", "its volumes stay", f"kept: {PROJECT}_db-data", "the services are down"):
        assert word in said
    assert composed.told == [("down",)]
    said = project.run(deploys.services_down)
    assert "the services are down" in said
    assert composed.told == [("down",)]


def test_what_is_not_agreed_to_is_not_done(project: Project, composed: Composed) -> None:
    composed.have("running")
    project.write(more='services = {compose = "services.yaml", secrets = ["DB_PASSWORD"]}', settings="approve = true")
    for task in (deploys.services_up, deploys.services_down):
        assert "declined, nothing was changed" in project.refused(task, 3)
    assert composed.told == []
    assert project.here.engine.images == {}


def test_those_that_do_not_come_up_are_told_with_their_last_words_and_without_secrets(
    project: Project, composed: Composed
) -> None:
    composed.ends = (1, "container blog-services-db-1 is unhealthy")
    composed.have("exited")
    project.here.engine.boxes[f"{PROJECT}-db-1"].words = "FATAL: password hunter2hunter2\n"
    said = project.refused(deploys.services_up, 1)
    assert "the services did not come up" in said
    assert "db (exited (0), -), its last words:\n    FATAL: password" in said
    assert "hunter2" not in said
    project.here.engine.boxes[f"{PROJECT}-db-1"].words = ""
    assert "it said nothing" in project.refused(deploys.services_up, 1)
    assert "the services are not all down" in project.refused(deploys.services_down, 1)


def test_without_a_configuration_it_is_said_what_to_write(project: Project) -> None:
    project.write()
    said = project.refused(deploys.services_up, 2)
    assert "no services are configured" in said
    assert '[app.services] compose = "services.yaml"' in said


def test_those_of_another_environment_are_left_alone(project: Project, composed: Composed) -> None:
    composed.have("running", environment="staging")
    for task in (deploys.services_up, deploys.services_down):
        said = project.refused(task, 3)
        assert "the services of blog there belong to environment staging" in said
        assert "[environments.test.app]" in said
    assert composed.told == []


def test_a_server_without_the_network_is_to_be_made_ready_first(project: Project, composed: Composed) -> None:
    project.here.engine.networks.clear()
    said = project.refused(deploys.services_up, 3)
    assert "the network tidegate is missing" in said
    assert "server.bootstrap -e test" in said


def test_what_cannot_run_on_a_server_is_refused_with_every_reason(project: Project, composed: Composed) -> None:
    (project.here.home.parent / "services.yaml").write_text("services: {db: {image: postgres:17, build: .}}")
    said = project.refused(deploys.services_up, 3)
    assert "these services cannot run on a server" in said
    assert "db: " in said
    (project.here.home.parent / "services.yaml").write_text("services: {db: {image: postgres:17}}")
    project.here.engine.add_image("postgres:17", Volumes={"/var/lib/postgresql/data": {}})
    said = project.refused(deploys.services_up, 3)
    assert "its image keeps data in /var/lib/postgresql/data, and nothing is mounted there" in said
    assert composed.told == []


def test_a_deploy_at_work_keeps_them_waiting_and_a_bare_server_is_told(project: Project, composed: Composed) -> None:
    other = Link(project.here.env, project.here.env.hosts[0])
    try:
        other.call(
            "lock", path=str(project.here.home / "blog/lock"), holder={"what": "deploy of test", "who": "bob", "since": "noon"}
        )
        assert "another command is at work: deploy of test by bob" in project.refused(deploys.services_up, 4)
    finally:
        other.close()
    (project.here.home / "blog/lock").unlink()
    (project.here.home / "blog/lock").mkdir()
    assert "cannot take the lock" in project.refused(deploys.services_down, 3)


def test_an_image_that_no_registry_has_is_shipped_from_here(
    project: Project, composed: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.here.engine.pulls = [{"error": "no route to host"}]
    monkeypatch.setattr(local_engine, "ensure", lambda say: None)
    monkeypatch.setattr(services, "ensure_base", lambda image, say: say(f"{image} is here"))

    def pulled(server: DockerServer, image: str) -> bool:
        project.here.engine.add_image(image)
        return True

    monkeypatch.setattr(DockerServer, "_pull_from_us", pulled)
    said = project.run(deploys.services_up)
    lines = [line.strip() for line in said.splitlines()]
    first = lines.index("deploy@server.invalid pulls postgres:17")
    assert lines[first + 1 : first + 4] == [
        "it cannot be pulled there: no route to host",
        "postgres:17 is here",
        "shipping postgres:17",
    ]
    pinned = f"postgres:17@sha256:{'a' * 64}"
    (project.here.home.parent / "services.yaml").write_text(FILE.replace("postgres:17", pinned))
    assert "the engine could not pull the image" in project.refused(deploys.services_up, 1)


def test_only_the_first_of_several_servers_has_them(project: Project, composed: Composed) -> None:
    text = (project.here.home.parent / "ops.toml").read_text()
    (project.here.home.parent / "ops.toml").write_text(text.replace("}]\n", '}, "deploy@other.invalid"]\n'))
    assert "on deploy@server.invalid only: the app's containers on other servers do not reach them" in project.run(
        deploys.services_up
    )
