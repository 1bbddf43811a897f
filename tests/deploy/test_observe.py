"""What the engine, nginx and the files say, read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deploy import observe
from deploy.edge import EdgeFile, render
from deploy.model import HostState, Release
from ops.errors import Refused

HELLO = {"skew": 0.04, "engine": {"Version": "26.1.5+dfsg1", "ApiVersion": "1.45"}}
EDGE = render(EdgeFile(app="blog", release="v2", generation="v2-abc", upstream="10.213.1.140", port=3000, domains=("blog.example.com",),
                       body_size="10m", timeout=60, idle=5, gzip=True, pem=None, environment="production"))  # fmt: skip
RELEASE = Release(domains=("blog.example.com",), id="v2", version="v2", slot="green", image="tidegate/blog:v2", content="c", config_hash="h", environment_hash="e", port=3000,
                  address="10.213.1.140", processes=("web", "worker"), edge_file=EDGE, generation="v2-abc", created="2026-01-02", by="ann", environment="production")  # fmt: skip


def listed(
    name: str,
    status: str = "Up 3 minutes (healthy)",
    state: str = "running",
    *,
    fixed: str | None = "10.213.1.140",
    **labels: str,
) -> dict[str, Any]:
    """Return a container as engine 26 lists it."""
    network = {"IPAMConfig": {"IPv4Address": fixed} if fixed else None, "Links": None, "Aliases": None, "NetworkID": "4f1", "EndpointID": "e2d",
               "Gateway": "10.213.0.1", "IPAddress": "10.213.8.2" if state == "running" else "", "IPPrefixLen": 20, "DriverOpts": None}  # fmt: skip
    known = {"dev.tidegate.managed": "true", "dev.tidegate.app": "blog", "org.opencontainers.image.version": "v2"}
    return {
        "Id": f"{name}-id", "Names": [f"/{name}"], "Image": "tidegate/blog:v2", "ImageID": "sha256:6f19", "Command": "python3 -m blog", "Created": 1779000000,
        "Ports": [{"PrivatePort": 3000, "Type": "tcp"}], "Labels": {**known, **{f"dev.tidegate.{key}": value for key, value in labels.items()}},
        "State": state, "Status": status, "HostConfig": {"NetworkMode": "tidegate"}, "NetworkSettings": {"Networks": {"tidegate": network}}, "Mounts": [],
    }  # fmt: skip


WEB = listed("blog_web_v2", release="v2", slot="green", process="web", version="v2")
NGINX = {**listed("tidegate-edge", "Up 2 days", fixed="10.213.0.2"), "Labels": {"dev.tidegate.managed": "true"}}
SHOP = listed("shop_web_v1", fixed="10.213.1.7", app="shop", release="v1", slot="blue", process="web", version="v1")
NETWORK = {"Name": "tidegate", "IPAM": {"Driver": "default", "Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.213.0.0/20", "IPRange": "10.213.8.0/21"}]},
           "Containers": {"9b1": {"Name": "somebody", "IPv4Address": "10.213.1.99/20", "IPv6Address": ""}, "9b2": {"Name": "x", "IPv4Address": ""}}}  # fmt: skip
IMAGES = [{"Id": "sha256:6f19", "RepoTags": ["tidegate/blog:v2"], "Labels": {"dev.tidegate.app": "blog", "dev.tidegate.content": "c"}},
          {"Id": "sha256:1", "RepoTags": None, "Labels": None}, {"Id": "sha256:2", "RepoTags": ["tidegate/blog:v1"], "Labels": {"dev.tidegate.app": "blog"}}]  # fmt: skip


def seen(**changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "engine": {"containers": [WEB, NGINX, SHOP], "network": NETWORK, "images": IMAGES},
        "pems": [], "releases": {"v2.json": RELEASE.to_json()}, "journal": "", "edge": {"blog.conf": EDGE}, "answering": "v2-abc", "disk": {"free": 10, "total": 20},
    }  # fmt: skip
    return {**known, **changes}


def parse(**changes: Any) -> HostState:
    return observe.parse("one", "blog", HELLO, seen(**changes))


def test_a_server_that_serves_is_read_as_it_is() -> None:
    state = parse()
    (web,) = state.containers
    assert (web.name, web.release, web.slot, web.process, web.version, web.running, web.address, web.status) == (
        "blog_web_v2", "v2", "green", "web", "v2", True, "10.213.1.140", "Up 3 minutes (healthy)")  # fmt: skip
    assert (state.serving, state.serving_slot) == ("v2", "green")
    assert (state.edge.present, state.edge.running, state.edge.generation, state.edge.release, state.edge.answering) == (
        True,
        True,
        "v2-abc",
        "v2",
        "v2-abc",
    )
    assert state.images == {"tidegate/blog:v2": "c", "tidegate/blog:v1": ""}
    assert (state.subnet, state.api, state.clock_skew) == ("10.213.0.0/20", "1.45", 0.0)
    assert (state.disk_free, state.srv_free) == (10, 10)


def test_srv_may_be_on_another_disk() -> None:
    state = parse(srv={"free": 3, "total": 20})
    assert (state.disk_free, state.srv_free) == (10, 3)


def test_nginx_that_does_not_know_the_app_has_answered_and_one_that_is_silent_has_not() -> None:
    assert parse(answering=None, edge_answers=True).edge.answers
    assert not parse(answering=None, edge_answers=False).edge.answers


def test_the_environment_is_read_from_the_nginx_file_and_the_manifest() -> None:
    assert parse().edge.environment == "production"
    assert parse().environments == {"production"}
    assert parse(releases={"v2.json": replace(RELEASE, environment="staging").to_json()}).environments == {
        "production",
        "staging",
    }
    assert parse(
        edge={}, answering=None, releases={"v2.json": replace(RELEASE, environment="staging").to_json()}
    ).environments == {"staging"}


def test_a_manifest_from_before_environments_were_kept_is_of_none() -> None:
    known = json.loads(RELEASE.to_json())
    del known["environment"]
    assert parse(releases={"v2.json": json.dumps(known)}, edge={}).environments == frozenset()


def test_addresses_of_all_apps_running_or_stopped_and_of_strangers_are_taken() -> None:
    stopped = listed(
        "blog_web_v1",
        "Exited (0) 2 hours ago",
        "exited",
        fixed="10.213.1.139",
        release="v1",
        slot="blue",
        process="web",
        version="v1",
    )
    state = parse(engine={"containers": [WEB, NGINX, SHOP, stopped], "network": NETWORK, "images": []})
    assert state.taken >= {"10.213.1.140", "10.213.0.2", "10.213.1.7", "10.213.1.139", "10.213.1.99"}


@pytest.mark.parametrize(
    ("state", "running"),
    [("running", True), ("restarting", True), ("paused", True), ("exited", False), ("created", False), ("dead", False)],
)
def test_what_may_still_answer_counts_as_running(state: str, running: bool) -> None:
    containers = [listed("blog_web_v2", "", state, release="v2", process="web")]
    assert parse(engine={"containers": containers, "network": None, "images": []}).containers[0].running is running


def test_nothing_there_is_a_state_too() -> None:
    state = parse(engine={"containers": [], "network": None, "images": []}, releases={}, edge={}, answering=None)
    assert (state.containers, state.releases, state.serving, state.serving_slot, state.subnet) == ((), (), None, None, None)
    assert not state.edge.present


def test_what_nginx_answers_counts_more_than_its_file() -> None:
    old = Release.from_json(RELEASE.to_json().replace('"v2', '"v1'), complete=True)
    state = parse(releases={"v1.json": old.to_json(), "v2.staged": RELEASE.to_json()}, answering="v1-abc")
    assert (state.edge.release, state.serving) == ("v2", "v1")


def test_without_the_manifest_of_what_answers_the_file_is_believed() -> None:
    assert parse(releases={}).serving == "v2"


def test_where_nothing_answers_the_file_is_believed() -> None:
    assert parse(answering=None).serving == "v2"


def test_a_staged_manifest_is_not_complete_and_the_others_are() -> None:
    assert not parse(releases={"v2.staged": RELEASE.to_json()}).releases[0].complete
    assert parse().releases[0].complete


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"id": "v2"}', '"x"', RELEASE.to_json()[:-20], RELEASE.to_json().replace('"port"', '"ports"')],
)
def test_a_damaged_manifest_is_told_and_ignored(text: str) -> None:
    state = parse(releases={"v1.json": text, "v2.json": RELEASE.to_json()})
    assert [one.id for one in state.releases] == ["v2"]
    assert len(state.problems) == 1
    assert state.problems[0].startswith("releases/v1.json is damaged and ignored")


def test_a_manifest_survives_writing_and_reading() -> None:
    assert Release.from_json(RELEASE.to_json(), complete=False) == RELEASE


def test_the_domains_of_other_apps_are_known_and_strange_files_are_not_believed() -> None:
    shop = EDGE.replace('"app": "blog"', '"app": "shop"').replace("blog.example.com", "shop.example.com")
    state = parse(edge={"blog.conf": EDGE, "shop.conf": shop, "hand.conf": "server {}", "half.conf": "# tidegate {"})
    assert state.edge.claims == {"blog.example.com": "blog", "shop.example.com": "shop"}


def line(**record: Any) -> str:
    return json.dumps({"time": "noon", "operation": "1", "kind": "deploy", "release": "v2", "by": "ann", **record}) + "\n"


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        ("", None),
        (line(event="begin"), "deploy of v2 by ann at noon"),
        (line(event="begin") + line(event="end"), None),
        (line(event="begin") + line(event="step"), "deploy of v2 by ann at noon"),
        (line(event="begin") + line(event="end", operation="other"), "deploy of v2 by ann at noon"),
        (line(event="begin") + line(event="begin", operation="2", release="v3") + line(event="end", operation="2"), None),
        (line(event="begin")[:20], None),
        (line(event="begin") + line(event="end")[:-9], "deploy of v2 by ann at noon"),
        (line(event="begin") + line(event="end")[:-9] + "\n" + line(event="end"), None),
        ("half of a line\n" + line(event="begin") + line(event="end"), None),
        ('7\n[]\n"event"\nnull\n{"event": "step"}\n', None),
    ],
)
def test_an_operation_without_an_end_is_unfinished(journal: str, expected: str | None) -> None:
    assert observe.unfinished(journal) == expected


def test_the_engine_is_asked_in_one_round_trip_and_the_names_cannot_break_the_question() -> None:
    asked = observe.question("blog")
    assert (asked["folder"], asked["journal"], asked["edge"]) == (
        "/srv/tidegate/blog/releases",
        "/srv/tidegate/blog/journal.jsonl",
        "/srv/tidegate/edge/apps",
    )
    assert asked["engine"]["images"] == "/images/json?filters=%7B%22label%22%3A%20%5B%22dev.tidegate.app%3Dblog%22%5D%7D"


def test_an_engine_that_did_not_answer_is_not_taken_for_an_empty_one() -> None:
    for silent in ("containers", "images"):
        with pytest.raises(Refused, match="engine"):
            parse(engine={**seen()["engine"], silent: None})
