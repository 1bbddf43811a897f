"""Asking through the public address, as a user's browser would."""

from __future__ import annotations

import http.client
import ssl
import time
from urllib.parse import urlsplit

from ops.config import Environment, HostAddress
from ops.errors import Failed

PATIENCE = 3.0
TIMEOUT = 3.0
_PAUSE = 0.1


def base_url(env: Environment, host: HostAddress) -> str:
    """Return the address under which a server's edge is reached from outside."""
    return host.url or f"{'https' if env.tls else 'http'}://{env.domains[0]}"


def verify(env: Environment, host: HostAddress, proof_path: str, release: str, health_path: str) -> str:
    """Ask until the public address answers with the release and its health path with 2xx; returns the address.

    Raises Failed after `PATIENCE` seconds.
    """
    url, deadline = base_url(env, host), time.monotonic() + PATIENCE
    while True:
        why = _try(url, env.domains[0], proof_path, release, health_path)
        if not why:
            return url
        if time.monotonic() > deadline:
            raise Failed(f"{url} does not answer with {release}", where=host.name, why=why,
                         fix="check DNS, the firewall and the load balancer")  # fmt: skip
        time.sleep(_PAUSE)


def answers(env: Environment, host: HostAddress, health_path: str) -> bool:
    """Tell whether the public address answers the health path with 2xx now."""
    try:
        return 200 <= _get(base_url(env, host), env.domains[0], health_path)[0] < 300
    except (OSError, http.client.HTTPException):
        return False


def _try(url: str, domain: str, proof_path: str, release: str, health_path: str) -> str:
    try:
        status, body = _get(url, domain, proof_path)
        if body.strip() != release:
            return f"it answered {status} {body[:80]!r} where the new release should"
        status, body = _get(url, domain, health_path)
        return "" if 200 <= status < 300 else f"{health_path} answered {status} {body[:80]!r}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or repr(error)


def _get(url: str, domain: str, path: str) -> tuple[int, str]:
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=TIMEOUT, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers={"Host": domain, "Connection": "close", "User-Agent": "tidegate"})
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode("utf-8", "replace")
    finally:
        connection.close()
