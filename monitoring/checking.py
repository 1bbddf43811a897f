"""`inv monitoring.check` of one environment: what would be placed now, judged; and what runs, asked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from monitoring import images
from monitoring.checked import Checked, run
from monitoring.hosts import connected, decide, each, look, watcher
from monitoring.inventory import inventory
from monitoring.live import Http, Loki, Prometheus
from monitoring.render import require_urls, secret_names
from ops.config import Environment
from ops.secret import Mask
from ops.secrets import resolve_secrets


def check_of(env: Environment, environ: Mapping[str, str]) -> Checked:
    """Check every server's files on its engine and, where the stack runs, its rules and their series. Changes nothing."""
    known = inventory(env)
    secrets = resolve_secrets(env, secret_names(env, known), environ)
    require_urls(env.monitoring, secrets)
    with ExitStack() as work:
        work.enter_context(Mask(secrets))
        hosts = work.enter_context(connected(env, known))
        each(hosts, lambda host: look(host, known))
        decide(env, known, hosts, secrets)
        lock = {**images.load(), **{name: images.parse(image) for host in hosts for name, image in host.images.items()}}
        host = watcher(hosts)
        running, http = host.server.running(), Http(host.server.link)
        servers = {one.server.name: (one.server.engine, one.files) for one in hosts}
        return run(
            servers, lock, Prometheus(http) if "prometheus" in running else None, Loki(http) if "loki" in running else None
        )
