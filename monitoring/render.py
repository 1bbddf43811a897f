"""All files of the stack, server by server. Pure: what it needs of the world is handed to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from monitoring import alertmanager, collector, dashboards, gate, grafana, loki, prometheus
from monitoring.certificates import Identity
from monitoring.files import MEMBERS, OWNER, File
from monitoring.inventory import Inventory, Watched, addresses
from ops.config import Environment, Monitoring, ObjectStorage
from ops.errors import ConfigError
from ops.secret import Secret

LOG_RULES = Path(__file__).parent / "rules" / "loki"
PASSWORD = "grafana/secrets/admin_password"  # noqa: S105  # where it is
_TLS_USERS = {"gate": gate.USER, "prometheus": prometheus.USER, "collector": 0}
_EXPORTER_USER = 65534
_BLACKBOX = {
    "modules": {
        "http": {
            "prober": "http", "timeout": "10s",
            "http": {"method": "GET", "preferred_ip_protocol": "ip4", "follow_redirects": False, "headers": {"User-Agent": "tidegate"}},
        }
    }
}  # fmt: skip

Secrets = Mapping[str, Secret]


def render(
    env: Environment, known: Inventory, host: Watched, secrets: Secrets, *, journal: bool = False, apps: Sequence[str] = ()
) -> list[File]:
    """Return the files of one server but for those made there once: TLS identities, Grafana's password; `journal`: it has one on disk."""
    owner = File(OWNER, json.dumps({"app": known.app, "environment": known.environment}) + "\n")
    members = File(MEMBERS, json.dumps(addresses(known)) + "\n")
    files = [
        owner,
        members,
        *gate.render(known, host, apps),
        *_collector(known, host, journal=journal),
        *_postgres(host, secrets),
    ]
    return files + (list(_stack(env, known, secrets)) if host.stack else [])


def identity_files(known: Inventory, host: Watched, identity: Identity) -> list[File]:
    """Return what a server shows other servers and whom it believes, for each service that needs it.

    The certificate is written first and the CA last: whatever a run that died leaves, the one is not of the other.
    """
    return [
        File(f"{service}/tls/{name}.pem", text, 0o400 if name == "key" else 0o444, _TLS_USERS[service])
        for service in tls_services(known, host)
        for name, text in (("cert", identity.certificate), ("key", identity.key), ("ca", identity.ca))
    ]


def tls_services(known: Inventory, host: Watched) -> list[str]:
    """Return the services of a server that reach, or are reached from, other servers."""
    return [
        "gate",
        *(["prometheus"] if host.stack else []),
        *(["collector"] if "collector" in host.jobs and not host.stack else []),
    ]


def secret_names(env: Environment, known: Inventory) -> tuple[str, ...]:
    """Return the secrets that files of the stack hold, each once."""
    databases = [host.postgres.password for host in known.hosts if host.postgres and host.postgres.password]
    return tuple(dict.fromkeys((*env.monitoring.secret_names, *databases)))


def require_urls(settings: Monitoring, secrets: Secrets) -> None:
    """Look at what Alertmanager would only find out when somebody is to be told. Raises ConfigError, without the secret."""
    told = [
        settings.slack.webhook if settings.slack else None,
        settings.heartbeat,
        *(one.url for one in settings.webhooks.values()),
    ]
    for name in (one for one in told if one):
        parts = urlsplit(secrets[name].reveal().strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"the secret {name} is not a URL", where="[monitoring]", fix="it has to begin with https://, and name a host"
            )


def _stack(env: Environment, known: Inventory, secrets: Secrets) -> Iterator[File]:
    settings = env.monitoring
    yield from prometheus.render(env, known)
    if settings.remote_write and settings.remote_write.password:
        yield _secret("prometheus", "remote_write", secrets[settings.remote_write.password], prometheus.USER)
    yield from alertmanager.render(settings, env.name)
    for name in alertmanager.secret_names(settings):
        yield _secret("alertmanager", name, secrets[name], prometheus.USER)
    if known.has("grafana"):
        yield from grafana.render(known, settings)
        yield from dashboards.render(settings.runbooks, _unseen(env, known))
    if known.has("loki"):
        yield from _loki(env, secrets)
    if known.has("blackbox"):
        yield File("blackbox/blackbox.yml", "# Written by `inv monitoring.up`.\n" + yaml.safe_dump(_BLACKBOX, sort_keys=False))


def _unseen(env: Environment, known: Inventory) -> frozenset[str]:
    """Return the parts whose panels would stay empty."""
    jobs = {job for host in known.hosts for job in host.jobs}
    return known.without | ({"app"} if env.app.metrics is None else set()) | ({"postgres"} - jobs)


def _collector(known: Inventory, host: Watched, *, journal: bool) -> list[File]:
    if "collector" not in host.jobs:
        return []
    told = collector.Collector(host.name, collector.push_address(None if host.stack else known.watcher.address.private), journal)
    return [collector.alloy(told) if known.collector == "alloy" else collector.promtail(told)]


def _loki(env: Environment, secrets: Secrets) -> list[File]:
    settings, rules = env.monitoring, {path.name: path.read_text() for path in LOG_RULES.glob("*.yml")}
    return loki.render(env.name, settings.logs_keep, _store(settings.object_storage, secrets), rules)


def _store(wanted: ObjectStorage | None, secrets: Secrets) -> loki.ObjectStore | None:
    if wanted is None:
        return None
    keys = secrets[wanted.access_key], secrets[wanted.secret_key]
    return loki.ObjectStore(wanted.bucket, wanted.endpoint, wanted.region, *keys, wanted.insecure)


def _postgres(host: Watched, secrets: Secrets) -> list[File]:
    if not host.postgres:
        return []
    password = secrets[host.postgres.password] if host.postgres.password else Secret("")
    return [_secret("postgres-exporter", "password", password, _EXPORTER_USER)]


def _secret(service: str, name: str, value: Secret, owner: int) -> File:
    return File(f"{service}/secrets/{name}", value.reveal(), 0o400, owner)
