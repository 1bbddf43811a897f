"""The images of monitoring for real: they start as compose.yaml starts them, and reach a server."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from deploy.registry import Blobs, Registry
from monitoring.images import Image, bring, load, registry_digest
from monitoring.stack import FILE
from ops.bases import ensure_base
from ops.compose import Compose
from ops.config import load as load_project
from ops.engine import connect
from ops.errors import Refused
from ops.link import Link, require_engine
from ops.stand_ins import STAND_IN
from ops.this_machine import engine_address, local_client
from tests.integration.project import App, Server, wait_until

if TYPE_CHECKING:
    from docker import APIClient

pytestmark = pytest.mark.integration

PORTS = {
    "prometheus": "9090/-/ready",
    "alertmanager": "9093/-/ready",
    "node": "9100/metrics",
    "blackbox": "9115/-/healthy",
    "edge-exporter": "9113/metrics",
    "postgres-exporter": "9187/metrics",
}
CONFIGURATION = {
    "prometheus/prometheus.yml": "global: {scrape_interval: 15s}\n",
    "alertmanager/alertmanager.yml": "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
    "blackbox/blackbox.yml": "modules: {http: {prober: http}}\n",
    "postgres-exporter/secrets/password": "secret",
}


@pytest.fixture(scope="module")
def engine() -> APIClient:
    return local_client().api


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, engine: APIClient) -> Iterator[str]:
    """Every image that can be had anywhere, as compose.yaml has it but for ports and networks; yields the project."""
    folder, lock, project = tmp_path_factory.mktemp("monitoring"), load(), f"monitoring-images-{secrets.token_hex(4)}"
    for path, text in CONFIGURATION.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    whole = yaml.safe_load(FILE.read_text())
    picked = {name: {**whole["services"][name], "image": lock[name].name} for name in PORTS}
    for name, service in picked.items():
        ensure_base(lock[name].reference, print)
        service.pop("ports", None)
        service.pop("networks", None)
    picked["node"]["volumes"] = ["/:/host:ro"]  # a machine that is a container itself shares no mounts
    document = {"services": picked, "volumes": {"prometheus": {}, "alertmanager": {}}}
    variables = {
        "FOLDER": str(folder), "METRICS_KEEP": "1d", "METRICS_SIZE": "1GB", "POSTGRES_URI": "localhost:5432/blog?sslmode=disable",
        "POSTGRES_USER": "blog",
    }  # fmt: skip
    compose = Compose(project, {}, _socket(), variables)
    try:
        code, last = compose.follow("up", "--detach", "--wait", "--pull", "never", document=document, say=print)
        assert code == 0, last
        yield project
    finally:
        compose.follow("down", "--volumes", "--timeout", "1", document=document, say=print)


def _socket() -> Path:
    return Path(engine_address().removeprefix("unix://"))


@pytest.mark.slow  # test_monitoring starts them on servers
@pytest.mark.parametrize("service", PORTS)
def test_an_image_starts_as_the_compose_file_starts_it_and_answers(service: str, running: str, engine: APIClient) -> None:
    ask = ("wget", "-q", "-O", "-", f"http://{service}:{PORTS[service]}")
    wait_until(lambda: _run(engine, f"{running}-blackbox-1", *ask)[0] == 0, f"{service} does not answer", 10)
    known = engine.inspect_container(f"{running}-{service}-1")
    assert (known["State"]["Running"], known["RestartCount"], known["HostConfig"]["ReadonlyRootfs"]) == (True, 0, True)


@pytest.mark.slow  # test_monitoring_check uses them
@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("prometheus", ["/bin/promtool", "check", "config", "/etc/tidegate/prometheus.yml"]),
        ("alertmanager", ["/bin/amtool", "check-config", "/etc/tidegate/alertmanager.yml"]),
    ],
)
def test_the_images_that_have_a_checker_have_it_where_upstream_has_it(
    service: str, command: list[str], running: str, engine: APIClient
) -> None:
    assert "SUCCESS" in _output(engine, f"{running}-{service}-1", *command)


def _run(engine: APIClient, container: str, *command: str) -> tuple[int, str]:
    run = engine.exec_create(container, list(command))["Id"]
    output: str = engine.exec_start(run).decode("utf-8", "replace")
    return engine.exec_inspect(run)["ExitCode"], output


def _output(engine: APIClient, container: str, *command: str) -> str:
    code, output = _run(engine, container, *command)
    assert code == 0, output
    return output


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on this machine with room under a name; yields that name."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Registry(Blobs(tmp_path / "blobs"), "registry", listener) as server,
        server.writable(),
    ):
        yield f"127.0.0.1:{server.port}/registry/exporter"


def test_a_registry_tells_digests_and_an_image_is_pulled_by_its_digest_under_its_tag(registry: str, engine: APIClient) -> None:
    lock, name = load(), f"{registry}:moving"
    for service in ("edge-exporter", "postgres-exporter"):  # the tag moves from the one to the other
        ensure_base(lock[service].reference, print)
        engine.tag(lock[service].name, registry, "moving")
        assert not [line for line in engine.push(registry, "moving", stream=True, decode=True) if "error" in line]
        engine.remove_image(name)
    newest = Image(registry, "moving", registry_digest(name))
    try:
        said: list[str] = []
        assert bring(engine, newest.reference, said.append) == name
        assert engine.inspect_image(name)["Id"] == engine.inspect_image(lock["postgres-exporter"].name)["Id"]
        assert bring(engine, newest.reference, said.append)
        assert said == [f"pulling {name}"]  # the second time it was there
        gone = Image(registry, "moving", "sha256:" + "0" * 64)
        assert bring(engine, gone.reference, said.append)
        assert ("is kept" in said[-1]) != _is_stand_in(engine, name)
    finally:
        engine.remove_image(name, force=True)


def test_a_registry_that_does_not_know_an_image_says_so(registry: str) -> None:
    with pytest.raises(Refused, match=r"does not tell what .*:none is"):
        registry_digest(f"{registry}:none")


def _is_stand_in(engine: APIClient, name: str) -> bool:
    return STAND_IN in (engine.inspect_image(name)["Config"]["Labels"] or {})


def test_a_server_that_reaches_no_registry_is_sent_the_image(servers: list[Server], blog_app: App) -> None:
    wanted, said = load()["edge-exporter"], list[str]()
    environment = load_project(blog_app.config, {}).environment("sandbox")
    link = Link(environment, environment.hosts[0])
    try:
        there = connect(link.socket, require_engine(link)["engine"]["ApiVersion"])
        servers[0].root(f"docker image rm --force {wanted.name} || true")  # a stack may have stood there
        assert bring(there, wanted.reference, said.append, link.name) == wanted.name
        assert there.inspect_image(wanted.name)["Config"]["Entrypoint"] == ["/usr/bin/nginx-prometheus-exporter"]
        assert said[0] == f"pulling {wanted.name}"
        said.clear()
        bring(there, wanted.reference, said.append, link.name)
        assert not said
    finally:
        link.close()
    assert servers[0].root(f"docker images -q {wanted.name}")
