"""The gate: a small nginx on every server, the only door to its figures. Pure.

Inside the stack's network it speaks HTTP; other servers reach the same over mutual TLS, on the private address. The
engine's API is served read-only, for Prometheus to find containers by; only the collector, which reads their logs, has
the socket itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from monitoring.files import MOUNT, PROJECT, File
from monitoring.inventory import GATE_PORT, Inventory, Watched

USER = 101  # nginx, in the upstream image
PORT, ENGINE_PORT, TLS_PORT = 8080, 8081, GATE_PORT
# By containers' names: an app's service of the same short name would be found first, on the network that the gate shares with it.
UPSTREAMS = {
    "node": f"{PROJECT}-node-1:9100", "cadvisor": f"{PROJECT}-cadvisor-1:8080", "edge": f"{PROJECT}-edge-exporter-1:9113",
    "postgres": f"{PROJECT}-postgres-exporter-1:9187",
}  # fmt: skip
COLLECTORS = {"alloy": f"{PROJECT}-alloy-1:12345", "promtail": f"{PROJECT}-promtail-1:9080"}
_ENGINE = r"^(/v[0-9.]+)?/(_ping|version|info|containers/json|networks)$"  # not inspect: it shows the environment


def render(known: Inventory, host: Watched, apps: Sequence[str] = ()) -> list[File]:
    """Return nginx's main file for a server's gate; `apps`: the subnets of the apps' network, which is told nothing."""
    return [File("gate/nginx.conf", _main(known, host, apps, tls=len(known.hosts) > 1))]


def _main(known: Inventory, host: Watched, apps: Sequence[str], *, tls: bool) -> str:
    outside = _outside(host) if tls else ""
    return f"""\
# Written by `inv monitoring.up`.
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    resolver 127.0.0.11 valid=5s;
    proxy_http_version 1.1;
    proxy_connect_timeout 5s;
    proxy_read_timeout 30s;
    server {{
        listen {PORT};
{_not_for(apps)}{_locations(known, host)}    }}
    server {{
        listen {ENGINE_PORT};
{_not_for(apps)}{_engine()}    }}
{outside}}}
"""


def _locations(known: Inventory, host: Watched) -> str:
    targets = {**UPSTREAMS, "collector": COLLECTORS[known.collector]}
    # Variables, so that nginx starts, and goes on, while one of them is not there.
    jobs = "".join(_job(job, targets[job]) for job in host.jobs)
    return "        location = /health { return 200; }\n" + jobs + (_app(known.figures) if host.app and known.figures else "")


def _app(figures: str) -> str:
    """Let the apps' own figures be read, and nothing else at any address: `figures` is port and path."""
    return (
        f"        location ~ ^/app/([0-9.]+)/{re.escape(figures)}$ {{\n            limit_except GET {{ deny all; }}\n"
        f"            proxy_pass http://$1:{figures};\n        }}\n"
    )


def _not_for(apps: Sequence[str]) -> str:
    return "".join(f"        deny {subnet};\n" for subnet in apps)


def _job(job: str, target: str) -> str:
    return f"        location = /{job}/metrics {{\n            limit_except GET {{ deny all; }}\n            set $target {target};\n            proxy_pass http://$target/metrics;\n        }}\n"


def _engine() -> str:
    return (
        f'        location ~ "{_ENGINE}" {{\n            limit_except GET {{ deny all; }}\n'
        "            proxy_set_header Host localhost;\n            proxy_pass http://unix:/var/run/docker.sock:$1/$2$is_args$args;\n        }\n"
        "        location / { return 403; }\n"
    )


def _outside(host: Watched) -> str:
    logs = (
        f"        location = /loki/api/v1/push {{\n            client_max_body_size 20m;\n            set $loki {PROJECT}-loki-1:3100;\n"
        "            proxy_pass http://$loki;\n        }\n"
        if host.stack
        else ""
    )
    return f"""\
    server {{
        listen {TLS_PORT} ssl;
        ssl_certificate {MOUNT}/tls/cert.pem;
        ssl_certificate_key {MOUNT}/tls/key.pem;
        ssl_client_certificate {MOUNT}/tls/ca.pem;
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        location /v {{ proxy_pass http://127.0.0.1:{ENGINE_PORT}; }}
        location = /_ping {{ proxy_pass http://127.0.0.1:{ENGINE_PORT}; }}
        location / {{ proxy_pass http://127.0.0.1:{PORT}; }}
{logs}    }}
"""
