"""The nginx files: what they say, that nginx takes them, and that nothing in a configuration breaks out of them."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testcontainers.core.container import DockerContainer

from deploy.edge import EdgeFile, main_file, public_proof, read_head, render, status_host
from deploy.edge import test_file as file_to_test
from deploy.edge_setup import IMAGE
from ops.bases import ensure_base
from ops.local_engine import ensure

GIXY = Path(sys.executable).with_name("gixy")
BLOG = EdgeFile(app="blog", release="v2", generation="v2-0123456789abcdef", upstream="10.213.1.140", port=3000,
                domains=("blog.example.com", "www.blog.example.com"), body_size="10m", timeout=60, idle=5, gzip=True, pem=None, environment="production")  # fmt: skip
SHOP = replace(
    BLOG,
    app="shop",
    domains=("shop.example.com",),
    gzip=False,
    extra="location /old { return 301 /new; }\n\nadd_header X-Shop 'é $host';",
)
SECURE = replace(BLOG, app="bank", domains=("bank.example.com",), pem="bank-0123.pem")


def test_the_first_line_says_what_the_file_is() -> None:
    assert read_head(render(BLOG)) == {
        "app": "blog", "release": "v2", "generation": "v2-0123456789abcdef", "domains": ["blog.example.com", "www.blog.example.com"],
        "environment": "production",
    }  # fmt: skip


@given(release=st.text(min_size=1), extra=st.text())
def test_no_text_escapes_the_first_line_or_hides_it(release: str, extra: str) -> None:
    text = render(replace(BLOG, release=release, extra=extra))
    assert read_head(text)["release"] == release
    assert text.split("\n")[1].startswith("upstream tidegate_blog { server 10.213.1.140:3000; }")


@pytest.mark.parametrize(
    "text",
    ["", "server {}", "# tidegate", "# tidegate []", "# tidegate {", "# tidegate null", " # tidegate {}", "\n# tidegate {}"],
)
def test_a_file_that_is_not_ours_says_nothing(text: str) -> None:
    assert read_head(text) == {}


def test_the_lines_of_the_user_stand_in_the_server_of_the_app_and_nowhere_else() -> None:
    text = render(SHOP)
    before, _, after = text.partition("    location /old { return 301 /new; }")
    assert before.count("server {") == 1
    assert "listen 7809" in after
    assert '# tidegate {"app": "shop"' in text.splitlines()[0]


def test_what_looks_like_our_first_line_in_the_users_lines_is_not_believed() -> None:
    text = render(replace(BLOG, extra='# tidegate {"app": "bank", "domains": ["bank.example.com"]}'))
    assert read_head(text)["app"] == "blog"


def test_headers_websockets_timeouts_and_sizes_are_set() -> None:
    text = render(replace(BLOG, timeout=0.5, idle=2.5, body_size="1g"))
    for line in ("proxy_set_header Host $host;", "proxy_set_header X-Forwarded-Proto $scheme;", "proxy_set_header Upgrade $http_upgrade;",
                 "proxy_set_header Connection $tidegate_connection;", "client_max_body_size 1g;", "keepalive_min_timeout 2500ms;",
                 "proxy_read_timeout 500ms;", "proxy_http_version 1.1;", "gzip on;"):  # fmt: skip
        assert line in text
    assert "gzip" not in render(SHOP)


def hides(text: str, path: str) -> bool:
    """Tell whether nginx answers 404 itself; it compares what is left of a path once slashes are merged and dots resolved."""
    return any(re.search(pattern, path, re.IGNORECASE) for pattern in re.findall(r'location ~\* "(.*)" \{ return 404; \}', text))


@pytest.mark.parametrize("figures", ["/metrics", "/metrics/", "/internal/v1.2/metrics-all"])
@pytest.mark.parametrize("edge", [BLOG, SECURE])
def test_an_apps_figures_are_hidden_however_it_takes_their_path(edge: EdgeFile, figures: str) -> None:
    text = render(replace(edge, hidden=figures))
    path = figures.rstrip("/")
    for asked in (path, f"{path}/", path.upper()):
        assert hides(text, asked)
    for other in ("/", "/health", f"{path}x", f"{path}/x", f"/x{path}", path.replace(".", "x") if "." in path else "/m"):
        assert not hides(text, other)
    assert not hides(render(edge), path)


def test_with_tls_plain_http_is_redirected() -> None:
    text = render(SECURE)
    assert "return 301 https://$host$request_uri;" in text
    assert "listen 443 ssl;" in text
    assert "ssl_certificate /etc/nginx/tidegate/tls/bank-0123.pem;" in text


def test_over_tls_a_name_of_no_app_is_refused() -> None:
    assert "listen 443 ssl default_server;" in main_file()
    assert "ssl_reject_handshake on;" in main_file()


def test_the_generation_is_proven_inside_and_outside() -> None:
    text = render(BLOG)
    assert f"location = {public_proof(BLOG.generation)} {{" in text
    assert f"server_name {status_host('blog')};" in text
    assert 'return 200 "v2-0123456789abcdef";' in text


def test_the_staged_file_is_tested_in_place_of_the_live_one_beside_the_other_apps() -> None:
    text = file_to_test("blog", ("blog.conf", "shop.conf"))
    included = [line.strip() for line in text.splitlines() if "include" in line and "mime" not in line]
    assert included == ["include /etc/nginx/tidegate/apps/shop.conf;", "include /etc/nginx/tidegate/staged/blog.conf;"]
    assert "/run/nginx.pid" not in text


def write_all(folder: Path, *files: EdgeFile) -> None:
    (folder / "apps").mkdir()
    (folder / "nginx.conf").write_text(main_file())
    for file in files:
        (folder / "apps" / f"{file.app}.conf").write_text(render(file))


def write_pem(folder: Path) -> None:
    (folder / "tls").mkdir()
    pem = folder / "tls" / "bank-0123.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=bank",
                    "-keyout", pem, "-out", folder / "cert"], check=True, capture_output=True)  # fmt: skip
    pem.write_text(pem.read_text() + (folder / "cert").read_text())


@pytest.fixture(scope="module")
def image() -> str:
    """Return the edge's image, made where it is not there."""
    ensure(print)
    ensure_base(IMAGE, print)
    return IMAGE


def nginx(image: str, folder: Path, *options: str) -> DockerContainer:
    command = ["nginx", "-c", "/etc/nginx/tidegate/nginx.conf", *options]
    return DockerContainer(image).with_volume_mapping(str(folder), "/etc/nginx/tidegate", "ro").with_command(command)


def nginx_test(image: str, folder: Path) -> tuple[int, str]:
    """Return how `nginx -t` ends, and its words."""
    with nginx(image, folder, "-t") as container:
        code = container.get_wrapped_container().wait()["StatusCode"]
        return code, b"".join(container.get_logs()).decode()


@pytest.mark.integration
def test_nginx_takes_several_apps_with_and_without_tls(image: str, tmp_path: Path) -> None:
    write_all(tmp_path, replace(BLOG, hidden="/internal/v1.0~x@y,z-/metrics"), SHOP, SECURE)
    write_pem(tmp_path)
    code, words = nginx_test(image, tmp_path)
    assert code == 0, words
    assert "warn" not in words


@pytest.mark.integration
def test_over_tls_a_name_of_no_app_gets_no_certificate_and_an_apps_name_gets_its_own(image: str, tmp_path: Path) -> None:
    write_all(tmp_path, BLOG, SECURE)
    write_pem(tmp_path)
    with nginx(image, tmp_path, "-g", "daemon off;").with_exposed_ports(443) as container:
        where = f"127.0.0.1:{container.get_exposed_port(443)}"
        assert asked(where, "bank.example.com") == ("TLSv1.3", "h2")
        assert asked(where, "bank.example.com", ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", "h2")
        for name in ("blog.example.com", "nobody.example.com", None):
            with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
                asked(where, name)


def asked(where: str, name: str | None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[str | None, str | None]:
    """Shake hands, as soon as nginx listens; return which TLS and which HTTP were agreed on."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, newest
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = where.rpartition(":")
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection((host, int(port)), 5) as line, context.wrap_socket(line, server_hostname=name) as safe:
                return safe.version(), safe.selected_alpn_protocol()
        except (ConnectionError, ssl.SSLEOFError):  # docker's proxy listens before nginx does
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.integration
@pytest.mark.parametrize(
    "extra",
    [
        "no_such_directive on;",
        "}",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("location / {", "}}}", 'return 200 "')),
        pytest.param("include /nowhere/*;\ninclude /nowhere.conf;", marks=pytest.mark.slow),
    ],
)
def test_nginx_refuses_bad_lines_of_a_user_with_the_file_and_line(image: str, tmp_path: Path, extra: str) -> None:
    write_all(tmp_path, replace(BLOG, extra=extra))
    code, words = nginx_test(image, tmp_path)
    assert code == 1
    assert "emerg" in words


@pytest.mark.skipif(not GIXY.exists(), reason="gixy is not installed")
@pytest.mark.parametrize(
    ("files", "skipped"), [((replace(BLOG, hidden="/v1.0/metrics"), SHOP), ""), ((BLOG, SECURE), "hsts_header")]
)
def test_gixy_finds_nothing_in_the_files(tmp_path: Path, files: tuple[EdgeFile, ...], skipped: str) -> None:
    """Strict-Transport-Security outlives a deploy by a year, so it is the user's own line to add."""
    write_all(tmp_path, *files)
    (tmp_path / "nginx.conf").write_text(main_file(f"{tmp_path}/apps/*.conf"))
    options = ["--skips", skipped] if skipped else []
    done = subprocess.run([GIXY, *options, tmp_path / "nginx.conf"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
