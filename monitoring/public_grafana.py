"""Grafana for everybody: what the edge's nginx is to serve for it, once its certificate has been judged.

The edge finds Grafana by name at every request, through the engine's resolver, so nginx starts and reloads while Grafana is
not there. The first line is what deploys read of every file on the edge: whose the domain is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from monitoring.files import PROJECT
from monitoring.inventory import Inventory
from ops.config import Environment
from ops.errors import ConfigError, Refused
from ops.names import EDGE, STATUS_PORT
from ops.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

NAME = "tidegate-grafana"  # no app can be called so
HOST = f"{NAME}.status.tidegate.internal"  # by this name nginx is asked what it serves of it
MOUNT = "/etc/nginx/tidegate"
MARK = "# tidegate "
APPS = f"include {MOUNT}/apps/*.conf;"
TABLE = "[monitoring.grafana]"


@dataclass(frozen=True)
class Site:
    """Grafana's place on the edge: its domain, and the certificate's chain and key as one PEM, named by its content."""

    environment: str
    domain: str
    content: Secret

    @property
    def pem(self) -> str:
        """The name of the PEM's file."""
        return f"{NAME}-{_digest(self.content.reveal())}.pem"

    @property
    def generation(self) -> str:
        """What nginx answers with once it serves exactly this."""
        return f"{NAME}-{_digest(self.environment + self._servers)}"

    @property
    def text(self) -> str:
        """Nginx's file."""
        head = {"app": NAME, "release": self.generation, "generation": self.generation, "domains": [self.domain],
                "environment": self.environment}  # fmt: skip
        status = f'    server_name {HOST};\n    default_type text/plain;\n    return 200 "{self.generation}";\n'
        return f"{MARK}{json.dumps(head)}\n{self._servers}server {{\n    listen {STATUS_PORT};\n{status}}}\n"

    @property
    def _servers(self) -> str:
        return f"""\
server {{
    listen 80;
    server_name {self.domain};
    return 301 https://$host$request_uri;
}}
server {{
    listen 443 ssl;
    http2 on;
    ssl_certificate {MOUNT}/tls/{self.pem};
    ssl_certificate_key {MOUNT}/tls/{self.pem};
    server_name {self.domain};
    client_max_body_size 10m;
    keepalive_min_timeout 5s;
    gzip on;
    gzip_vary on;
    gzip_proxied any;
    gzip_min_length 1024;
    gzip_types text/plain text/css application/json application/javascript image/svg+xml;
    resolver 127.0.0.11 valid=5s ipv6=off;
    resolver_timeout 5s;
    set $tidegate_grafana {PROJECT}-grafana-1;
    location / {{
        proxy_pass http://$tidegate_grafana:3000;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $tidegate_connection;
        proxy_connect_timeout 2s;
    }}
    location = /metrics {{ return 404; }}
    location ^~ /metrics/ {{ return 404; }}
}}
"""


def site(env: Environment, known: Inventory, secrets: Mapping[str, Secret], now: datetime) -> Site | None:
    """Return what the edge is to serve, None where Grafana is not to be public. Raises ConfigError, Refused."""
    public = env.monitoring.grafana
    if public is None:
        return None
    if not known.has("grafana"):
        raise ConfigError(f"{TABLE} makes public what [monitoring] without leaves out", fix="remove one of the two in ops.toml")
    if public.domain in env.domains:
        raise ConfigError(f"{public.domain} is the app's own domain", where=TABLE, fix="give Grafana a domain of its own")
    if not known.watcher.app:
        raise ConfigError(
            f"{known.watcher.address.name} has the stack and no edge, so Grafana cannot be public there", where=TABLE,
            why="the edge nginx is on the app's servers", fix="[monitoring] host = one of those, or remove the table",
        )  # fmt: skip
    text = bundle(
        public.certificate.read_text(errors="replace"), secrets[public.key].reveal(), public.domain, now,
        where=str(public.certificate), secret=public.key,
    )  # fmt: skip
    return Site(env.name, public.domain, Secret(text))


def bundle(chain: str, key: str, domain: str, now: datetime, *, where: str, secret: str) -> str:
    """Return chain and key as nginx takes them. Raises Refused unless the first certificate is the key's and good for the domain."""
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
    except ValueError as error:
        raise Refused("no certificate in this file", where=where, why=str(error),
                      fix="it is to be PEM: the domain's certificate, then its issuers'") from None  # fmt: skip
    private, leaf = _private(key, secret), certificates[0]
    if private.public_key() != leaf.public_key():
        raise Refused("the key does not fit the first certificate", where=where, why=f"the key is the secret {secret}",
                      fix="put the domain's own certificate first, its issuers' after it; or give that one's key")  # fmt: skip
    _require_valid(leaf, now, where)
    _require_domain(leaf, domain, where)
    written = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join((*(one.public_bytes(Encoding.PEM) for one in certificates), written)).decode()


def head(text: str) -> Mapping[str, object]:
    """Return what a file on the edge says of itself, empty when it is not Tidegate's."""
    try:
        found = json.loads(text.partition("\n")[0].removeprefix(MARK)) if text.startswith(MARK) else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def owner(domain: str, files: Mapping[str, str]) -> str | None:
    """Return which app's file on the edge claims a domain."""
    for name, text in files.items():
        domains = head(text).get("domains")
        if name != f"{NAME}.conf" and isinstance(domains, list) and domain in domains:
            return name.removesuffix(".conf")
    return None


def file_to_test(main: str, others: Sequence[str]) -> str:
    """Return nginx's main file with the staged file in place of the live one. Raises Refused when the edge's is not ours."""
    if APPS not in main:
        raise Refused("the edge nginx has no main file that includes the apps' files", why=f"{EDGE} was not set up, or long ago",
                      fix="inv server.bootstrap")  # fmt: skip
    included = [f"{MOUNT}/apps/{name}" for name in others if name != f"{NAME}.conf"] + [f"{MOUNT}/staged/{NAME}.conf"]
    return main.replace(APPS, "\n    ".join(f"include {path};" for path in included))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _private(key: str, secret: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(key.encode(), password=None)
    except TypeError:
        why = "it is protected by a passphrase, which nginx could not ask for"
    except (ValueError, UnsupportedAlgorithm):
        why = "it is to be PEM, from -----BEGIN to -----END"  # what the library says may quote it
    raise Refused(
        "no private key that can be used", where=f"the secret {secret}", why=why, fix=f"mend it; {TABLE} key in ops.toml names it"
    )


def _require_valid(leaf: x509.Certificate, now: datetime, where: str) -> None:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not begins <= now < ends:
        raise Refused(f"the certificate {'is not valid yet' if now < begins else 'has expired'}", where=where,
                      why=f"it is valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC",
                      fix="renew it, then run this again")  # fmt: skip


def _require_domain(leaf: x509.Certificate, domain: str, where: str) -> None:
    names = _names(leaf)
    if not any(_covers(name, domain) for name in names):
        raise Refused(f"the certificate is not for {domain}", where=where, why=f"it is for {', '.join(names) or 'no domain'}",
                      fix=f"get one for {domain}, or change the domain in {TABLE}")  # fmt: skip


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return found.value.get_values_for_type(x509.DNSName)


def _covers(name: str, domain: str) -> bool:
    """Whether a certificate's name is a domain's; a star stands for exactly one label."""
    return name.lower() in (domain, f"*.{domain.partition('.')[2]}")
