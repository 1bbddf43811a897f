"""Grafana for everybody: what nginx is told, what deploys make of it, and which certificates are refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import edge, observe, refusals
from deploy.model import ImageRef
from monitoring.inventory import inventory
from monitoring.public_grafana import HOST, NAME, Site, bundle, file_to_test, head, owner, site
from monitoring.stack import Ground, wanted
from ops.config import Environment
from ops.errors import ConfigError, Refused
from ops.names import EDGE
from ops.secret import Secret
from tests.monitoring.public_certificates import NOW, Authority, pem_of
from tests.monitoring.watched import AWAY, ONE, environment
from tests.monitoring.watched import HOST as SERVER

GIXY = Path(sys.executable).with_name("gixy")
AUTHORITY = Authority.new()
DOMAIN = "watch.example.com"
CHAIN, KEY = AUTHORITY.issue(DOMAIN)
SITE = Site("production", DOMAIN, Secret(CHAIN + KEY))


def public(folder: Path, *hosts: Any, domain: str = DOMAIN, chain: str = CHAIN, **monitoring: Any) -> Environment:
    """Return an environment whose Grafana is for everybody."""
    (folder / "chain.pem").write_text(chain)
    table = {"domain": domain, "certificate": folder / "chain.pem", "key": "WATCH_KEY"}
    return environment(*(hosts or (SERVER,)), monitoring={"grafana": table, **monitoring})


def site_of(env: Environment, key: str = KEY, now: datetime = NOW) -> Site | None:
    return site(env, inventory(env), {"WATCH_KEY": Secret(key)}, now)


def refused(chain: str = CHAIN, key: str = KEY, domain: str = DOMAIN, now: datetime = NOW) -> str:
    with pytest.raises(Refused) as error:
        bundle(chain, key, domain, now, where="chain.pem", secret="WATCH_KEY")
    return str(error.value)


def test_nothing_is_public_unless_the_table_is_there() -> None:
    assert site_of(environment()) is None


def test_the_table_makes_a_site_of_certificate_and_key(tmp_path: Path) -> None:
    found = site_of(public(tmp_path))
    assert found
    assert (found.environment, found.domain) == ("production", DOMAIN)
    assert found.content.reveal() == CHAIN + KEY
    assert KEY not in found.text + repr(found)


def test_grafana_is_on_the_apps_network_only_where_it_is_public(tmp_path: Path) -> None:
    found = []
    for env in (environment(), public(tmp_path)):
        known = inventory(env)
        images = dict.fromkeys((*known.stack, "gate", "node", "cadvisor", "alloy", "edge-exporter"), "image")
        found.append(wanted(known, known.watcher, env.monitoring, Ground(), images).services["grafana"].get("networks"))
    assert found == [None, ["default", "apps"]]


def test_nginx_finds_grafana_by_name_at_every_request_so_that_it_starts_without_it() -> None:
    assert "resolver 127.0.0.11 valid=5s ipv6=off;" in SITE.text
    assert "set $tidegate_grafana tidegate-monitoring-grafana-1;" in SITE.text
    assert "proxy_pass http://$tidegate_grafana:3000;" in SITE.text
    assert "upstream" not in SITE.text


def test_it_is_served_over_tls_with_websockets_and_its_figures_are_hidden() -> None:
    for line in (f"server_name {DOMAIN};", "listen 443 ssl;", "http2 on;", "return 301 https://$host$request_uri;",
                 f"ssl_certificate /etc/nginx/tidegate/tls/{SITE.pem};", "proxy_set_header Upgrade $http_upgrade;",
                 "proxy_set_header Connection $tidegate_connection;", "location = /metrics { return 404; }",
                 "location ^~ /metrics/ { return 404; }"):  # fmt: skip
        assert line in SITE.text
    assert "Strict-Transport-Security" not in SITE.text  # Grafana's own


def test_the_pem_is_named_by_its_content_and_the_generation_by_all_that_is_served() -> None:
    other = replace(SITE, content=Secret("another"))
    assert SITE.pem.startswith("tidegate-grafana-")
    assert len(SITE.pem) == len("tidegate-grafana-.pem") + 16
    assert len({SITE.pem, other.pem}) == 2
    changed = [other, replace(SITE, domain="new.example.com"), replace(SITE, environment="staging")]
    assert len({one.generation for one in (SITE, *changed)}) == 4
    assert f"server_name {HOST};" in SITE.text
    assert f'return 200 "{SITE.generation}";' in SITE.text


def test_deploys_read_its_first_line_like_an_apps() -> None:
    assert edge.read_head(SITE.text) == head(SITE.text) == {
        "app": NAME, "release": SITE.generation, "generation": SITE.generation, "domains": [DOMAIN], "environment": "production",
    }  # fmt: skip


def test_a_deploy_on_its_domain_is_refused_and_others_do_not_mind_it() -> None:
    state = replace(observe.parse("host", "blog", HELLO, seen({f"{NAME}.conf": SITE.text})), subnet="10.213.0.0/20")
    image = ImageRef("tidegate/blog:v1", "v1", "")
    thief = environment(SERVER, domains=(DOMAIN,))
    assert refusals.refusals(thief, state, image) == (f"host: {DOMAIN} belongs to the app {NAME} there: choose another domain",)
    assert refusals.refusals(environment(), state, image) == ()
    assert refusals.unsafe(environment(), state) == ()


HELLO = {"engine": {"ApiVersion": "1.47"}, "skew": 0.0}


def seen(files: dict[str, str]) -> dict[str, Any]:
    """Return what an agent tells of a server on which nothing but these files is."""
    running = {"Names": [f"/{EDGE}"], "State": "running", "Labels": {}, "ImageID": "", "Status": "Up",
               "NetworkSettings": {"Networks": {}}}  # fmt: skip
    engine = {"containers": [running], "images": [], "network": {}}
    return {
        "engine": engine,
        "releases": {},
        "journal": "",
        "edge": files,
        "pems": [],
        "answering": None,
        "disk": {"free": 2**40},
    }


def test_the_app_whose_domain_it_wants_is_found() -> None:
    files = {"shop.conf": f'# tidegate {{"domains": ["{DOMAIN}"]}}\n', f"{NAME}.conf": SITE.text, "old.conf": "server {}", "bad.conf": "# tidegate ["}  # fmt: skip
    assert owner(DOMAIN, files) == "shop"
    assert owner("other.example.com", files) is None
    assert owner(DOMAIN, {f"{NAME}.conf": SITE.text}) is None


def test_the_staged_file_is_tested_beside_the_apps_in_the_main_file_of_the_bootstrap() -> None:
    text = file_to_test(edge.main_file(), [f"{NAME}.conf", "blog.conf"])
    included = [line.strip() for line in text.splitlines() if "include" in line and "mime" not in line]
    assert included == ["include /etc/nginx/tidegate/apps/blog.conf;", f"include /etc/nginx/tidegate/staged/{NAME}.conf;"]


@pytest.mark.parametrize("main", ["", "http { include /etc/nginx/conf.d/*.conf; }"])
def test_an_edge_with_another_main_file_is_refused(main: str) -> None:
    with pytest.raises(Refused, match=r"inv server\.bootstrap"):
        file_to_test(main, [])


@pytest.mark.parametrize("domain", [DOMAIN, "*.example.com"])
def test_a_certificate_for_the_domain_or_its_parents_star_will_do(domain: str) -> None:
    bundle(*AUTHORITY.issue("example.com", domain), DOMAIN, NOW, where="", secret="")


@pytest.mark.parametrize("domain", ["example.com", "*.watch.example.com", "*.com", "xwatch.example.com"])
def test_a_certificate_for_another_domain_is_refused_with_what_it_is_for(domain: str) -> None:
    chain, key = AUTHORITY.issue(domain)
    said = refused(chain, key)
    assert f"chain.pem: the certificate is not for {DOMAIN}" in said
    assert f"it is for {domain}" in said


def test_a_certificate_that_names_no_domain_is_refused() -> None:
    assert "it is for no domain" in refused(*AUTHORITY.issue())


def test_a_certificate_out_of_its_time_is_refused() -> None:
    assert "the certificate has expired" in refused(now=NOW + timedelta(days=11))
    assert "the certificate is not valid yet" in refused(now=NOW - timedelta(days=1))


def test_a_key_of_another_certificate_is_refused_and_so_is_a_chain_that_begins_with_the_issuer() -> None:
    _, other = AUTHORITY.issue(DOMAIN)
    assert "the key does not fit the first certificate" in refused(key=other)
    assert "the domain's own certificate first" in refused(chain=AUTHORITY.certificate + CHAIN)
    bundle(CHAIN + AUTHORITY.certificate, KEY, DOMAIN, NOW, where="", secret="")


@pytest.mark.parametrize(
    "chain",
    ["", "no PEM", KEY, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["empty", "text", "key", "broken"],
)
def test_a_file_without_a_certificate_is_refused(chain: str) -> None:
    assert "chain.pem: no certificate in this file" in refused(chain=chain)


@pytest.mark.parametrize("key", ["", "hunter2-hunter2", CHAIN, KEY[:80]], ids=["empty", "text", "chain", "cut"])
def test_a_secret_that_is_no_key_is_refused_without_being_shown(key: str) -> None:
    said = refused(key=key)
    assert "the secret WATCH_KEY: no private key that can be used" in said
    assert not key or key not in said


def test_chain_and_key_are_written_anew_so_that_nginx_takes_whatever_could_be_read() -> None:
    chain = f"Subject: watch\n{CHAIN}{AUTHORITY.certificate}".replace("\n", "\r\n")
    assert bundle(chain, KEY.replace("\n", " "), DOMAIN, NOW, where="", secret="") == CHAIN + AUTHORITY.certificate + KEY


def test_a_key_with_a_passphrase_is_refused() -> None:
    assert "passphrase" in refused(key=pem_of(ec.generate_private_key(ec.SECP256R1()), b"hunter2"))


def test_a_certificate_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    env = public(tmp_path)
    (tmp_path / "chain.pem").write_bytes(b"\x30\x82\xff\xfe")
    with pytest.raises(Refused, match="no certificate"):
        site_of(env)


def test_the_apps_own_domain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"blog\.example\.com is the app's own domain"):
        site_of(public(tmp_path, domain="blog.example.com"))


def test_a_host_without_the_edge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has the stack and no edge"):
        site_of(public(tmp_path, ONE, host=AWAY))


def test_it_is_refused_where_grafana_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leaves out"):
        site_of(public(tmp_path, without=["grafana"]))


@pytest.mark.skipif(not GIXY.exists(), reason="gixy is not installed")
def test_gixy_finds_nothing_in_the_file(tmp_path: Path) -> None:
    """Strict-Transport-Security comes from Grafana."""
    (tmp_path / f"{NAME}.conf").write_text(SITE.text)
    (tmp_path / "nginx.conf").write_text(edge.main_file(f"{tmp_path}/*.conf"))
    done = subprocess.run([GIXY, "--skips", "hsts_header", tmp_path / "nginx.conf"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
