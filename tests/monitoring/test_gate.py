"""The only door to a server's figures: what it lets through, and to whom."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring.gate import render
from monitoring.inventory import inventory
from ops.config import Environment
from tests.monitoring.watched import AWAY, ONE, TWO, environment, with_database

GIXY = Path(sys.executable).with_name("gixy")
ALONE, PAIR = environment(), environment(ONE, TWO, app=with_database())
APART = environment(ONE, monitoring={"host": AWAY, "collector": "promtail"})


def gates(env: Environment) -> list[str]:
    """Return nginx's file of each server."""
    known = inventory(env)
    found = [render(known, host) for host in known.hosts]
    assert {(file.path, file.mode, file.owner) for files in found for file in files} == {("gate/nginx.conf", 0o644, 0)}
    return [file.content for files in found for file in files]


def locations(text: str) -> list[str]:
    return [path.strip('"') for path in re.findall(r"location (?:= |~ )?(\S+) \{", text)]


def engine_path() -> re.Pattern[str]:
    (found,) = re.findall(r'location ~ "(.*_ping.*)" \{', gates(ALONE)[0])
    return re.compile(found)


def test_each_job_of_a_server_has_its_path_and_no_other_has() -> None:
    first, second = gates(PAIR)
    jobs = [f"/{job}/metrics" for job in ("node", "cadvisor", "collector", "edge", "postgres")]
    assert [path for path in locations(first) if path.endswith("/metrics")] == jobs
    assert [path for path in locations(second) if path.endswith("/metrics")] == jobs[:-1]
    assert "set $target postgres-exporter:9187;" in first


@pytest.mark.parametrize(("env", "target"), [(ALONE, "alloy:12345"), (APART, "promtail:9080")])
def test_the_collector_is_the_one_that_was_chosen(env: Environment, target: str) -> None:
    assert f"location = /collector/metrics {{\n            set $target {target};" in gates(env)[0]


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


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/app/10.213.1.5/3000/metrics", True),
        ("/app/evil.example.com/80/", False),
        ("/app/10.0.0.1/80", False),
        ("/app//80/x", False),
    ],
)
def test_an_app_is_asked_at_an_address_and_not_at_a_name(path: str, *, allowed: bool) -> None:
    (found,) = re.findall(r"location ~ (\^/app/\S+) \{", gates(ALONE)[0])
    assert bool(re.search(found, path)) == allowed


# An app is asked at the address that Prometheus found, and nobody else gets here (ssrf). The engine's paths stand in full in the
# pattern, so nothing of them is left to decode (proxy_pass_normalized). A worker with 512 connections needs no more than the 1024
# files that every process may open (worker_rlimit…). No browser comes here (hsts_header).
ACCEPTED = "ssrf,proxy_pass_normalized,worker_rlimit_nofile_vs_connections,hsts_header"


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
