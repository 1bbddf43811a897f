"""Pausing an app: what nginx serves while it drains and while it is closed."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer

from backup.agent.writers import Paused, Writer, closed, draining, head, idle
from deploy.edge import EdgeFile, main_file, read_head, render, status_host
from deploy.edge_setup import IMAGE
from ops.bases import ensure_base
from ops.local_engine import ensure

BLOG = EdgeFile(app="blog", release="v2", generation="v2-0123456789abcdef", upstream="10.213.1.140", port=3000,
                domains=("blog.example.com", "www.blog.example.com"), body_size="1k", timeout=60, idle=2.5, gzip=True, pem=None,
                environment="production")  # fmt: skip
SECURE = replace(BLOG, pem="blog-0123.pem", extra="add_header X-Blog yes;")


@pytest.mark.parametrize("file", [BLOG, SECURE], ids=["plain", "TLS"])
def test_deploys_still_read_what_serves_from_the_first_line(file: EdgeFile) -> None:
    live = render(file)
    assert head(live) == read_head(live)
    for text in (draining(live, "draining-1"), closed("blog", live, "draining-1")):
        assert read_head(text) == {**read_head(live), "generation": "draining-1"}


@pytest.mark.parametrize("text", ["", "server {}", "# tidegate", "# tidegate []", "# tidegate {"])
def test_a_file_that_is_not_ours_says_nothing(text: str) -> None:
    assert head(text) == {}


def test_while_it_drains_only_the_generation_and_the_keeping_of_connections_are_others() -> None:
    live = render(BLOG)
    changed = [(a, b) for a, b in zip(live.splitlines(), draining(live, "draining-1").splitlines(), strict=True) if a != b]
    assert [b.strip() for _, b in changed[1:]] == [
        "keepalive_timeout 0;", "location = /.well-known/tidegate/draining-1 {", 'return 200 "draining-1";',
    ]  # fmt: skip
    assert idle(live) == 2.5


def test_a_closed_app_passes_nothing_on_and_keeps_its_tls() -> None:
    text = closed("blog", render(SECURE), "maintenance-1")
    assert "proxy_pass" not in text
    assert "upstream" not in text
    for line in (
        "listen 443 ssl;",
        "listen 80;",
        "ssl_certificate /etc/nginx/tidegate/tls/blog-0123.pem;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
    ):
        assert text.count(line) == 1
    assert "ssl" not in closed("blog", render(BLOG), "maintenance-1")


def test_who_was_paused_is_read_as_it_was_written() -> None:
    paused = Paused((Writer("blog_web_v2", "v2", "web", {"Name": "always", "MaximumRetryCount": 0}),), "v2-0123")
    assert Paused.from_json({"containers": [vars(one) for one in paused.containers], "generation": paused.generation}) == paused


@pytest.mark.integration
@pytest.mark.parametrize("file", [BLOG, SECURE], ids=["plain", "TLS"])
def test_a_closed_app_answers_everything_with_a_503_that_says_when_to_try_again(file: EdgeFile, tmp_path: Path) -> None:
    ensure(print)
    ensure_base(IMAGE, print)
    for folder in ("apps", "tls"):
        (tmp_path / folder).mkdir()
    pem = tmp_path / "tls" / "blog-0123.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=blog",
                    "-keyout", pem, "-out", tmp_path / "cert"], check=True, capture_output=True)  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "cert").read_text())
    (tmp_path / "nginx.conf").write_text(main_file())
    (tmp_path / "apps" / "blog.conf").write_text(closed("blog", render(file), "maintenance-1"))
    (tmp_path / "body").write_bytes(bytes(5_000_000))
    with (
        DockerContainer(IMAGE)
        .with_volume_mapping(str(tmp_path), "/etc/nginx/tidegate", "ro")
        .with_command(["nginx", "-c", "/etc/nginx/tidegate/nginx.conf", "-g", "daemon off;"])
        .with_exposed_ports(80, 443, 7809) as nginx
    ):
        ports = {port: int(nginx.get_exposed_port(port)) for port in (80, 443, 7809)}
        wait_for(ports[7809])
        assert asked("http", status_host("blog"), ports[7809], "/") == ("200", "", "maintenance-1")
        for scheme, port in (("http", 80), *([("https", 443)] if file.pem else [])):
            for words in (["/"], ["/posts", "--data-binary", f"@{tmp_path}/body"], ["/", "-X", "DELETE"]):
                status, retry, body = asked(scheme, "www.blog.example.com", ports[port], *words)
                assert (status, retry) == ("503", "5"), (scheme, words)
                assert "try again" in body
        assert asked("http", "nobody.example.com", ports[80], "/")[0] == "404"


def asked(scheme: str, name: str, port: int, path: str, *options: str) -> tuple[str, str, str]:
    """Return status, Retry-After and body."""
    form = "\n%{http_code} %header{retry-after}"
    command = [
        "curl",
        "-sk",
        "--path-as-is",
        "--connect-to",
        f"::127.0.0.1:{port}",
        "-w",
        form,
        *options,
        f"{scheme}://{name}{path}",
    ]
    body, _, last = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.rpartition("\n")
    status, _, retry = last.partition(" ")
    return status, retry, body


def wait_for(port: int) -> None:
    """Wait until nginx answers: docker's proxy listens before it does."""
    deadline = time.monotonic() + 10
    while subprocess.run(["curl", "-s", f"127.0.0.1:{port}"], capture_output=True).returncode:
        assert time.monotonic() < deadline, "nginx does not answer"
        time.sleep(0.05)
