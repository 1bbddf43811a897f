"""The only door to a server's figures: what it lets through, and to whom."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monitoring.gate import render
from monitoring.inventory import inventory
from ops.config import Environment
from tests.monitoring.watched import AWAY, ONE, TWO, environment, with_database

GIXY = Path(sys.executable).with_name("gixy")
APPS = ("10.213.0.0/20", "fd00:7::/64")
FIGURES: dict[str, Any] = {"metrics": {}}
ALONE, PAIR = environment(app=FIGURES), environment(ONE, TWO, app=with_database() | FIGURES)
APART = environment(ONE, app=FIGURES, monitoring={"host": AWAY, "collector": "promtail"})


def gates(env: Environment, apps: tuple[str, ...] = APPS) -> list[str]:
    """Return nginx's file of each server; the apps' network is only where the app is."""
    known = inventory(env)
    found = [render(known, host, apps if host.app else ()) for host in known.hosts]
    assert {(file.path, file.mode, file.owner) for files in found for file in files} == {("gate/nginx.conf", 0o644, 0)}
    return [file.content for files in found for file in files]


def locations(text: str) -> list[str]:
    return [path.strip('"') for path in re.findall(r"location (?:= |~ )?(\S+) \{", text)]


def http_servers(text: str) -> list[str]:
    """Return the two that speak HTTP: the figures', and the engine's."""
    found: list[str] = re.findall(r"(    server {\n        listen 808[01];.*?\n    }\n)", text, re.DOTALL)
    assert len(found) == 2
    return found


def app_path(env: Environment) -> re.Pattern[str]:
    (found,) = re.findall(r"location ~ (\^/app/\S+) \{", gates(env)[0])
    return re.compile(found)


def engine_path() -> re.Pattern[str]:
    (found,) = re.findall(r'location ~ "(.*_ping.*)" \{', gates(ALONE)[0])
    return re.compile(found)


def test_each_job_of_a_server_has_its_path_and_no_other_has() -> None:
    first, second = gates(PAIR)
    jobs = [f"/{job}/metrics" for job in ("node", "cadvisor", "collector", "edge", "postgres")]
    assert [path for path in locations(first) if path.endswith("/metrics")] == jobs
    assert [path for path in locations(second) if path.endswith("/metrics")] == jobs[:-1]
    assert "set $target tidegate-monitoring-postgres-exporter-1:9187;" in first


def test_everything_behind_it_is_named_by_its_container_which_no_service_of_an_app_can_be_called() -> None:
    """In the network that the gate shares with the apps, one of theirs may be called `node` or `loki`."""
    for text in gates(PAIR) + gates(APART):
        found = re.findall(r"set \$\w+ (\S+);", text)
        assert found
        assert all(re.fullmatch(r"tidegate-monitoring-[a-z-]+-1:\d+", one) for one in found)


@pytest.mark.parametrize(
    ("env", "target"), [(ALONE, "tidegate-monitoring-alloy-1:12345"), (APART, "tidegate-monitoring-promtail-1:9080")]
)
def test_the_collector_is_the_one_that_was_chosen(env: Environment, target: str) -> None:
    (collector,) = re.findall(r"location = /collector/metrics \{(.*?)\}\n        location", gates(env)[0], re.DOTALL)
    assert f"set $target {target};" in collector
    assert "proxy_pass http://$target/metrics;" in collector


def test_a_server_alone_lets_nobody_in_from_outside() -> None:
    (text,) = gates(ALONE)
    assert re.findall(r"listen (.*);", text) == ["8080", "8081"]
    assert "ssl" not in text


def test_other_servers_are_let_in_with_a_certificate_of_ours_and_not_otherwise() -> None:
    for text in gates(PAIR):
        outside = text.partition("listen 7814 ssl;")[2]
        assert "ssl_verify_client on;" in outside
        assert "ssl_client_certificate /etc/tidegate/tls/ca.pem;" in outside
        assert "ssl_protocols TLSv1.3;" in outside
        assert text.count("listen") == 3


def test_logs_are_taken_from_other_servers_beside_the_stack_only() -> None:
    assert ["/loki/api/v1/push" in text for text in gates(PAIR)] == [True, False]
    assert ["/loki/api/v1/push" in text for text in gates(APART)] == [False, True]
    assert "/loki" not in gates(ALONE)[0]


def test_a_server_without_the_app_asks_no_containers_of_it() -> None:
    assert ["/app/" in text for text in gates(APART)] == [True, False]


def test_an_app_that_tells_nothing_is_not_asked() -> None:
    assert ["/app/" in text for text in gates(environment(ONE, TWO))] == [False, False]


def test_apps_are_told_nothing_neither_figures_nor_of_the_engine() -> None:
    """The gate is in their network, to ask them; what `return` says there, allow and deny do not change."""
    for text in gates(ALONE) + gates(PAIR) + gates(APART)[:1]:
        for server in http_servers(text):
            assert "".join(f"        deny {subnet};\n" for subnet in APPS) in server.partition("location")[0]
            assert "allow" not in server
            assert set(re.findall(r"location (\S+ )?\S+ \{ return (\d+); \}", server)) <= {("= ", "200"), ("", "403")}
        assert [text.count(f"deny {subnet};") for subnet in APPS] == [2, 2]


def test_where_no_apps_are_nobody_has_to_be_kept_out() -> None:
    for server in http_servers(gates(APART)[1]):
        assert "deny" not in server.partition("location")[0]


def test_everything_is_only_read() -> None:
    for text in gates(ALONE) + gates(PAIR) + gates(APART):
        for server in http_servers(text):
            places = re.findall(r"location .*? \{\n(.*?)\n        \}\n", server, re.DOTALL)
            assert places
            assert all(place.lstrip().startswith("limit_except GET { deny all; }\n") for place in places)
            assert server.count("proxy_pass") == server.count("limit_except GET { deny all; }")


@pytest.mark.parametrize(
    "path", ["/_ping", "/version", "/info", "/containers/json", "/v1.41/containers/json", "/v1.53/networks", "/networks"]
)
def test_what_discovery_asks_of_the_engine_is_answered(path: str) -> None:
    assert engine_path().search(path)


@pytest.mark.parametrize(
    "path",
    [
        "/containers/blog_web_v1/json", "/v1.41/containers/blog_web_v1/json", "/containers/create", "/containers/x/exec",
        "/containers/x/archive", "/containers/x/logs", "/images/json", "/secrets", "/v1.41/networks/x", "/containers/json/x",
        "/x/containers/json", "/v1.41x/info", "/", "/containers/json/../x/json",
    ],
)  # fmt: skip
def test_nothing_else_of_it_is_and_nothing_that_shows_an_environment_or_changes_anything(path: str) -> None:
    assert not engine_path().search(path)


def test_the_engine_is_only_read() -> None:
    for text in gates(ALONE) + gates(PAIR):
        (engine,) = re.findall(r"listen 8081;(.*?)\n    }", text, re.DOTALL)
        assert "limit_except GET { deny all; }" in engine
        assert "location / { return 403; }" in engine
        assert text.count("docker.sock") == 1


def test_the_engine_is_asked_for_the_path_that_was_judged_and_not_for_what_was_sent() -> None:
    """A request for /containers/x/json/../../json is judged without its dots, and must not reach the engine with them."""
    assert "proxy_pass http://unix:/var/run/docker.sock:$1/$2$is_args$args;" in gates(ALONE)[0]
    assert engine_path().groups == 2
    assert all("$request_uri" not in text for text in gates(PAIR))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/app/10.213.1.5/3000/metrics", True),
        ("/app/evil.example.com/3000/metrics", False),
        ("/app/10.213.1.5:80/3000/metrics", False),
        ("/app//3000/metrics", False),
    ],
)
def test_an_app_is_asked_at_an_address_and_not_at_a_name(path: str, *, allowed: bool) -> None:
    assert bool(app_path(ALONE).search(path)) == allowed


@pytest.mark.parametrize(
    ("metrics", "asked", "others"),
    [
        ({}, "3000/metrics", ("3000/", "3000/admin", "3000/metrics/x", "80/metrics", "5432/metrics", "13000/metrics")),
        ({"port": 9091}, "9091/metrics", ("3000/metrics", "9091/")),
        ({"path": "/internal/m.x@1"}, "3000/internal/m.x@1", ("3000/metrics", "3000/internal/mxx@1", "3000/internal/m.x@1/y")),
    ],
)
def test_an_app_is_asked_for_its_figures_and_for_nothing_else(
    metrics: dict[str, Any], asked: str, others: tuple[str, ...]
) -> None:
    env = environment(app={"metrics": metrics})
    assert app_path(env).search(f"/app/10.213.1.5/{asked}")
    assert f"proxy_pass http://$1:{asked};" in gates(env)[0]
    assert not [other for other in others if app_path(env).search(f"/app/10.213.1.5/{other}")]


# An app is asked at the address that Prometheus found, and for its figures only (ssrf). The engine's paths stand in full in the
# pattern, so nothing of them is left to decode (proxy_pass_normalized). A worker with 512 connections needs no more than the 1024
# files that every process may open (worker_rlimit…). No browser comes here (hsts_header). Whoever is denied may hear that the gate
# is healthy, and that it says 403 (return_bypasses…).
ACCEPTED = "ssrf,proxy_pass_normalized,worker_rlimit_nofile_vs_connections,hsts_header,return_bypasses_allow_deny"


@pytest.mark.skipif(not GIXY.exists(), reason="gixy is not installed")
def test_gixy_finds_nothing_else(tmp_path: Path) -> None:
    for number, text in enumerate(gates(PAIR) + gates(APART)):
        file = tmp_path / f"{number}.conf"
        file.write_text(text)
        done = subprocess.run([GIXY, "--skips", ACCEPTED, file], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not here")
def test_nginx_takes_the_files(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(gates(ALONE)[0])
    done = subprocess.run(["nginx", "-t", "-c", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
