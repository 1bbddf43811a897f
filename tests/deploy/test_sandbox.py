"""The pure parts of the sandbox: rights, ports, and the files it writes."""

from __future__ import annotations

import socket
import stat
import tomllib
from itertools import islice
from pathlib import Path

import pytest

from deploy.sandbox import Sandbox
from deploy.sandbox_files import fragment, known_hosts, write
from deploy.sandbox_server import (
    CAPABILITIES,
    Recipe,
    SandboxServer,
    bounding_set,
    free_ports,
    grants,
    host_config,
    parse_bounding,
    parse_ready,
    ports_of,
)
from ops.errors import Refused

EVERYTHING = (1 << 41) - 1
WITHOUT_SYS_RESOURCE = EVERYTHING & ~(1 << 24)
SERVERS = [
    SandboxServer("tidegate-abc123-1", "running", (20022, 20080, 20443), "26.1.5", "ssh-ed25519 AAAAone"),
    SandboxServer("tidegate-abc123-2", "running", (20122, 20180, 20543), "26.1.5", "ssh-ed25519 AAAAtwo"),
]
RECIPE = Recipe("tidegate-abc123", "tidegate/sandbox:server-x", (("dev.tidegate.sandbox", "abc123-sandbox"),))


def test_capabilities_stand_where_the_kernel_numbers_them() -> None:
    numbers = {"CHOWN": 0, "NET_ADMIN": 12, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "MKNOD": 27, "AUDIT_READ": 37}
    assert {name: CAPABILITIES.index(name) for name in numbers} == numbers


def test_an_engine_that_may_everything_starts_privileged_servers_first() -> None:
    first, second = grants(EVERYTHING)
    assert first == []
    assert set(second) == set(CAPABILITIES)


def test_an_engine_that_lacks_a_capability_gives_exactly_the_others_without_trying_privileged() -> None:
    (only,) = grants(WITHOUT_SYS_RESOURCE)
    assert set(CAPABILITIES) - set(only) == {"SYS_RESOURCE"}


def test_an_engine_that_cannot_be_looked_at_is_tried_both_ways() -> None:
    first, second = grants(None)
    assert first == []
    assert "SYS_RESOURCE" not in second
    assert "SYS_ADMIN" in second


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Name:\tdockerd\nCapEff:\t0000000000000000\nCapBnd:\t000001fffeffffff\n", WITHOUT_SYS_RESOURCE),
        ("CapBnd:\t000001ffffffffff\n", EVERYTHING),
        ("Name:\tdockerd\n", None),
    ],
)
def test_the_bounding_set_is_read_from_a_process_status(status: str, expected: int | None) -> None:
    assert parse_bounding(status) == expected


def test_the_bounding_set_of_an_engine_elsewhere_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert bounding_set(tmp_path / "none.pid") is None
    (tmp_path / "docker.pid").write_text("999999999")
    assert bounding_set(tmp_path / "docker.pid") is None
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2376")
    assert bounding_set() is None


def test_ports_are_published_on_loopback_only() -> None:
    published = host_config(RECIPE, 1, (20022, 20080, 20443), [])["PortBindings"]
    assert {inside: binding[0]["HostPort"] for inside, binding in published.items()} == {
        "22/tcp": "20022",
        "80/tcp": "20080",
        "443/tcp": "20443",
    }
    assert {binding[0]["HostIp"] for binding in published.values()} == {"127.0.0.1"}


def test_a_server_is_either_privileged_or_unconfined_with_named_capabilities() -> None:
    privileged = host_config(RECIPE, 1, (1, 2, 3), [])
    assert privileged["Privileged"]
    assert "CapAdd" not in privileged
    named = host_config(RECIPE, 1, (1, 2, 3), ["SYS_ADMIN"])
    assert "Privileged" not in named
    assert (named["CapAdd"], named["MaskedPaths"], named["ReadonlyPaths"]) == (["SYS_ADMIN"], [], [])


def test_what_must_survive_a_new_container_is_on_volumes_of_that_server() -> None:
    volumes = host_config(RECIPE, 2, (1, 2, 3), [])["Binds"]
    assert {volume.partition(":")[2] for volume in volumes} == {"/var/lib/docker", "/etc/ssh/keys", "/srv"}
    assert all(volume.startswith("tidegate-abc123-2-") for volume in volumes)


def test_free_ports_skip_those_of_others_and_those_in_use() -> None:
    with socket.socket() as busy:
        first = next(free_ports(0, []))[0]
        busy.bind(("127.0.0.1", first))
        busy.listen()
        triples = list(islice(free_ports(0, [first + 1]), 3))
    ports = [port for triple in triples for port in triple]
    assert len(set(ports)) == 9
    assert not {first, first + 1} & set(ports)
    assert all(20000 <= port < 30000 for port in ports)


def test_ports_are_read_from_the_label_so_that_a_stopped_server_keeps_them() -> None:
    assert ports_of({"Labels": {"dev.tidegate.sandbox.ports": "20022,20080,20443"}}) == (20022, 20080, 20443)


def test_readiness_is_one_fact_a_line() -> None:
    assert parse_ready("key ssh-ed25519 AAAA\nengine 26.1.5+dfsg1\n") == {
        "key": "ssh-ed25519 AAAA",
        "engine": "26.1.5+dfsg1",
    }
    assert parse_ready("") == {}


def test_the_environment_is_a_table_that_the_configuration_reads() -> None:
    environment = tomllib.loads(fragment("sandbox", "blog.localhost", SERVERS))["environments"]["sandbox"]
    assert environment["domain"] == "blog.localhost"
    assert environment["known_hosts"] == ".tidegate/sandbox/known_hosts"
    assert environment["hosts"][1] == {
        "address": "127.0.0.1",
        "port": 20122,
        "user": "deploy",
        "identity": ".tidegate/sandbox/id_ed25519",
        "url": "http://127.0.0.1:20180",
    }


@pytest.mark.parametrize("name", ["sandbox", "two words", 'quo"te', "né", "a.b", "back\\slash", "new\nline"])
def test_any_name_and_domain_is_carried_literally(name: str) -> None:
    environments = tomllib.loads(fragment(name, name, SERVERS))["environments"]
    assert environments[name]["domain"] == name


def test_host_keys_are_written_for_their_port() -> None:
    assert known_hosts(SERVERS) == "[127.0.0.1]:20022 ssh-ed25519 AAAAone\n[127.0.0.1]:20122 ssh-ed25519 AAAAtwo\n"


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    write(path, "one\n", 0o600)
    before = path.stat().st_ino
    write(path, "one\n", 0o600)
    assert path.stat().st_ino == before
    write(path, "two\n", 0o600)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_sandboxes_of_two_projects_and_of_two_names_never_meet(tmp_path: Path) -> None:
    sandboxes = [Sandbox(tmp_path / "a"), Sandbox(tmp_path / "b"), Sandbox(tmp_path / "a", "other")]
    assert len({sandbox.recipe.name(1) for sandbox in sandboxes}) == 3
    assert len({sandbox.id for sandbox in sandboxes}) == 3


def test_a_sandbox_without_a_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="at least one host"):
        Sandbox(tmp_path).up(0, print)
    assert not list(tmp_path.iterdir())
