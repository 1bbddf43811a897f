"""What there is to watch, from ops.toml alone."""

from __future__ import annotations

from typing import Any

import pytest

from monitoring.inventory import GATE_PORT, Postgres, addresses, inventory
from ops.config_hosts import HostAddress
from ops.errors import ConfigError
from tests.monitoring.watched import AWAY, DATABASE, ONE, TWO, environment, with_database

EVERYTHING = ("node", "cadvisor", "collector", "edge")
TLS = {"tls": {"certificate": "chain.pem", "key": "TLS_KEY"}}


def test_a_server_is_watched_with_the_stack_the_app_and_the_edge_on_it() -> None:
    known = inventory(environment(app={"processes": {"worker": {"command": ["work"]}}}))
    (host,) = known.hosts
    assert (host.app, host.stack, host.jobs, host.postgres) == (True, True, EVERYTHING, None)
    assert host.containers == ("blog-web", "blog-worker", "tidegate-edge")
    assert (known.watcher, known.environment, known.app, host.backups) == (host, "production", "blog", False)
    assert known.stack == ("prometheus", "alertmanager", "grafana", "loki", "blackbox")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.10", "203.0.113.10"),
        ("deploy@203.0.113.10", "203.0.113.10"),
        ("deploy@web1.example.com:22", "web1.example.com"),
        ("deploy@web1:2222", "web1:2222"),
        ("[2001:db8::1]:22", "2001:db8::1"),
        ("deploy@[2001:db8::1]:2222", "[2001:db8::1]:2222"),
    ],
)
def test_a_server_is_called_by_its_address_whoever_logs_in(address: str, name: str) -> None:
    assert inventory(environment(address)).watcher.name == name


def test_the_stack_is_on_the_first_of_several_servers_unless_another_is_named() -> None:
    assert [host.stack for host in inventory(environment(ONE, TWO)).hosts] == [True, False]
    other = environment(ONE, TWO, monitoring={"host": "203.0.113.11:2222"})
    assert [host.stack for host in inventory(other).hosts] == [False, True]


def test_a_server_of_the_stacks_own_has_neither_app_nor_edge_nor_database() -> None:
    known = inventory(environment(ONE, app=with_database(), monitoring={"host": AWAY}))
    app, stack = known.hosts
    assert (app.app, app.stack, app.jobs) == (True, False, (*EVERYTHING, "postgres"))
    assert (stack.app, stack.stack, stack.jobs) == (False, True, ("node", "cadvisor", "collector"))
    assert (stack.containers, stack.postgres) == ((), None)


@pytest.mark.parametrize(
    ("without", "jobs", "stack"),
    [
        (["grafana"], EVERYTHING, ("prometheus", "alertmanager", "loki", "blackbox")),
        (["loki"], ("node", "cadvisor", "edge"), ("prometheus", "alertmanager", "grafana", "blackbox")),
        (["collector"], ("node", "cadvisor", "edge"), ("prometheus", "alertmanager", "grafana", "blackbox")),
        (["cadvisor", "edge"], ("node", "collector"), ("prometheus", "alertmanager", "grafana", "loki", "blackbox")),
        (["blackbox"], EVERYTHING, ("prometheus", "alertmanager", "grafana", "loki")),
    ],
)
def test_what_is_left_out_is_nowhere(without: list[str], jobs: tuple[str, ...], stack: tuple[str, ...]) -> None:
    known = inventory(environment(monitoring={"without": without}))
    assert (known.watcher.jobs, known.stack) == (jobs, stack)
    assert not any(known.has(part) for part in without)
    assert bool(known.probes) == ("blackbox" not in without)


@pytest.mark.parametrize("part", ["loki", "collector"])
def test_logs_are_collected_and_kept_or_neither(part: str) -> None:
    assert inventory(environment(monitoring={"without": [part]})).without == {"loki", "collector"}


@pytest.mark.parametrize(
    ("app", "figures"),
    [
        ({}, ""),
        ({"metrics": {}}, "3000/metrics"),
        ({"metrics": {"port": 9091, "path": "/internal/figures"}}, "9091/internal/figures"),
    ],
)
def test_where_the_app_tells_its_own_figures_is_known(app: dict[str, Any], figures: str) -> None:
    assert inventory(environment(app=app)).figures == figures


def test_the_servers_that_believe_each_other_are_those_of_the_environment_where_there_are_several() -> None:
    assert addresses(inventory(environment(ONE, TWO, monitoring={"host": AWAY}))) == ["10.0.0.1", "10.0.0.9", "fd00::2"]
    assert addresses(inventory(environment(ONE))) == []


def test_the_database_of_the_backups_is_watched_on_the_first_server_only() -> None:
    known = inventory(environment(ONE, TWO, app=with_database()))
    assert [host.postgres for host in known.hosts] == [Postgres("blog-services-db", "blog", "posts", "DB_PASSWORD"), None]
    assert ["postgres" in host.jobs for host in known.hosts] == [True, False]


FILES = {"kind": "sqlite", "path": "/srv/blog/posts.db"}


@pytest.mark.parametrize(
    ("sources", "backed_up"),
    [
        ({"main": DATABASE}, [True, False, False]),
        ({"main": FILES | {"on": "each"}}, [True, True, False]),
        ({"main": DATABASE, "posts": FILES | {"on": "each"}}, [True, True, False]),
    ],
)
def test_backups_are_expected_where_there_is_anything_to_back_up(sources: dict[str, Any], backed_up: list[bool]) -> None:
    """A source of the first server only leaves nothing to do on the others; where the app is not, nothing is at all."""
    known = inventory(environment(ONE, TWO, app={"backup": {"sources": sources}}, monitoring={"host": AWAY}))
    assert [host.backups for host in known.hosts] == backed_up


@pytest.mark.parametrize(
    ("source", "without"),
    [
        ({}, ["postgres"]),
        ({"kind": "mariadb"}, []),
        ({"container": None, "address": "db.example.com", "image": "postgres:17"}, []),
    ],
)
def test_a_database_that_is_left_out_or_of_another_kind_or_elsewhere_is_not(source: dict[str, Any], without: list[str]) -> None:
    known = inventory(environment(app=with_database(**source), monitoring={"without": without}))
    assert known.watcher.postgres is None
    assert "postgres" not in known.watcher.jobs


@pytest.mark.parametrize("hosts", [(ONE, "198.51.100.2"), ("198.51.100.1", "198.51.100.2")])
def test_several_servers_have_to_say_how_they_reach_each_other(hosts: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match=r"without a private address: .*198\.51\.100\.2") as caught:
        inventory(environment(*hosts))
    assert 'private = "10.0.0' in caught.value.fix


def test_that_holds_for_a_server_of_the_stacks_own_too() -> None:
    with pytest.raises(ConfigError, match=r"without a private address: 198\.51\.100\.7\n"):
        inventory(environment(ONE, monitoring={"host": "198.51.100.7"}))


def test_two_servers_cannot_have_one_private_address() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1 is the private address of several"):
        inventory(environment(ONE, {**TWO, "private": "10.0.0.1"}))


@pytest.mark.parametrize(
    ("domain", "more", "url", "asked"),
    [
        ("blog.example.com", {}, "http://blog.example.com/up", "http://blog.example.com/up"),
        ("blog.example.com", TLS, "https://blog.example.com/up", "https://blog.example.com/up"),
        ("blog.localhost", {}, "http://blog.localhost/up", "http://tidegate-edge/up"),
        ("blog.localhost", {"monitoring": {"host": AWAY}}, "http://blog.localhost/up", "http://blog.localhost/up"),
    ],
)
def test_every_domain_is_asked_for_its_health_as_users_would(domain: str, more: dict[str, Any], url: str, asked: str) -> None:
    """A name of this machine leads to itself on any other, so the edge beside the stack is asked for it."""
    known = inventory(environment(ONE, domains=(domain, "www.example.com"), app={"health": {"path": "/up"}}, **more))
    probe, other = known.probes
    assert (probe.url, probe.asked, probe.domain, probe.app) == (url, asked, domain, "blog")
    assert other.url == other.asked == f"{url.partition(':')[0]}://www.example.com/up"


def test_the_server_with_the_stack_is_one_of_the_apps_where_address_and_port_are_the_same() -> None:
    def watcher(host: Any) -> HostAddress:
        return environment(ONE, TWO, monitoring={"host": host}).watcher

    first, second = environment(ONE, TWO).hosts
    assert watcher(None) == first
    for same in ("203.0.113.10", "root@203.0.113.10:22", {"address": "203.0.113.10"}):
        assert watcher(same) == first
    assert watcher("203.0.113.11:2222") == second
    assert watcher("203.0.113.11") not in (first, second)
    assert environment("Web1", monitoring={"host": "web1"}).watcher.name == "Web1"


def test_the_gates_port_is_not_one_of_the_pages() -> None:
    from monitoring.live import PORTS

    assert GATE_PORT not in PORTS.values()
