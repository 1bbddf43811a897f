"""Grafana on a real edge beside a real app: served, renewed, refused, interrupted, taken away.

Behind it stands an nginx under the name of Grafana's container.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from monitoring import publishing
from monitoring.hosts import Host
from monitoring.inventory import inventory
from monitoring.public_grafana import Site
from monitoring.server import Server as Watched
from ops.config import Environment, Monitoring
from ops.config_load import load as load_project
from ops.config_monitoring import PublicGrafana
from ops.errors import Failed, Refused
from ops.link import Link
from ops.secret import Secret
from tests.integration.project import App, Server, assert_same
from tests.monitoring.public_certificates import Authority

pytestmark = pytest.mark.integration
DOMAIN = "watch.example.com"
GRAFANA = "tidegate-monitoring-grafana-1"
STAND_IN = """
events {}
http { server {
    listen 3000;
    default_type text/plain;
    location / { return 200 "$uri of $http_host, $http_x_forwarded_proto, $http_connection $http_upgrade"; }
    location /metrics { return 200 "figures"; }
} }
"""
START = f"docker run -d --name {GRAFANA} --network tidegate -v /srv/stand-in.conf:/it.conf:ro nginx:1.30 nginx -c /it.conf -g 'daemon off;'"
AUTHORITY = Authority.new()


@dataclass
class Edge:
    """The first server's edge, Grafana's stand-in behind it, and the app beside it."""

    server: Server
    watched: Watched
    environment: Environment
    app: App

    def site(self) -> Site:
        """Return Grafana's site with a certificate that is issued now."""
        return Site("sandbox", DOMAIN, Secret("".join(AUTHORITY.issue(DOMAIN))))

    def settle(self, wanted: Site | None) -> list[str]:
        """Make the edge serve it; return what was said."""
        said: list[str] = []
        publishing.settle(self.watched, wanted, said.append)
        return said

    def prepare(self, environment: Environment) -> Site | None:
        known = inventory(environment)
        chain, key = AUTHORITY.issue(DOMAIN, "blog.localhost")
        (self.app.root / "chain.pem").write_text(chain)
        return publishing.prepare(environment, known, [Host(known.watcher, self.watched)], {"WATCH_KEY": Secret(key)})

    def wanting(self, domain: str = DOMAIN, **changes: Any) -> Environment:
        """Return the environment with Grafana public."""
        grafana = PublicGrafana(domain=domain, certificate=self.app.root / "chain.pem", key="WATCH_KEY")
        return self.environment.model_copy(update={"monitoring": Monitoring(grafana=grafana), **changes})

    def get(self, path: str, domain: str = DOMAIN, **headers: str) -> tuple[int, str]:
        """Ask as everybody would, believing no other authority than ours."""
        with self._connected(domain) as line:
            asked = "".join(f"{name}: {value}\r\n" for name, value in {"Host": domain, **headers}.items())
            line.sendall(f"GET {path} HTTP/1.1\r\n{asked}\r\n".encode())
            answer = http.client.HTTPResponse(line)
            answer.begin()
            return answer.status, answer.read().decode()

    def certificate(self) -> str:
        """Return the certificate that is shown."""
        with self._connected(DOMAIN) as line:
            return ssl.DER_cert_to_PEM_cert(line.getpeercert(binary_form=True) or b"")

    def _connected(self, domain: str) -> ssl.SSLSocket:
        context = ssl.create_default_context(cadata=AUTHORITY.certificate)
        plain = socket.create_connection(("127.0.0.1", self.server.known.https_port), 5)
        try:
            return context.wrap_socket(plain, server_hostname=domain)
        except OSError:
            plain.close()
            raise

    def files(self) -> list[str]:
        """Return which files of Grafana's are on the edge, with their modes."""
        return self.server.root("cd /srv/tidegate/edge; find . -name '*tidegate-grafana*' -printf '%P %m\\n' | sort").splitlines()

    def is_sound(self) -> bool:
        """Tell whether nginx could start with its files as they are now, and the app is served."""
        self.server.root("docker exec tidegate-edge nginx -t -q -c /etc/nginx/tidegate/nginx.conf")
        return self.server.get(self.app.domain, "/health")[0] == 200


@pytest.fixture(scope="module")
def edge(servers: list[Server], blog_app: App) -> Iterator[Edge]:
    blog_app.configure()
    blog_app.deploy()
    servers[0].root(f"cat > /srv/stand-in.conf <<'END'\n{STAND_IN}\nEND\n{START}")
    environment = load_project(blog_app.config, {}).environment("sandbox")
    link = Link(environment, environment.hosts[0])
    edge = Edge(servers[0], Watched(link), environment, blog_app)
    try:
        yield edge
        edge.settle(None)
    finally:
        link.close()
        servers[0].root(f"docker rm -f {GRAFANA}; rm /srv/stand-in.conf")


@pytest.fixture
def served(edge: Edge) -> Site:
    """What is served when the test begins."""
    site = edge.site()
    edge.settle(site)
    return site


def test_everybody_reaches_it_over_tls_and_websockets_pass(edge: Edge, served: Site) -> None:
    assert edge.get("/d/overview?x=1") == (200, f"/d/overview of {DOMAIN}, https, close ")
    assert edge.get("/api/live/ws", Upgrade="websocket", Connection="Upgrade") == (
        200, f"/api/live/ws of {DOMAIN}, https, upgrade websocket",
    )  # fmt: skip
    assert edge.certificate() in served.content.reveal()
    assert edge.files() == ["apps/tidegate-grafana.conf 644", f"tls/{served.pem} 600"]


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6detrics", "/metrics?x", "/metrics/plugins/loki", "/x/../metrics"])
def test_its_own_figures_are_nobodys_business(edge: Edge, served: Site, path: str) -> None:
    status, text = edge.get(path)
    assert (status, "figures" in text) == (404, False)


def test_plain_http_is_redirected_and_the_app_is_served_as_before(edge: Edge, served: Site) -> None:
    assert edge.server.get(DOMAIN, "/d/overview")[0] == 301
    assert edge.is_sound()


def test_what_is_right_is_left_alone(edge: Edge, served: Site) -> None:
    workers = "docker top tidegate-edge -o pid,args | grep worker"
    before, running = edge.server.look(), edge.server.root(workers)
    assert edge.settle(served) == []
    assert_same([before, running], [edge.server.look(), edge.server.root(workers)])


def test_nobody_notices_a_renewed_certificate_and_the_old_one_is_gone(edge: Edge, served: Site) -> None:
    renewed = edge.site()
    with edge.app.users() as users:
        assert edge.settle(renewed) == [f"the edge serves Grafana on {DOMAIN}"]
    users.nobody_noticed()
    assert edge.certificate() in renewed.content.reveal()
    assert edge.files() == ["apps/tidegate-grafana.conf 644", f"tls/{renewed.pem} 600"]


def test_the_app_is_deployed_beside_it_as_ever(edge: Edge, served: Site) -> None:
    edge.app.configure(environment={**edge.app.base["app"].get("environment", {}), "BESIDE": "grafana"})
    release = edge.app.deploy().document["release"]
    assert edge.app.serving() == [release] * 2
    assert edge.get("/")[0] == 200


def test_nginx_starts_and_serves_the_app_while_grafana_is_not_there(edge: Edge, served: Site) -> None:
    edge.server.root(f"docker rm -f {GRAFANA}; docker restart -t 1 tidegate-edge")
    try:
        assert edge.watched.link.call("answers", address="127.0.0.1", port=80, timeout=10.0)
        assert edge.is_sound()
        assert edge.get("/")[0] == 502
    finally:
        edge.server.root(START)


def test_what_nginx_refuses_changes_nothing(edge: Edge, served: Site) -> None:
    before = edge.server.look()
    with pytest.raises(Failed, match="nginx refuses Grafana's file") as error:
        edge.settle(replace(edge.site(), domain="watch.example.com; no_such_directive"))
    assert "no_such_directive" in error.value.why
    assert_same([before], [edge.server.look()])


class Silent(Site):
    """A site whose file nginx takes, and which never answers that it is served."""

    @property
    def text(self) -> str:
        return super().text.replace("return 200", "return 204")


def test_what_nginx_does_not_take_up_is_taken_back(edge: Edge, served: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SWITCH_SECONDS", 1.0)
    for former in (served, None):
        edge.settle(former)
        live = edge.server.root("cat /srv/tidegate/edge/apps/*")
        with pytest.raises(Failed, match="the former one is back"):
            edge.settle(Silent("sandbox", DOMAIN, edge.site().content))
        assert edge.server.root("cat /srv/tidegate/edge/apps/*") == live
        assert edge.is_sound()
    edge.settle(served)
    assert edge.certificate() in served.content.reveal()


class Dying:
    """A line to the server over which only so many requests are sent; whether we hear the last one's answer makes no difference."""

    def __init__(self, link: Link, calls: int) -> None:
        self._link = link
        self._left = calls

    def call(self, op: str, **arguments: Any) -> Any:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return self._link.call(op, **arguments)


def dies(edge: Edge, wanted: Site | None, calls: int) -> bool:
    """Die after so many requests; tells whether there were more to make."""
    whole = edge.watched.link
    edge.watched.link = Dying(whole, calls)  # type: ignore[assignment]
    try:
        edge.settle(wanted)
    except KeyboardInterrupt:
        return True
    finally:
        edge.watched.link = whole
    return False


def test_whenever_we_are_killed_the_app_can_be_deployed_and_the_next_run_completes_it(edge: Edge, served: Site) -> None:
    renewed, calls = edge.site(), 0
    while dies(edge, renewed, calls):
        assert edge.is_sound()
        edge.settle(renewed)
        assert edge.certificate() in renewed.content.reveal()
        assert edge.files() == ["apps/tidegate-grafana.conf 644", f"tls/{renewed.pem} 600"]
        renewed, calls = edge.site(), calls + 1
    assert calls > 6


def test_a_file_that_went_live_without_a_reload_is_taken_up_by_the_next_run(edge: Edge, served: Site) -> None:
    edge.server.root("mv /srv/tidegate/edge/apps/tidegate-grafana.conf /srv/away && docker kill -s HUP tidegate-edge")
    assert edge.watched.link.call("answers", address="127.0.0.1", port=80, timeout=10.0)
    edge.settle(None)
    edge.server.root("rm /srv/away")
    site = edge.site()
    link = edge.watched.link
    link.call("write", path=f"/srv/tidegate/edge/tls/{site.pem}", text=site.content.reveal(), mode=0o600)
    link.call("write", path="/srv/tidegate/edge/apps/tidegate-grafana.conf", text=site.text, mode=0o644)
    assert edge.settle(site)
    assert edge.certificate() in site.content.reveal()


def test_without_the_table_it_is_taken_away_whole(edge: Edge, served: Site) -> None:
    assert edge.settle(None) == ["the edge serves Grafana no more"]
    assert edge.settle(None) == []
    assert edge.files() == []
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        edge.get("/")
    assert edge.server.get(DOMAIN, "/")[0] == 404
    assert edge.is_sound()


def test_a_domain_of_another_app_there_is_refused(edge: Edge) -> None:
    environment = edge.wanting("blog.localhost", domains=("other.example.com",))
    with pytest.raises(Refused, match=f"blog.localhost belongs to the app {edge.app.name} there"):
        edge.prepare(environment)


def test_an_edge_that_does_not_run_is_refused_and_loses_the_file_all_the_same(edge: Edge, served: Site) -> None:
    edge.server.root("docker stop -t 1 tidegate-edge")
    try:
        with pytest.raises(Refused, match=r"inv server\.bootstrap -e sandbox"):
            edge.prepare(edge.wanting())
        edge.settle(None)
        assert edge.files() == []
    finally:
        edge.server.root("docker start tidegate-edge")
        assert edge.watched.link.call("answers", address="127.0.0.1", port=80, timeout=10.0)


def test_what_is_prepared_is_what_is_published(edge: Edge, served: Site) -> None:
    environment = edge.wanting()
    known = inventory(environment)
    wanted = edge.prepare(environment)
    assert wanted
    publishing.publish([Host(known.watcher, edge.watched)], wanted, lambda server, what: None)
    assert edge.certificate() in wanted.content.reveal()
    assert (
        json.loads(edge.server.root("head -1 /srv/tidegate/edge/apps/tidegate-grafana.conf").removeprefix("# tidegate "))[
            "environment"
        ]
        == "sandbox"
    )
