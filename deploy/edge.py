"""The edge nginx's files, rendered. Pure: no I/O.

Facts used (nginx's own documentation): a quitting worker closes idle kept-alive connections at once unless
`keepalive_min_timeout` (nginx ≥ 1.27.4) protects them; `worker_shutdown_timeout` has no default. The upstream is an
address and not a name, so that a reload never waits for, or fails on, a resolver.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ops.names import NGINX_STATUS, STATUS_PORT

MARK = "# tidegate "
MOUNT = "/etc/nginx/tidegate"
CIPHERS = ":".join(  # for TLS 1.2; those of TLS 1.3 need no list
    f"ECDHE-{key}-{kind}" for kind in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305") for key in ("ECDSA", "RSA")
)
TLS = f"ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_ciphers {CIPHERS};\n    ssl_session_cache shared:tidegate:10m;"
PRIVATE = "allow 127.0.0.0/8; allow 10.0.0.0/8; allow 172.16.0.0/12; allow 192.168.0.0/16; deny all;"
ACME_PATH = "/.well-known/tidegate"

MAIN = f"""\
# Written by `inv server.bootstrap`.
user nginx;
worker_processes auto;
worker_rlimit_nofile 16384;
worker_shutdown_timeout 10m;
pid /run/nginx.pid;
error_log /dev/stderr warn;
events {{ worker_connections 4096; }}
http {{
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    log_format tidegate '$remote_addr [$time_iso8601] $host "$request" $status $body_bytes_sent '
                        '$request_time "$http_user_agent" $upstream_addr';
    map $http_user_agent $tidegate_logged {{ default 1; tidegate 0; }}
    access_log /dev/stdout tidegate if=$tidegate_logged;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    server_names_hash_bucket_size 128;
    map $http_upgrade $tidegate_connection {{ default upgrade; "" close; }}
    server {{ listen 80 default_server; server_name _; return 404; }}
    {TLS}
    server {{ listen 443 ssl default_server; ssl_reject_handshake on; }}
    server {{
        listen {STATUS_PORT} default_server;
        server_name _;
        location = {NGINX_STATUS} {{ stub_status; access_log off; {PRIVATE} }}
        location / {{ return 404; }}
    }}
    include %s;
}}
"""


@dataclass(frozen=True)
class EdgeFile:
    """What the app's nginx file is made from; sizes in nginx's notation, times in seconds."""

    app: str
    release: str
    generation: str
    upstream: str
    port: int
    domains: tuple[str, ...]
    body_size: str
    timeout: float
    idle: float
    gzip: bool
    pem: str | None
    extra: str = ""
    environment: str = ""
    hidden: str = ""


def status_host(app: str) -> str:
    """Return the name by which nginx is asked, on the status port, which generation of an app it serves."""
    return f"{app}.status.tidegate.internal"


def public_proof(generation: str) -> str:
    """Return the unguessable path on which the public address answers with the release."""
    return f"{ACME_PATH}/{generation}"


def main_file(includes: str = f"{MOUNT}/apps/*.conf") -> str:
    """Return nginx's main file with the apps' files it includes."""
    return MAIN % includes


def test_file(app: str, others: tuple[str, ...]) -> str:
    """Return a main file that takes the app's staged file in place of its live one."""
    files = [f"{MOUNT}/apps/{name}" for name in others if name != f"{app}.conf"] + [f"{MOUNT}/staged/{app}.conf"]
    return MAIN.replace("/run/nginx.pid", f"/tmp/test-{app}.pid") % ";\n    include ".join(files)  # noqa: S108  # in the container


def render(edge: EdgeFile) -> str:
    """Return the app's nginx file; its first line says, for the next deploy to read, what it is."""
    head = {"app": edge.app, "release": edge.release, "generation": edge.generation, "domains": edge.domains,
            "environment": edge.environment}  # fmt: skip
    names = " ".join(edge.domains)
    listen = "listen 443 ssl;\n    http2 on;\n" + _tls(edge.pem) if edge.pem else "listen 80;\n"
    redirect = (
        f"server {{\n    listen 80;\n    server_name {names};\n    return 301 https://$host$request_uri;\n}}\n"
        if edge.pem
        else ""
    )
    return f"""\
{MARK}{json.dumps(head)}
upstream tidegate_{edge.app} {{ server {edge.upstream}:{edge.port}; }}
{redirect}server {{
    {listen}    server_name {names};
    client_max_body_size {edge.body_size};
    keepalive_min_timeout {_ms(edge.idle)};
{_gzip() if edge.gzip else ""}    location / {{
        proxy_pass http://tidegate_{edge.app};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $tidegate_connection;
        proxy_connect_timeout 2s;
        proxy_read_timeout {_ms(edge.timeout)};
        proxy_send_timeout {_ms(edge.timeout)};
    }}
    location = {public_proof(edge.generation)} {{
        default_type text/plain;
        return 200 "{edge.release}";
    }}
{_hidden(edge.hidden)}{_indent(edge.extra)}}}
server {{
    listen {STATUS_PORT};
    server_name {status_host(edge.app)};
    default_type text/plain;
    return 200 "{edge.generation}";
}}
"""


def read_head(text: str) -> dict[str, object]:
    """Return what an app's nginx file says of itself, empty when it is not ours."""
    first = text.partition("\n")[0]
    if not first.startswith(MARK):
        return {}
    try:
        found = json.loads(first.removeprefix(MARK))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _tls(pem: str) -> str:
    return f"    ssl_certificate {MOUNT}/tls/{pem};\n    ssl_certificate_key {MOUNT}/tls/{pem};\n    {TLS}\n"


def _hidden(path: str) -> str:
    """Keep the app's own figures from everybody, also where it takes `/Metrics/` for `/metrics`: the stack reads them from inside."""
    return f'    location ~* "^{re.escape(path.rstrip("/"))}/*$" {{ return 404; }}\n' if path else ""


def _gzip() -> str:
    kinds = "text/plain text/css application/json application/javascript text/xml application/xml image/svg+xml"
    return f"    gzip on;\n    gzip_vary on;\n    gzip_proxied any;\n    gzip_min_length 1024;\n    gzip_types {kinds};\n"


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _indent(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
