"""An environment of two servers, watched: the stack on one, exporters on both, an alert that fires and arrives."""

from __future__ import annotations

import json
import re
import socket
import ssl
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from monitoring import images
from monitoring.inventory import GATE_PORT
from ops.stand_ins import can_make
from ops.this_machine import local_client
from tests.integration.project import REPOSITORY, App, Server, blog_configuration, wait_until
from tests.integration.receivers import Kept, Post, web

pytestmark = pytest.mark.integration
PARTS = {"grafana": "grafana", "loki": "loki", "cadvisor": "cadvisor", "collector": "promtail"}
ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
SECRET = "s3cret-path"


def absent() -> list[str]:
    """Return the parts whose images this machine neither has nor can make; they are left out of the run, which says so."""
    lock, have = images.load(), {tag for one in local_client().api.images() for tag in one["RepoTags"] or ()}
    found = [part for part, name in PARTS.items() if lock[name].name not in have and not can_make(lock[name].name)]
    print(f"left out for want of their images: {', '.join(found) or 'nothing'}")
    return found


@pytest.fixture(scope="module")
def posts() -> Iterator[tuple[str, Kept[Post]]]:
    """A receiver of alerts that containers on the servers reach, and what it got."""
    gateway = str(local_client().api.inspect_network("bridge")["IPAM"]["Config"][0]["Gateway"])
    with web(gateway) as (port, kept):
        yield f"http://{gateway}:{port}/{SECRET}", kept


@pytest.fixture(scope="module")
def watched(root: Path, servers: list[Server], tag: str, posts: tuple[str, Kept[Post]]) -> Iterator[App]:
    """The blog on both servers, with the stack on the first."""
    configuration = blog_configuration(f"watched-{tag}")
    configuration["app"] |= {"volumes": {"blog-data": "/app/data"}}
    configuration["environments"] = {"sandbox": {"domain": "watched.localhost"}}
    configuration["monitoring"] = {
        "collector": "promtail", "without": absent(), "webhooks": {"pager": {"url": "PAGER"}}, "timeout": "90s",
    }  # fmt: skip
    app = App(root, servers, configuration, "watched.toml")
    secrets = root / ".env.sandbox"
    secrets.touch(mode=0o600)
    secrets.write_text(f"PAGER={posts[0]}\n")
    app.with_code("example", REPOSITORY / "example").deploy()
    try:
        yield app
    finally:
        secrets.unlink()
        app.inv("monitoring.down", "--yes", "--volumes")
        for server in servers:
            server.root(f"docker ps -aq --filter label=dev.tidegate.app={app.name} | xargs -r docker rm -f")
            server.root(f"rm -f /srv/tidegate/edge/apps/{app.name}.conf && docker kill -s HUP tidegate-edge")


@pytest.fixture(scope="module")
def up(watched: App) -> dict[str, Any]:
    """What the first `up` said, for scripts."""
    done = watched.inv("monitoring.up", "--json", timeout=400)
    print(done.said)
    assert SECRET not in done.said
    found: dict[str, Any] = done.document
    return found


def ask(app: App, expression: str) -> list[dict[str, Any]]:
    """Ask Prometheus where it listens."""
    url = f"http://127.0.0.1:7811/api/v1/query?{urlencode({'query': expression})}"
    found: list[dict[str, Any]] = json.loads(app.servers[0].root(f"python3 -c '{ASK}' '{url}'"))["data"]["result"]
    return found


def await_answer(app: App, expression: str, right: Callable[[list[dict[str, Any]]], bool], otherwise: str) -> None:
    """Ask until the answer is right; one that does not come counts as a wrong one, and is told should it be the last."""
    last: list[Any] = []

    def asked() -> bool:
        try:
            last[:] = ask(app, expression)
        except (AssertionError, json.JSONDecodeError) as error:  # it reads its files anew, or the machine is busy
            last[:] = [repr(error)]
            return False
        return right(last)

    try:
        wait_until(asked, otherwise, 60)
    except AssertionError as error:
        raise AssertionError(f"{otherwise}: {expression} gave {last}") from error


def listening(server: Server) -> set[str]:
    """Return the IPv4 addresses and ports on which something listens, those of every network but the server's own left out."""
    lines = [line.split() for line in server.root("cat /proc/net/tcp").splitlines()[1:]]
    pairs = [line[1].split(":") for line in lines if line[3] == "0A"]
    return {f"{socket.inet_ntoa(bytes.fromhex(address)[::-1])}:{int(port, 16)}" for address, port in pairs}


def private(root: Path) -> list[str]:
    hosts = tomllib.loads((root / ".tidegate/environments/sandbox.toml").read_text())["environments"]["sandbox"]["hosts"]
    return [host["private"] for host in hosts]


def test_both_servers_are_watched_and_nothing_is_open_to_others(watched: App, up: dict[str, Any]) -> None:
    first, second = up["services"].values()
    assert {"prometheus", "alertmanager", "blackbox", "gate", "node", "edge-exporter"} <= set(first)
    assert "prometheus" not in second
    assert {"gate", "node", "edge-exporter"} <= set(second)
    each = f'up{{job=~"node|edge|app",app=~"|{watched.name}"}} == 1'
    await_answer(
        watched, each, lambda found: len({(one["metric"]["job"], one["metric"]["host"]) for one in found}) == 6, "not scraped"
    )
    for server, address in zip(watched.servers, private(watched.root), strict=True):
        opened = {one for one in listening(server) if not re.match(r"127\.|.*:(22|80|443)$", one)}
        assert opened == {f"{address}:{GATE_PORT}"}


def test_every_rule_has_its_series_and_the_programs_take_their_files(watched: App, up: dict[str, Any]) -> None:
    await_answer(watched, "app:http_requests_slow:ratio1h", bool, "no ratio of slow requests")
    checked = watched.inv("monitoring.check", "--json")
    assert checked.document["ok"], checked.said


def test_a_drill_arrives_with_all_that_a_person_needs(watched: App, up: dict[str, Any], posts: tuple[str, Kept[Post]]) -> None:
    done = watched.inv("monitoring.drill", "--json", timeout=150)
    assert done.document["ok"]
    assert done.document["seconds"] <= 45
    post = posts[1].first(lambda one: "TidegateDrill" in one.alerts)
    (alert,) = post.body["alerts"]
    assert alert["labels"]["id"] == done.document["id"]
    assert {"summary", "description", "action", "runbook"} <= set(alert["annotations"])
    assert watched.servers[0].root("ls /srv/tidegate/metrics").count("drill") == 0


@pytest.mark.slow  # test_alert_delivery has it without servers
def test_a_drill_that_is_silenced_fails_and_says_so(watched: App, up: dict[str, Any]) -> None:
    silence = watched.inv("monitoring.silence", "--alert", "TidegateDrill", "--for", "5m", "--json").document[0]
    drill = watched.inv("monitoring.drill", "--timeout", "50", code=1)
    assert "silenced" in drill.said
    watched.inv("monitoring.silence", "--expire", silence["id"][:8])
    assert watched.inv("monitoring.silence", "--list", "--json").document == []


def test_the_stack_says_that_it_is_all_right_and_a_second_up_changes_nothing(watched: App, up: dict[str, Any]) -> None:
    await_answer(watched, 'ALERTS{alertname="Watchdog",alertstate="firing"}', bool, "nobody barks")
    status = watched.inv("monitoring.status", "--json").document
    assert status["ok"], status
    wait_until(lambda: "Watchdog" in watched.inv("monitoring.status", "--json").out, "Alertmanager does not hear the watchdog")
    ids = [server.root("docker ps -q --no-trunc | sort") for server in watched.servers]
    again = watched.inv("monitoring.up")
    assert "anew" not in again.said
    assert [server.root("docker ps -q --no-trunc | sort") for server in watched.servers] == ids


def two(found: list[dict[str, Any]]) -> bool:
    """Tell whether both servers are in an answer."""
    return len(found) == 2


@pytest.mark.slow  # test_alert_delivery has the silence without servers
def test_a_deploy_is_silent_for_its_containers_only_and_its_swap_shows(watched: App, up: dict[str, Any]) -> None:
    slots = {one["metric"]["slot"] for one in ask(watched, 'up{job="app"}')}
    done = watched.deploy("--force")
    (silence,) = watched.inv("monitoring.silence", "--list", "--json").document
    assert f'app="{watched.name}"' in silence["about"]
    (names,) = (one for one in silence["about"] if one.startswith("alertname"))
    assert not re.search("Budget|Probe|Watchdog|Backup|Host|Deploy", names)
    other = ({"blue", "green"} - slots).pop()
    await_answer(watched, f'up{{job="app",slot="{other}"}} == 1', two, "the new slot is not scraped")
    figures = f'tidegate_deploy_info{{app="{watched.name}",release="{done.document["release"]}"}}'
    await_answer(watched, figures, two, "no figures of the deploy")
    good = f'tidegate_deploy_success{{app="{watched.name}"}} == 1'
    await_answer(watched, good, two, "the deploy does not count as a good one")


def test_who_has_no_certificate_of_ours_gets_nothing_of_the_gate(watched: App, up: dict[str, Any]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((private(watched.root)[1], GATE_PORT), timeout=5) as plain, context.wrap_socket(plain) as line:
        line.sendall(b"GET /node/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try:
            answer = line.recv(4096)
        except ssl.SSLError:  # refused in the handshake itself
            return
    assert answer.split()[1] == b"400"


def test_nothing_of_the_engine_but_names_and_labels_is_read_through_the_gate(watched: App, up: dict[str, Any]) -> None:
    web = watched.servers[0].running(watched.name)[-1]
    id = watched.servers[0].root(f"docker inspect -f '{{{{.Id}}}}' {web}").strip()
    probe = (
        "import sys, http.client as h\nfor m, p in ([('GET', '/containers/json'), ('GET', '/containers/" + id + "/json'),"
        " ('POST', '/containers/" + id + "/stop'), ('GET', '/containers/" + id + "/archive?path=/')]):\n"
        " c = h.HTTPConnection(sys.argv[1], 8081, timeout=5); c.request(m, p); print(c.getresponse().status)"
    )
    address = (
        watched.servers[0]
        .root(
            "docker inspect -f '{{(index .NetworkSettings.Networks \"tidegate-monitoring\").IPAddress}}' tidegate-monitoring-gate-1"
        )
        .strip()
    )
    assert watched.servers[0].root(f'python3 -c "{probe}" {address}').split() == ["200", "403", "403", "403"]


def test_what_is_changed_in_ops_toml_is_read_anew_and_what_is_wrong_is_refused_before(watched: App, up: dict[str, Any]) -> None:
    watched.configure(objectives={"availability": 99.5})
    said = watched.inv("monitoring.up").said
    assert "prometheus reads its files anew" in said
    await_answer(watched, "tidegate:slo_availability:objective == 0.995", bool, "not read")


def test_logs_are_read_in_the_terminal(watched: App, up: dict[str, Any]) -> None:
    if "loki" in absent() or "collector" in absent():
        pytest.skip("the images of Loki and Promtail are not here")
    wait_until(lambda: "uvicorn" in watched.inv("monitoring.logs", "uvicorn", "--since", "1h").out, "no log arrived", 60)


def test_taken_down_it_leaves_what_it_collected(watched: App, up: dict[str, Any]) -> None:
    said = watched.inv("monitoring.down").said
    assert "tidegate-monitoring_prometheus" in said
    for server in watched.servers:
        assert not server.root("docker ps -q --filter label=com.docker.compose.project=tidegate-monitoring")
    assert "tidegate-monitoring_prometheus" in watched.servers[0].root("docker volume ls -q").split()


@pytest.mark.slow
def test_it_comes_back_with_what_it_collected(watched: App) -> None:
    watched.inv("monitoring.up", timeout=200)
    began = float(ask(watched, "min(min_over_time(timestamp(up)[1h:15s]))")[0]["value"][1])
    watched.inv("monitoring.down")
    watched.inv("monitoring.up", timeout=200)
    assert float(ask(watched, "min(min_over_time(timestamp(up)[1h:15s]))")[0]["value"][1]) <= began + 15
