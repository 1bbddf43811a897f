"""What stays on servers as it is: identities while they are good, and Grafana's one password."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from monitoring.certificates import RENEW, VALID, issue
from monitoring.files import MEMBERS, File
from monitoring.hosts import Host, _identify, _identity_paths, _password, _ports, _require_free, _subnets, look
from monitoring.inventory import Inventory, addresses, inventory
from monitoring.render import PASSWORD, identity_files
from monitoring.server import Server
from ops.errors import Refused
from tests.monitoring.watched import AWAY, ONE, TWO, environment

NOW = datetime.now(UTC)
PAIR = inventory(environment(ONE, TWO))
MOVED = inventory(environment(ONE, TWO, monitoring={"host": "203.0.113.11:2222"}))
RENUMBERED = inventory(environment({**ONE, "private": "10.0.0.77"}, TWO))
GROWN = inventory(environment(ONE, TWO, AWAY))
QUIET = inventory(environment(ONE, TWO, monitoring={"without": ["loki"]}))


def placed(known: Inventory, made: datetime = NOW) -> dict[str, dict[str, str]]:
    """Return what is on each server once its identity was placed, and last of all who the others are."""
    issued = issue([host.address.private or "" for host in known.hosts], made)
    return {
        host.name: {file.path: file.content for file in identity_files(known, host, issued[host.address.private or ""])}
        | {MEMBERS: json.dumps(addresses(known))}
        for host in known.hosts
    }


class Bare(Server):
    """A server with these volumes of the stack, and these networks, that nobody connects to."""

    def __init__(self, volumes: Sequence[str] = (), networks: Sequence[dict[str, Any]] = (), running: Sequence[str] = ()) -> None:
        self.name = "one"
        self.link = SimpleNamespace(environment="production")  # type: ignore[assignment]
        self._volumes, self._running = list(volumes), running
        self.__dict__["engine"] = SimpleNamespace(networks=lambda names: networks)

    def volumes(self, label: str = "") -> list[str]:
        return self._volumes

    def running(self) -> dict[str, str]:
        return dict.fromkeys(self._running, "id")

    def look(self, paths: Sequence[str], there: Sequence[str] = (), bind: Sequence[tuple[str, int]] = ()) -> Mapping[str, Any]:
        found = {"files": dict.fromkeys(paths), "there": [], "journal": False, "engine_group": 1, "propagation": "private"}
        return {**found, "unbound": [f"{address}:{port}" for address, port in bind]}


def looked(known: Inventory, there: dict[str, dict[str, str]]) -> list[Host]:
    """Return servers as they are after a look at them, with the files that they are to have."""
    hosts = [Host(watched, Bare()) for watched in known.hosts]
    for host in hosts:
        host.files = [File(MEMBERS, json.dumps(addresses(known)))]
        files: dict[str, Any] = there.get(host.watched.name, {})
        host.found = {path: files.get(path) for path in [MEMBERS, *_identity_paths(known, host, "ca", "cert")]}
        host.there = [path for path in _identity_paths(known, host, "key") if path in files]
    _identify(known, hosts)
    return hosts


def files(hosts: Sequence[Host]) -> list[File]:
    """Return those of new identities."""
    return [file for host in hosts for file in host.files if file.path != MEMBERS]


@pytest.mark.parametrize("known", [PAIR, MOVED, GROWN, QUIET])
def test_servers_that_know_each_other_keep_their_identities(known: Inventory) -> None:
    there = placed(known)
    hosts = looked(known, there)
    assert files(hosts) == []
    assert {host.watched.name: set(host.keep) for host in hosts} == {
        name: set(paths) - {MEMBERS} for name, paths in there.items()
    }


def test_so_do_those_of_before_it_was_written_down_who_they_are() -> None:
    there = {name: {path: text for path, text in known.items() if path != MEMBERS} for name, known in placed(PAIR).items()}
    assert files(looked(PAIR, there)) == []


def without(path: str) -> dict[str, dict[str, str]]:
    """Return what a run left that was killed before it had placed this file on the last server."""
    there = placed(PAIR)
    return {
        name: {one: text for one, text in known.items() if (name, one) != (PAIR.hosts[1].name, path)}
        for name, known in there.items()
    }


@pytest.mark.parametrize(
    ("known", "there"),
    [
        pytest.param(PAIR, {}, id="the first time"),
        pytest.param(PAIR, placed(PAIR, NOW - VALID + RENEW - timedelta(days=1)), id="its last year has begun"),
        pytest.param(PAIR, {name: placed(PAIR)[name] for name in placed(PAIR)}, id="two servers of two CAs"),
        pytest.param(GROWN, placed(PAIR), id="a server came"),
        pytest.param(PAIR, placed(GROWN), id="a server is no more, and is not to be believed"),
        pytest.param(PAIR, {**placed(PAIR), PAIR.hosts[1].name: placed(GROWN)[PAIR.hosts[1].name]}, id="only one knew it"),
        pytest.param(MOVED, placed(PAIR), id="the stack moved to another of them"),
        pytest.param(RENUMBERED, placed(PAIR), id="a server has another private address"),
        pytest.param(PAIR, placed(QUIET), id="logs are collected now"),
        pytest.param(PAIR, without("gate/tls/ca.pem"), id="one has no CA"),
        pytest.param(PAIR, without("collector/tls/cert.pem"), id="one has no certificate"),
        pytest.param(PAIR, without("gate/tls/key.pem"), id="one has no key"),
    ],
)
def test_all_get_new_identities_of_one_ca_where_any_is_not_good(known: Inventory, there: dict[str, dict[str, str]]) -> None:
    hosts = looked(known, there)
    assert [host.keep for host in hosts] == [[]] * len(hosts)
    assert len({file.content for file in files(hosts) if file.path.endswith("ca.pem")}) == 1
    for host in hosts:
        assert {file.path for file in files([host])} == set(_identity_paths(known, host, "ca", "cert", "key"))


def test_a_run_that_was_killed_between_two_files_left_something_that_is_not_good() -> None:
    """Whatever was placed of the new identity, in that order, all is made anew but where it was all of it."""
    old, new = placed(PAIR), placed(PAIR)
    first, second = (host.name for host in PAIR.hosts)
    for count in range(len(new[second].keys() - {MEMBERS})):
        half = {**old[second], **dict(list(new[second].items())[:count])}
        assert files(looked(PAIR, {first: new[first], second: half})), count
    assert not files(looked(PAIR, new))


def test_a_server_that_is_no_more_is_forgotten_last_so_that_a_run_that_was_killed_does_not_leave_it_believed() -> None:
    old = placed(GROWN)
    former = {text for files in old.values() for path, text in files.items() if path.endswith("/ca.pem")}
    hosts = looked(PAIR, old)
    for count in range(max(len(host.files) for host in hosts) + 1):
        there = {
            host.watched.name: {**old[host.watched.name], **{file.path: file.content for file in host.files[:count]}}
            for host in hosts
        }
        believed = {there[host.watched.name][path] for host in hosts for path in _identity_paths(PAIR, host, "ca")}
        assert files(looked(PAIR, there)) or not believed & former, count
    assert not files(looked(PAIR, there))


def test_grafanas_password_is_made_once_and_told_once() -> None:
    host = Host(PAIR.hosts[0], Bare())
    made = _password(PAIR, [host])
    assert made
    assert host.files == [File(PASSWORD, made.reveal(), 0o400, 472)]
    assert len(made.reveal()) >= 24
    again = Host(PAIR.hosts[0], Bare(["tidegate-monitoring_grafana"]), there=[PASSWORD])
    assert (_password(PAIR, [again]), again.files, again.keep, again.remarks) == (None, [], [PASSWORD], [])


def test_it_stays_where_grafana_is_left_out_for_a_while_because_its_volume_stays_too() -> None:
    lean = inventory(environment(monitoring={"without": ["grafana"]}))
    host = Host(lean.hosts[0], Bare(), there=[PASSWORD])
    assert (_password(lean, [host]), host.keep) == (None, [PASSWORD])
    host = Host(lean.hosts[0], Bare())
    assert (_password(lean, [host]), host.keep, host.files) == (None, [], [])


def test_it_stays_on_the_server_that_the_stack_moved_away_from_because_its_volume_stays_there() -> None:
    hosts = [Host(MOVED.hosts[0], Bare(), there=[PASSWORD]), Host(MOVED.hosts[1], Bare())]
    made = _password(MOVED, hosts)
    assert made
    assert [host.keep for host in hosts] == [[PASSWORD], []]
    assert [[file.path for file in host.files] for host in hosts] == [[], [PASSWORD]]


def test_a_password_that_a_grafana_from_before_would_not_know_is_not_shown_but_how_to_set_one_is() -> None:
    host = Host(PAIR.hosts[0], Bare(["tidegate-monitoring_grafana", "tidegate-monitoring_loki"]))
    assert _password(PAIR, [host]) is None
    assert [file.path for file in host.files] == [PASSWORD]
    (remark,) = host.remarks
    assert "on one: docker exec tidegate-monitoring-grafana-1 grafana cli admin reset-admin-password" in remark
    assert host.files[0].content not in remark


def network(name: str, *subnets: str) -> dict[str, Any]:
    return {"Name": name, "IPAM": {"Config": [{"Subnet": one} for one in subnets]}}


def test_every_subnet_of_the_apps_network_is_known_and_none_of_a_network_called_alike() -> None:
    engine = [network("tidegate-monitoring", "10.9.0.0/16"), network("tidegate", "10.213.0.0/20", "fd00:7::/64")]
    app, stack = inventory(environment(ONE, monitoring={"host": AWAY})).hosts
    assert _subnets(Host(app, Bare(networks=engine))) == ("10.213.0.0/20", "fd00:7::/64")
    assert _subnets(Host(stack, Bare())) == ()


def test_a_server_of_the_app_without_its_network_is_refused() -> None:
    with pytest.raises(Refused, match="the network tidegate is missing") as caught:
        _subnets(Host(PAIR.hosts[0], Bare(networks=[network("tidegate-monitoring", "10.9.0.0/16")])))
    assert caught.value.fix == "inv server.bootstrap -e production"


def test_where_the_stack_is_to_listen_has_to_be_free_but_for_what_is_the_stacks_already() -> None:
    first, second = PAIR.hosts
    pages = [("127.0.0.1", port) for port in (7811, 7812, 7810, 7813)]
    assert _ports(PAIR, Host(first, Bare())) == [*pages, ("10.0.0.1", 7814)]
    assert _ports(PAIR, Host(second, Bare())) == [("fd00::2", 7814)]
    assert _ports(PAIR, Host(first, Bare(running=["prometheus", "gate"]))) == [*pages[1:], ("10.0.0.1", 0)]
    alone = inventory(environment(ONE, monitoring={"without": ["grafana", "loki"]}))
    assert _ports(alone, Host(alone.watcher, Bare())) == pages[:2]


def test_a_port_that_another_program_has_is_told_before_anything_is_changed() -> None:
    host = Host(PAIR.hosts[0], Bare())
    look(host, PAIR)  # as `down` does, which needs no port and no network
    assert "127.0.0.1:7810" in host.taken
    _require_free(Host(PAIR.hosts[0], Bare()))
    with pytest.raises(Refused, match=r"nothing of the stack can listen on 127\.0\.0\.1:7810") as caught:
        _require_free(Host(PAIR.hosts[0], Bare(), taken=["127.0.0.1:7810"]))
    assert "ss -ltnp" in caught.value.fix
