"""Addresses on the edge network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.addresses import dynamic_range, edge_address, free_address
from ops.errors import Refused

SUBNET = "10.213.0.0/20"


@given(app=st.text("abcdefghij-", min_size=1), taken=st.sets(st.integers(10, 2047), max_size=30))
def test_an_address_is_free_below_the_engines_own_range_and_not_the_edges(app: str, taken: set[int]) -> None:
    there = frozenset(str(IPv4Network(SUBNET)[n]) for n in taken)
    found = free_address(SUBNET, there, app)
    assert found not in there
    assert IPv4Address(found) in next(IPv4Network(SUBNET).subnets())
    assert IPv4Address(found) not in IPv4Network(dynamic_range(SUBNET))
    assert int(IPv4Address(found)) - int(IPv4Network(SUBNET)[0]) >= 10
    assert found != edge_address(SUBNET)


def test_the_last_free_address_is_found() -> None:
    lower = next(IPv4Network(SUBNET).subnets())
    addresses = [str(one) for one in lower][10:]
    assert free_address(SUBNET, frozenset(addresses) - {addresses[1234]}, "blog") == addresses[1234]


@pytest.mark.parametrize("subnet", ["10.0.0.0/27", "10.0.0.0/28", "10.0.0.0/30"])
def test_a_full_network_is_refused(subnet: str) -> None:
    with pytest.raises(Refused, match="no free address"):
        free_address(subnet, frozenset(map(str, IPv4Network(subnet))), "blog")


def test_apps_start_looking_at_different_places() -> None:
    assert len({free_address(SUBNET, frozenset(), app) for app in ("blog", "shop", "api", "docs")}) == 4


def test_the_edge_and_the_dynamic_range_are_fixed() -> None:
    assert (edge_address(SUBNET), dynamic_range(SUBNET)) == ("10.213.0.2", "10.213.8.0/21")
