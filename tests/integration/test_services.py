"""The blog on PostgreSQL: a database beside the app, which deploys leave alone."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.project import REPOSITORY, App, Server, wait_until
from tests.integration.test_ten_deploys import paint, posts

pytestmark = pytest.mark.integration
PASSWORD = "tide$w/ür"
ONE = ("-e", "one")


@pytest.fixture
def tide(root: Path, servers: list[Server], tag: str) -> Iterator[App]:
    """The repository's own configuration for PostgreSQL, on one of the servers."""
    known = tomllib.loads((REPOSITORY / "ops.postgres.toml").read_text())
    sandbox = tomllib.loads((root / ".tidegate/environments/sandbox.toml").read_text())["environments"]["sandbox"]
    place = {**sandbox, "hosts": sandbox["hosts"][:1], "domain": "tide.localhost"}
    place.pop("domains", None)
    environments = {"sandbox": {"domain": "tide.localhost"}, "one": place, "two": place}
    name = f"tide-{tag}"
    source = {**known["app"]["backup"]["sources"]["db"], "container": f"{name}-services-db-1"}
    described = {**known["app"], "name": name, "backup": {"reserve": "10m", "sources": {"db": source}}}
    app = App(root, servers[:1], {**known, "app": described, "environments": environments}, "tide.toml")
    secrets = root / ".env.one"
    secrets.touch(mode=0o600)
    url = f"postgresql://blog:tide%24w%2F%C3%BCr@{app.name}-db:5432/blog"
    secrets.write_text(f"POSTGRES_PASSWORD='{PASSWORD}'\nDATABASE_URL='{url}'\n")
    yield app.with_code("example", REPOSITORY / "example")
    for label in (f"dev.tidegate.app={app.name}", f"com.docker.compose.project={app.name}-services"):
        servers[0].root(f"docker ps -aq --filter label={label} | xargs -r docker rm -f")


def status(app: App) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = app.inv("services.status", "--json", *ONE).document
    return rows


def test_a_database_beside_the_app_is_saved_and_restored_and_its_data_outlives_it(tide: App) -> None:
    said = tide.inv("services.up", *ONE, timeout=300).said
    print(said)
    assert "the services are up and healthy" in said
    assert PASSWORD not in said
    (database,) = status(tide)
    volume = f"{tide.name}-services_db-data"
    assert (database["service"], database["state"], database["health"]) == ("db", "running", "healthy")
    assert (database["image"], database["ports"], database["volumes"]) == ("postgres:17", "-", volume)

    tide.deploy(*ONE)
    assert json.loads(tide.get("/health")[0][1])["schema"] == 3
    early = write(tide)
    before = posts(tide.servers[0], tide.domain)
    assert early <= before
    taken = tide.inv("backup.run", "--json", *ONE).document
    (id,) = (one["id"] for one in taken["servers"].values())
    late = write(tide)
    tide.inv("backup.restore", id, "--yes", *ONE)
    assert posts(tide.servers[0], tide.domain) == before
    assert not late & before
    assert "runs as described" in tide.inv("services.up", *ONE).said
    assert "belong to environment one" in tide.inv("services.down", "-e", "two", code=3, POSTGRES_PASSWORD="x").said
    assert status(tide) == [database]

    down = tide.inv("services.down", *ONE).said
    assert f"kept: {volume}" in down
    code, why = tide.get("/health")[0]
    assert (code, json.loads(why)["error"].partition(":")[0]) == (503, "the database does not answer")
    assert tide.servers[0].root("docker volume ls -q").split().count(volume) == 1

    tide.inv("services.up", *ONE)
    wait_until(lambda: tide.get("/health")[0][0] == 200, "the blog does not find its database again")
    assert early <= posts(tide.servers[0], tide.domain)


def write(app: App) -> set[str]:
    """Have some users write; return what they were told is kept."""
    with app.users(20, write=True) as users:
        wait_until(lambda: len(users.acknowledged[0]) > 3, "nobody writes")
    users.nobody_noticed()
    return set(users.acknowledged[0])


@pytest.mark.slow
def test_a_database_beside_the_app_survives_deploys_under_load(tide: App) -> None:
    tide.inv("services.up", *ONE, timeout=300)
    database = status(tide)
    tide.deploy(*ONE)
    with tide.users(60, write=True) as users:
        paint(tide, "spring")
        done = tide.deploy(*ONE)
        assert [probe["failures"] for probe in done.document["probes"].values()] == [0]
        assert "banner-spring" in tide.get("/")[0][1]
        back = tide.inv("deploy.rollback", "--json", *ONE)
        assert [probe["failures"] for probe in back.document["probes"].values()] == [0]
    users.nobody_noticed()
    assert "banner-spring" not in tide.get("/")[0][1]
    assert set(users.acknowledged[0]) <= posts(tide.servers[0], tide.domain)
    assert status(tide) == database


def test_a_database_that_does_not_start_is_told_with_its_last_words(tide: App) -> None:
    file = tide.root / "docker/broken.yaml"
    file.write_text(
        (REPOSITORY / "docker/services.yaml").read_text().replace("shm_size:", "command: postgres -c nonsense=1\n    shm_size:")
    )
    tide.configure(services={"compose": "docker/broken.yaml", "secrets": ["POSTGRES_PASSWORD"], "timeout": "20s"})
    said = tide.inv("services.up", *ONE, code=1).said
    assert "the services did not come up" in said
    assert 'unrecognized configuration parameter "nonsense"' in said
    assert PASSWORD not in said


def test_what_cannot_run_on_a_server_is_refused_before_anything_is_changed(tide: App) -> None:
    before = tide.look()
    file = tide.root / "docker/open.yaml"
    file.write_text("services: {db: {image: postgres:17, ports: ['5432:5432'], volumes: ['./init.sql:/init.sql']}}")
    tide.configure(services={"compose": "docker/open.yaml"})
    said = tide.inv("services.up", *ONE, code=3).said
    assert "would be open to everybody" in said
    assert "is a path of this machine" in said
    tide.configure(services=None)
    assert "no services are configured" in tide.inv("services.up", *ONE, code=2).said
    assert tide.look() == before
