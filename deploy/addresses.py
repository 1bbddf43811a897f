"""Addresses on the edge network: fixed per container, so that nginx needs no resolver and restarts change nothing."""

from __future__ import annotations

import zlib
from collections.abc import Set
from ipaddress import IPv4Address, IPv4Network

from ops.errors import Refused

RESERVED = 10


def edge_address(subnet: str) -> str:
    """Return the address of the edge nginx itself."""
    return str(IPv4Network(subnet)[2])


def dynamic_range(subnet: str) -> str:
    """Return the upper half, from which the engine hands out addresses by itself."""
    return str(list(IPv4Network(subnet).subnets())[1])


def free_address(subnet: str, taken: Set[str], app: str) -> str:
    """Return an address nobody has, from the lower half; apps start looking at different places. Raises Refused."""
    lower = next(IPv4Network(subnet).subnets())
    room = lower.num_addresses - RESERVED
    start = zlib.crc32(app.encode()) % room
    for step in range(room):
        candidate = str(IPv4Address(int(lower.network_address) + RESERVED + (start + step) % room))
        if candidate not in taken:
            return candidate
    raise Refused(f"no free address in {lower}", fix="inv deploy.prune")
