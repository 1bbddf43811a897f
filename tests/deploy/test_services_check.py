"""What a Compose file of services may have on a server, and what is added to it."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.services_check import Change, changes, image_name, joined, refusals, volume_refusals

DATA = {"type": "volume", "source": "db-data", "target": "/var/lib/postgresql/data"}


def file(**service: Any) -> dict[str, Any]:
    """Return a resolved file with one service, right but for what is given."""
    return {"services": {"db": {"image": "postgres:17", "networks": {"default": None}, "volumes": [DATA], **service}}}


def port(address: str | None) -> dict[str, Any]:
    return {"target": 5432, "published": "5432", "protocol": "tcp"} | ({"host_ip": address} if address else {})


def test_named_volumes_and_ports_on_loopback_are_fine() -> None:
    tmpfs = {"type": "tmpfs", "target": "/tmp"}
    assert refusals(file(ports=[port("127.0.0.1"), port("::1")], volumes=[DATA, tmpfs])) == []


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ({"build": {"context": "."}}, "db: build:"),
        ({"image": None}, "db: it names no image"),
        ({"network_mode": "host"}, "db: network_mode: host"),
        ({"network_mode": "service:app"}, "db: network_mode: service:app"),
        ({"labels": {"dev.tidegate.app": "blog"}}, "db: labels:"),
        ({"volumes": [{"type": "bind", "source": "/home/ada/init", "target": "/x"}]}, "/home/ada/init is a path of this machine"),
        ({"volumes": [{"type": "volume", "target": "/var/lib/x"}]}, "/var/lib/x has no name"),
        ({"ports": [port(None)]}, "5432:5432 would be open to everybody at 0.0.0.0"),
        ({"ports": [port("0.0.0.0")]}, "open to everybody at 0.0.0.0"),
        ({"ports": [port("203.0.113.10")]}, "open to everybody at 203.0.113.10"),
        ({"ports": [port("localhost")]}, "open to everybody at localhost"),
        ({"ports": [port("::")]}, "open to everybody at ::"),
        ({"ports": [{"target": 5432}]}, "ANY:5432 would be open"),
    ],
)
def test_what_cannot_be_so_on_a_server_is_refused(service: dict[str, Any], problem: str) -> None:
    found = refusals(file(**service))
    assert len(found) == 1
    assert problem in found[0]


def test_secrets_and_configs_from_files_are_refused_and_those_without_are_not() -> None:
    fine = {"secrets": {"a": {"environment": "A"}}, "configs": {"b": {"content": "b"}}}
    assert refusals(file() | fine) == []
    wrong = {"secrets": {"a": {"file": "/home/ada/a"}}, "configs": {"b": {"file": "/home/ada/b"}}}
    assert [one.partition(":")[0] for one in refusals(file() | wrong)] == ["secrets.a", "configs.b"]


def test_all_that_is_wrong_is_named_at_once() -> None:
    assert len(refusals(file(build={}, network_mode="host", ports=[port(None)]))) == 3


def test_a_file_without_services_is_refused() -> None:
    assert refusals({"services": {}}) == ["it has no services"]


@pytest.mark.parametrize("target", ["/var/lib/postgresql", "/var/lib/postgresql/data/pg"])
def test_data_that_the_image_keeps_outside_of_every_mount_is_refused(target: str) -> None:
    wrong = file(volumes=[{**DATA, "target": target}])
    found = volume_refusals(wrong, {"postgres:17": ["/var/lib/postgresql/data"]})
    assert found == [
        'db: its image keeps data in /var/lib/postgresql/data, and nothing is mounted there: volumes: ["db-data:/var/lib/postgresql/data"]'
    ]


def test_data_that_is_mounted_or_in_memory_is_fine() -> None:
    declared = {"postgres:17": ["/var/lib/postgresql/data/"]}
    assert volume_refusals(file(), declared) == []
    assert volume_refusals(file(volumes=[], tmpfs=["/var/lib/postgresql/data:size=1g"]), declared) == []
    assert volume_refusals(file(), {}) == []


def test_every_service_joins_the_apps_network_under_a_name_of_its_own_beside_its_own_networks() -> None:
    found = joined(file(networks={"back": None}) | {"networks": {"back": {}}}, "blog", "production")
    assert found["services"]["db"]["networks"] == {"back": None, "tidegate": {"aliases": ["blog-db"]}}
    assert found["networks"] == {"back": {}, "tidegate": {"name": "tidegate", "external": True}}


def test_a_service_that_joined_by_itself_keeps_its_own_names() -> None:
    found = joined(file(networks={"tidegate": {"aliases": ["sql"]}}), "blog", "production")
    assert found["services"]["db"]["networks"]["tidegate"]["aliases"] == ["blog-db", "sql"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [(None, "always"), ("unless-stopped", "always"), ("always", "always"), ("no", "no"), ("on-failure:3", "on-failure:3")],
)
def test_the_engine_brings_services_back_unless_they_ask_for_something_else(asked: str | None, given: str) -> None:
    service = {"restart": asked} if asked else {}
    assert joined(file(**service), "blog", "production")["services"]["db"]["restart"] == given


def test_services_are_labelled_with_their_environment_and_never_as_an_apps_container() -> None:
    labels = joined(file(labels={"team": "sea"}), "blog", "production")["services"]["db"]["labels"]
    assert labels == {"team": "sea", "dev.tidegate.services": "production"}


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("redis", "redis:latest"),
        ("redis:7", "redis:7"),
        ("localhost:5000/team/redis", "localhost:5000/team/redis:latest"),
        ("localhost:5000/redis:7", "localhost:5000/redis:7"),
        ("redis@sha256:ab", "redis@sha256:ab"),
        ("team/redis:7@sha256:ab", "team/redis@sha256:ab"),
    ],
)
def test_images_have_a_tag_or_a_digest(written: str, full: str) -> None:
    assert image_name(written) == full


def container(service: str, **known: Any) -> dict[str, Any]:
    labels = {"com.docker.compose.service": service, "com.docker.compose.config-hash": "h1"}
    return {"Labels": labels, "Image": "postgres:17", "ImageID": "i1", "State": "running"} | known


@pytest.mark.parametrize(
    ("containers", "hash", "action"),
    [
        ([], "h1", "create"),
        ([container("db")], "h1", "keep"),
        ([container("db")], "h2", "replace"),
        ([container("db", ImageID="i0")], "h1", "replace"),
        ([container("db", State="exited")], "h1", "start"),
        ([container("db"), container("db", State="restarting")], "h1", "start"),
    ],
)
def test_what_becomes_of_a_service_is_known_beforehand(containers: list[dict[str, Any]], hash: str, action: str) -> None:
    assert [one.action for one in changes(file(), {"db": hash}, containers, {"postgres:17": "i1"})] == [action]


def test_a_service_that_left_the_file_is_removed_and_its_volumes_stay() -> None:
    found = changes(file(), {"db": "h1"}, [container("db"), container("old", Image="redis:7")], {"postgres:17": "i1"})
    assert found[1] == Change("old", "redis:7", "remove", "not in the file any more; its volumes stay")
