"""Asking through the public address, as a user's browser would."""

from __future__ import annotations

import http.client
import ssl
import time
from urllib.parse import urlsplit

from deploy.edge import public_proof
from deploy.model import Release
from ops.config import Environment, HostAddress
from ops.errors import Failed

PATIENCE = 10.0  # a bad line of the operator's must not condemn a good release
TIMEOUT = 3.0
_PAUSE = 0.1


def base_url(host: HostAddress, domain: str, *, https: bool) -> str:
    """Return the address under which a server's edge is reached from outside."""
    return host.url or f"{'https' if https else 'http'}://{domain}"


def verify(host: HostAddress, release: Release) -> str:
    """Ask until the release's own public address answers with it, and its health path with 2xx; returns the address.

    Raises Failed after `PATIENCE` seconds.
    """
    url, deadline = base_url(host, release.domains[0], https=release.https), time.monotonic() + PATIENCE
    while why := _try(url, release):
        if time.monotonic() > deadline:
            raise Failed(f"{url} does not answer with {release.id}", where=host.name, why=why,
                         fix="check DNS, the firewall and the load balancer")  # fmt: skip
        time.sleep(_PAUSE)
    return url


def answers(env: Environment, host: HostAddress) -> bool:
    """Tell whether the public address, as it is configured now, answers the health path with 2xx."""
    url = base_url(host, env.domains[0], https=env.tls is not None)
    try:
        return 200 <= _get(url, env.domains[0], env.app.health.path)[0][0] < 300
    except (OSError, http.client.HTTPException):
        return False


def _try(url: str, release: Release) -> str:
    try:
        proof, health = _get(url, release.domains[0], public_proof(release.generation), release.health_path)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or repr(error)
    if proof[1].strip() != release.id:
        return f"it answered {proof[0]} {proof[1][:80]!r} where the new release should"
    return "" if 200 <= health[0] < 300 else f"{release.health_path} answered {health[0]} {health[1][:80]!r}"


def _get(url: str, domain: str, *paths: str) -> list[tuple[int, str]]:
    """Return status and body of requests over one connection. Raises OSError and HTTPException."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.connect()
        if secure:  # by the domain's name, also where the URL has an address: nginx and the certificate go by it
            connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=domain)
        return [_ask(connection, domain, path) for path in paths]
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, domain: str, path: str) -> tuple[int, str]:
    connection.request("GET", path, headers={"Host": domain, "User-Agent": "tidegate"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace")
