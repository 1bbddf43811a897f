"""What the monitoring has a server's engine do: images brought, volumes copied, files judged by their own programs."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from monitoring import images, snapshots
from monitoring.check import LABELS, check_files
from monitoring.files import File
from monitoring.images import Image, bring, images_running, registry_digest
from monitoring.snapshots import HELD, LABEL_SNAPSHOT, OnEngine
from ops import local_engine
from ops.engine import connect
from ops.errors import Failed, Refused
from ops.stand_ins import STAND_IN
from tests.deploy.a_server import Engine

if TYPE_CHECKING:
    from docker import APIClient

DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
NAME = "prom/prometheus:v3.13.4"
REFERENCE = f"{NAME}@{DIGEST}"


def serve(socket: Path) -> Engine:
    found = Engine(socket)
    Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Engine]:
    with serve(tmp_path / "server.sock") as found:
        yield found
        found.shutdown()


@pytest.fixture
def engine(server: Engine) -> APIClient:
    return connect(server.socket_path, "1.41")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """This machine's engine, which has what is to be sent."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/local.sock")
    monkeypatch.setattr(local_engine, "ensure", lambda say: None)
    monkeypatch.setattr(images, "ensure_base", lambda name, say: None)
    with serve(tmp_path / "local.sock") as found:
        found.add_image(NAME)
        found.images[NAME] |= {"Architecture": "amd64", "Size": 120_000_000}
        found.answers[f"GET /images/{NAME}/get"] = b"the whole image"
        yield found
        found.shutdown()


def brought(engine: APIClient, reference: str = REFERENCE) -> list[str]:
    """Return what is said while an image is brought."""
    said: list[str] = []
    assert bring(engine, reference, said.append, "one") == NAME
    return said


def test_an_image_that_is_there_is_not_brought_again(server: Engine, engine: APIClient) -> None:
    server.add_image(NAME)
    server.images[NAME]["RepoDigests"] = [f"prom/prometheus@{DIGEST}"]
    assert brought(engine) == []
    assert not [one for one in server.asked if one.startswith("POST")]


def test_one_that_is_missing_is_pulled_by_its_digest_and_named_by_its_tag(server: Engine, engine: APIClient) -> None:
    assert brought(engine) == [f"pulling {NAME}"]
    assert f"POST /images/prom/prometheus@{DIGEST}/tag" in server.asked
    assert NAME in server.images


def test_one_of_another_digest_stays_where_the_registry_does_not_answer(server: Engine, engine: APIClient) -> None:
    server.add_image(NAME)
    server.images[NAME]["RepoDigests"] = [f"prom/prometheus@{OTHER}"]
    server.answers["POST /images/create"] = (500, "no route to host")
    assert brought(engine) == [f"pulling {NAME}", f"the {NAME} there is kept, though it is not {DIGEST}: no route to host"]


@pytest.fixture
def unreachable(server: Engine) -> Engine:
    """A server that reaches no registry, and takes what is sent."""
    server.pulls = [{"error": "no route to host"}]

    def load(body: Any) -> bytes:
        assert body == b"the whole image"
        server.add_image(NAME)
        return json.dumps({"stream": "Loaded"}).encode()

    server.answers["POST /images/load"] = load
    return server


def test_a_server_that_reaches_no_registry_is_sent_the_image_from_here(
    unreachable: Engine, engine: APIClient, here: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_SAID_EVERY", 10)
    monkeypatch.setattr(images, "_MEGABYTE", 5)
    here.images[NAME]["Size"] = 15
    assert brought(engine) == [
        f"pulling {NAME}",
        "it cannot be pulled there: no route to host",
        f"sending {NAME}, 3 MB",
        "  3 MB sent",
    ]


@pytest.mark.parametrize(
    ("prepare", "what", "why"),
    [
        (lambda here, there: here.images[NAME].update(Architecture="arm64"), "is here for arm64 only and not for amd64", ""),
        (lambda here, there: there.answers.update({"POST /images/load": b'{"error": "no space left"}'}), "does not take", "no space left"),
        (lambda here, there: there.answers.update({"POST /images/load": b"{}"}), "did not arrive", ""),
    ],
)  # fmt: skip
def test_what_keeps_an_image_from_arriving_is_told(
    unreachable: Engine, engine: APIClient, here: Engine, prepare: Callable[[Engine, Engine], None], what: str, why: str
) -> None:
    prepare(here, unreachable)
    with pytest.raises(Failed, match=what) as caught:
        bring(engine, REFERENCE, lambda said: None, "one")
    assert (caught.value.where, caught.value.why) == ("one", why)


def test_a_registry_is_asked_through_this_machines_engine(here: Engine) -> None:
    here.answers[f"GET /distribution/{NAME}/json"] = {"Descriptor": {"digest": DIGEST}}
    assert registry_digest(NAME) == DIGEST
    here.answers[f"GET /distribution/{NAME}/json"] = (403, "no such repository")
    with pytest.raises(Refused, match=f"the registry does not tell what {NAME} is") as caught:
        registry_digest(NAME)
    assert (caught.value.why, "nothing was written" in caught.value.fix) == ("no such repository", True)


def contained(server: Engine, service: str, image: str) -> None:
    labels = {"com.docker.compose.project": "stack", "com.docker.compose.service": service}
    server.add(f"stack-{service}-1", image=image, Labels=labels)


def test_what_runs_is_known_by_service_with_the_digests_of_its_image(server: Engine, engine: APIClient) -> None:
    server.add_image("one:1")
    server.images["sha256:one:1"] = {**server.images["one:1"], "RepoDigests": [f"one@{DIGEST}"]}
    server.images["sha256:two:2"] = {"Config": {"Labels": {STAND_IN: "yes"}}, "RepoDigests": [f"two@{OTHER}"]}
    contained(server, "prometheus", "one:1")
    contained(server, "gate", "two:2")
    server.add("of-another")
    found = images_running(engine, "stack")
    assert {name: (one.name, one.digests, one.stand_in) for name, one in found.items()} == {
        "prometheus": ("one:1", (DIGEST,), False),
        "gate": ("two:2", (), True),
    }


def test_a_volume_is_copied_by_a_container_that_can_do_nothing_else_and_goes(server: Engine, engine: APIClient) -> None:
    held = OnEngine(engine, "stack", "tools:1", {"grafana": "stack_grafana"})
    server.add("stack_grafana-copy")  # left at work by a command that died
    held.snapshot("grafana")
    assert server.boxes == {}
    assert server.volumes == ["stack_grafana-before-upgrade"]
    assert server.bodies["POST /volumes/create"]["Labels"] == {LABEL_SNAPSHOT: "stack_grafana"}
    made = server.bodies["POST /containers/create"]
    assert made["HostConfig"]["Binds"] == ["stack_grafana:/from:ro", "stack_grafana-before-upgrade:/to"]
    assert (made["HostConfig"]["NetworkMode"], made["HostConfig"]["CapDrop"], made["User"]) == ("none", ["ALL"], "0:0")
    held.put_back("grafana")
    made = server.bodies["POST /containers/create"]
    assert made["HostConfig"]["Binds"] == ["stack_grafana-before-upgrade:/from:ro", "stack_grafana:/to"]
    assert "-delete" in made["Cmd"][1]


def test_a_copy_that_fails_is_told_in_its_words_and_leaves_no_container(
    server: Engine, engine: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["POST /containers/stack_loki-copy/wait"] = {"StatusCode": 1}
    server.answers["GET /containers/stack_loki-copy/logs"] = b"\1\0\0\0\0\0\0\x0eno space left\n"
    with pytest.raises(Failed, match="volume stack_loki cannot be copied") as caught:
        snapshots.snapshot(engine, "stack_loki", "tools:1")
    assert caught.value.why == "no space left"
    assert server.boxes == {}


def test_the_images_from_before_are_held_given_back_and_let_go(server: Engine, engine: APIClient) -> None:
    held = OnEngine(engine, "stack", "tools:1", {"grafana": "stack_grafana"})
    server.add_image("one:1")
    server.images["sha256:one:1"] = server.images["one:1"]
    contained(server, "grafana", "one:1")
    old = held.running()["grafana"]
    assert (held.keeps_data("grafana"), held.keeps_data("prometheus")) == (True, False)
    held.hold("grafana", old)
    assert f"{HELD}:grafana" in server.images
    del server.images["one:1"]
    held.give_back(old)
    assert "one:1" in server.images
    server.volumes = ["stack_grafana-before-upgrade"]
    held.let_go(["grafana", "prometheus"], ["gone:1"])
    assert (server.volumes, f"{HELD}:grafana" in server.images) == ([], False)


FILES = [File("prometheus/prometheus.yml", "global: {}"), File("prometheus/secrets/password", "hunter2", 0o400, 65534)]
LOCK = {"prometheus": Image("prom/prometheus", "v3.13.4")}


def judged(engine: APIClient, files: list[File]) -> dict[str, tuple[bool | None, str]]:
    return {one.service: (one.ok, one.said) for one in check_files(engine, files, LOCK)}


def test_files_are_judged_in_a_container_without_network_rights_and_secrets(server: Engine, engine: APIClient) -> None:
    sent: list[bytes] = []
    act = server._container

    def watched(one: Any, what: str, body: Any) -> Any:
        if what == "archive":
            sent.append(body)
        return act(one, what, body)

    server._container = watched  # type: ignore[method-assign]
    found = judged(engine, FILES)
    assert found["prometheus"][0] in (True, False)
    assert found["loki"] == (None, "there is no loki/loki.yaml: left out here")
    made = server.bodies["POST /containers/create"]
    assert (made["HostConfig"]["NetworkMode"], made["HostConfig"]["CapDrop"], made["Labels"]) == ("none", ["ALL"], LABELS)
    with tarfile.open(fileobj=io.BytesIO(sent[0])) as archive:
        content = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert content == {"etc/tidegate/prometheus.yml": b"global: {}", "etc/tidegate/secrets/password": b"-"}
    assert server.boxes == {}


def test_an_image_that_is_not_there_is_no_mistake_of_the_files_and_an_engine_that_refuses_is_one(
    server: Engine, engine: APIClient
) -> None:
    server.answers["POST /containers/create"] = 404
    assert judged(engine, FILES)["prometheus"] == (None, f"{NAME} is not there: inv monitoring.up brings it")
    server.answers["POST /containers/create"] = (500, "no space left")
    ok, said = judged(engine, FILES)["prometheus"]
    assert (ok, "it could not be run" in said, "no space left" in said) == (False, True, True)


def test_containers_of_checks_that_were_killed_go_and_those_of_others_right_now_stay(server: Engine, engine: APIClient) -> None:
    server.answers["GET /info"] = {"SystemTime": "2026-01-01T12:00:00Z"}
    noon = 1767268800
    for name, age in (("old", 3600), ("gone", 3600), ("young", 5)):
        server.add(name, Labels=LABELS, Created=noon - age)
    server.answers["DELETE /containers/id-gone"] = 404
    judged(engine, [])
    assert sorted(server.boxes) == ["gone", "young"]
