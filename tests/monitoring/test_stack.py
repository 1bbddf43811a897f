"""What runs on a server, as Compose understands it: who may do how much, what is open to whom, and what survives."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest

from monitoring import images
from monitoring.files import FOLDER, MEMBERS, OWNER, PROJECT
from monitoring.inventory import inventory
from monitoring.live import PORTS
from monitoring.render import render
from monitoring.stack import FILE, OWNERS, RELOADED, Ground, Wanted, services, wanted
from ops.compose import Compose
from ops.config import Environment
from ops.secret import Secret
from tests.monitoring.watched import AWAY, ONE, TWO, environment, with_database

PAIR = environment(ONE, TWO, app=with_database())
APART = environment(ONE, app=with_database(), monitoring={"host": AWAY, "collector": "promtail"})
STORED = {"bucket": "logs", "endpoint": "s3.example.com", "access_key": "KEY", "secret_key": "SECRET"}
LOCK = {name: image.name for name, image in images.load().items()}
IMAGES = {name: f"{name}:1" for name in LOCK}
SECRETS = {name: Secret("hunter2") for name in ("DB_PASSWORD", "KEY", "SECRET")}

# Asked by Prometheus every 15 seconds, so TargetDown tells; and its image has nothing to ask itself with.
NO_HEALTHCHECK = {"edge-exporter"}
ROOT = {
    "cadvisor": "the engine's folders and other users' cgroups are read by nobody else; with no capability",
    "alloy": "logs of the server are read by nobody else, with the one capability for that",
    "promtail": "logs of the server are read by nobody else, with the one capability for that",
}


def made(env: Environment, names: dict[str, str] | None = None, ground: Ground = Ground(999)) -> list[Wanted]:  # noqa: B008
    known = inventory(env)
    return [wanted(known, host, env.monitoring, ground, names or IMAGES) for host in known.hosts]


@cache
def resolved(index: int) -> dict[str, Any]:
    """Return what Compose makes of what one of all kinds of server gets; it warns of nothing."""
    one = [*made(PAIR), *made(APART)][index]
    done = Compose(PROJECT, {}, None, one.variables)._run("-f", "-", "config", "--format", "json", text=json.dumps(one.document))
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def every() -> dict[str, dict[str, Any]]:
    """Return every service there is, as Compose understands it."""
    found: dict[str, dict[str, Any]] = {}
    for index in range(4):
        found |= {f"{name} on {index}": service for name, service in resolved(index)["services"].items()}
    assert {name.partition(" ")[0] for name in found} == set(LOCK)
    return found


def of(name: str) -> str:
    return name.partition(" ")[0]


def test_a_server_runs_what_it_is_watched_by_and_nothing_else() -> None:
    watched = {"gate", "node", "cadvisor", "alloy", "edge-exporter"}
    stack = {"prometheus", "alertmanager", "grafana", "loki", "blackbox"}
    assert [set(one.services) for one in made(PAIR)] == [watched | stack | {"postgres-exporter"}, watched]
    app, apart = (set(one.services) for one in made(APART))
    assert app == watched - {"alloy"} | {"promtail", "postgres-exporter"}
    assert apart == stack | {"gate", "node", "cadvisor", "promtail"}
    lean = environment(monitoring={"without": ["grafana", "loki", "cadvisor", "blackbox", "edge"]})
    assert set(made(lean)[0].services) == {"prometheus", "alertmanager", "gate", "node"}


def test_every_service_runs_the_image_that_was_chosen_for_it() -> None:
    assert {of(name): service["image"] for name, service in every().items()} == IMAGES
    assert {name: service["image"] for one in made(PAIR, LOCK) for name, service in one.services.items()}.items() <= LOCK.items()


def test_every_service_may_do_little_and_use_little_and_comes_back() -> None:
    for name, service in every().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert 0 < int(service["mem_limit"]) <= 1024**3, name
        assert 0 < float(service["cpus"]) <= 1, name
        assert service["pids_limit"] == 512, name
        assert service["restart"] == "always", name
        assert service["init"], name
        assert service["logging"] == {"driver": "json-file", "options": {"max-file": "3", "max-size": "10m"}}, name


def test_nobody_is_root_but_for_a_reason_and_capabilities_are_for_reading_logs() -> None:
    for name, service in every().items():
        assert (service.get("user", "0").split(":")[0] == "0") == (of(name) in ROOT), name
        assert service.get("cap_add", []) == (["DAC_READ_SEARCH"] if of(name) in ("alloy", "promtail") else []), name


def test_who_sees_all_files_of_the_server_is_nobody_whom_a_secret_is_given_to() -> None:
    """node_exporter has the server's root before it; as the user of another service it could read what that one reads."""
    users = {of(name): service.get("user", "0").split(":")[0] for name, service in every().items()}
    assert users["node"] == "65533"
    assert [name for name, user in users.items() if user == users["node"]] == ["node"]
    assert int(users["node"]) not in OWNERS.values()


def test_whoever_is_not_told_of_by_prometheus_has_a_health_check() -> None:
    without = {of(name) for name, service in every().items() if "healthcheck" not in service}
    assert without == NO_HEALTHCHECK | {"cadvisor"}  # its image has one of its own


def test_a_health_check_asks_the_port_at_which_the_service_answers() -> None:
    ports = {"gate": 8080, "node": 9100, "postgres-exporter": 9187, "alloy": 12345, "promtail": 9080}
    for name, service in every().items():
        if of(name) in ports:
            assert re.search(rf"127\.0\.0\.1[:/]{ports[of(name)]}/?\b", " ".join(service["healthcheck"]["test"])), name


def test_the_engines_socket_is_mounted_only_where_it_is_read_and_nothing_of_the_server_can_be_written() -> None:
    sockets = set()
    for name, service in every().items():
        for mount in service.get("volumes", ()):
            assert mount["type"] == "volume" or mount["read_only"], (name, mount)
            if mount["source"] in ("/var/run/docker.sock", "/var/run", "/"):
                sockets.add(of(name))
    assert sockets == {"gate", "alloy", "promtail", "cadvisor", "node"}


def test_only_loopback_ports_are_open_and_the_gates_on_the_private_address() -> None:
    ports = [
        {(of(name), one.get("host_ip"), int(one["published"])) for name, service in resolved(index)["services"].items()
         for one in service.get("ports", ())}
        for index in range(4)
    ]  # fmt: skip
    pages = {(name, "127.0.0.1", port) for name, port in PORTS.items()}
    assert ports == [
        pages | {("gate", "10.0.0.1", 7814)}, {("gate", "fd00::2", 7814)},
        {("gate", "10.0.0.1", 7814)}, pages | {("gate", "10.0.0.9", 7814)},
    ]  # fmt: skip
    assert all("network_mode" not in service for service in every().values())


def test_a_server_alone_opens_nothing_but_its_loopback() -> None:
    (one,) = made(environment())
    ports = [port for service in one.services.values() for port in service.get("ports", ())]
    assert sorted(port.rpartition(":")[0] for port in ports) == [f"127.0.0.1:{port}" for port in sorted(PORTS.values())]


def test_only_those_that_ask_the_app_are_in_its_network() -> None:
    asking = {"gate", "edge-exporter", "postgres-exporter"}
    for index in range(3):
        found = {name for name, service in resolved(index)["services"].items() if "apps" in service["networks"]}
        assert found == asking & set(resolved(index)["services"])
        apps = resolved(index)["networks"]["apps"]
        assert (apps["name"], apps["external"]) == ("tidegate", True)
    apart = resolved(3)
    assert {tuple(service["networks"]) for service in apart["services"].values()} == {("default",)}
    assert set(apart["networks"]) == {"default"}
    assert apart["networks"]["default"]["name"] == "tidegate-monitoring"


@pytest.mark.parametrize(
    ("domains", "more", "networks"),
    [
        (("blog.example.com",), {}, None),
        (("blog.localhost",), {}, ["default", "apps"]),
        (("blog.example.com", "blog.localhost"), {}, ["default", "apps"]),
        (("blog.localhost",), {"monitoring": {"host": AWAY}}, None),
    ],
)
def test_probes_are_in_the_apps_network_only_where_they_ask_the_edge_itself(
    domains: tuple[str, ...], more: dict[str, Any], networks: list[str] | None
) -> None:
    env = environment(ONE, domains=domains, **more)
    (stack,) = [one for one in made(env) if "blackbox" in one.services]
    assert stack.services["blackbox"].get("networks") == networks


@pytest.mark.parametrize("propagation", ["rslave", "rprivate"])
def test_the_servers_root_is_mounted_as_that_server_allows(propagation: str) -> None:
    """A mount that comes later is seen where the root is handed on; where it is private, the engine refuses a slave of it."""
    (one,) = made(environment(), ground=Ground(999, propagation))
    assert one.variables["PROPAGATION"] == propagation
    roots = [mount for service in one.services.values() for mount in service.get("volumes", ()) if mount["source"] == "/"]
    assert [(mount["read_only"], mount["bind"]) for mount in roots] == [(True, {"propagation": "${PROPAGATION}"})] * 2
    found = {mount["bind"]["propagation"] for service in resolved(0)["services"].values() for mount in service.get("volumes", ())
             if mount["source"] == "/"}  # fmt: skip
    assert found == {Ground().propagation} == {"rslave"}


def test_what_is_collected_outlives_its_containers_and_belongs_to_those_who_write_it() -> None:
    """Compose neither makes nor removes an external volume: `down -v` of somebody cannot lose it."""
    first, second = made(PAIR)
    assert first.volumes == {f"{PROJECT}_{name}": owner for name, owner in OWNERS.items()}
    assert second.volumes == {f"{PROJECT}_collector": 0}
    assert all(one["external"] for index in range(4) for one in resolved(index)["volumes"].values())
    users = {mount["source"]: service["user"] for service in every().values() for mount in service.get("volumes", ())
             if mount["type"] == "volume"}  # fmt: skip
    assert {name: int(user.split(":")[0]) for name, user in users.items()} == OWNERS


def test_every_folder_that_is_mounted_has_files_and_every_file_is_mounted_somewhere() -> None:
    for env in (PAIR, APART, environment(monitoring={"object_storage": STORED})):
        known = inventory(env)
        for host, one in zip(known.hosts, made(env), strict=True):
            folders = {file.service for file in render(env, known, host, SECRETS)} - {OWNER, MEMBERS}
            mounts = {mount["source"] for service in one.services.values() for mount in service.get("volumes", ())}
            assert {f"${{FOLDER}}/{folder}" for folder in folders} == {path for path in mounts if path.startswith("${FOLDER}")}


def test_no_secret_stands_in_what_compose_gets() -> None:
    for one in [*made(PAIR), *made(APART), *made(environment(monitoring={"object_storage": STORED}))]:
        assert "hunter2" not in json.dumps(one.document) + json.dumps(dict(one.variables))


def test_every_variable_of_the_file_has_a_value_but_for_the_images() -> None:
    used = set(re.findall(r"\$\{(\w+)\}", FILE.read_text()))
    assert used == {*made(PAIR)[0].variables} | {f"{name.upper().replace('-', '_')}_IMAGE" for name in LOCK}


@pytest.mark.parametrize(
    ("monitoring", "told"),
    [
        ({}, {"METRICS_KEEP": "2592000s", "METRICS_SIZE": "10737418240B"}),
        ({"metrics_keep": "12h", "metrics_size": "512m"}, {"METRICS_KEEP": "43200s", "METRICS_SIZE": "536870912B"}),
    ],
)
def test_figures_are_kept_as_long_and_as_many_as_was_said(monitoring: dict[str, str], told: dict[str, str]) -> None:
    (one,) = made(environment(monitoring=monitoring))
    assert told.items() <= one.variables.items()
    assert (one.variables["FOLDER"], one.variables["ENGINE_GROUP"]) == (FOLDER, "999")


@pytest.mark.parametrize(
    ("database", "uri"), [("posts", "posts"), ("my posts?sslmode=off", "my%20posts%3Fsslmode%3Doff"), ("a/b#c", "a%2Fb%23c")]
)
def test_the_database_is_reached_by_its_name_whatever_it_is(database: str, uri: str) -> None:
    (one,) = made(environment(app=with_database(database=database)))
    assert one.variables["POSTGRES_URI"] == f"blog-services-db:5432/{uri}?sslmode=disable"
    assert one.variables["POSTGRES_USER"] == "blog"


def test_logs_in_object_storage_are_reached_with_keys_from_a_file() -> None:
    (one,) = made(environment(monitoring={"object_storage": STORED}))
    assert one.services["loki"]["environment"] == {"AWS_SHARED_CREDENTIALS_FILE": "/etc/tidegate/secrets/s3"}
    assert "environment" not in made(environment())[0].services["loki"]


def test_grafanas_settings_are_its_containers_variables() -> None:
    assert made(environment())[0].services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_services_of_a_server_are_named_for_those_who_only_look() -> None:
    for env in (PAIR, APART):
        known = inventory(env)
        assert [set(services(known, host)) for host in known.hosts] == [set(one.services) for one in made(env)]
    assert set(RELOADED) <= set(LOCK)
