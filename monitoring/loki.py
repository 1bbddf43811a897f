"""Loki's configuration: one process, with its data on a volume or in object storage. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from monitoring.files import MOUNT, File
from ops.secret import Secret

USER = 10001  # loki, in the upstream image
PORT = 3100
DATA = "/loki"
# With authentication off Loki's one tenant is called fake, and rules are in a folder of their tenant's name.
TENANT = "fake"
_CREDENTIALS = "s3"  # not in the configuration: Loki shows that one to everybody who asks /config
_SOONEST = 24 * 3600.0  # the compactor deletes by the index' period, a day

Table = dict[str, Any]


@dataclass(frozen=True)
class ObjectStore:
    """A bucket of S3 or the like, and the keys to it."""

    bucket: str
    endpoint: str
    region: str
    access_key: Secret
    secret_key: Secret
    insecure: bool = False


def render(environment: str, keep: float, store: ObjectStore | None, rules: Mapping[str, str]) -> list[File]:
    """Return Loki's files; it needs at least one file of alert rules, or it looks for their folder in vain."""
    return [
        File(
            "loki/loki.yaml",
            "# Written by `inv monitoring.up`.\n" + yaml.safe_dump(_main(environment, keep, store), sort_keys=False, width=130),
        ),
        *(File(f"loki/rules/{TENANT}/{name}", text) for name, text in sorted(rules.items())),
        *([_credentials(store)] if store else []),
    ]


def _credentials(store: ObjectStore) -> File:
    keys = f"aws_access_key_id = {store.access_key.reveal()}\naws_secret_access_key = {store.secret_key.reveal()}\n"
    return File(f"loki/secrets/{_CREDENTIALS}", f"[default]\n{keys}", mode=0o400, owner=USER)


def _main(environment: str, keep: float, store: ObjectStore | None) -> Table:
    kind = "s3" if store else "filesystem"
    return {
        "auth_enabled": False,
        "analytics": {"reporting_enabled": False},
        "server": {"http_listen_port": PORT, "log_level": "warn"},
        "common": {
            "path_prefix": DATA,
            "replication_factor": 1,
            "instance_addr": "127.0.0.1",
            "ring": {"kvstore": {"store": "inmemory"}},
            "storage": {kind: _bucket(store) if store else {"chunks_directory": f"{DATA}/chunks"}},
        },
        # From a day before any log: a line older than the first period would be refused.
        "schema_config": {
            "configs": [
                {
                    "from": "2020-01-01",
                    "store": "tsdb",
                    "object_store": kind,
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "ingester": {
            "lifecycler": {"min_ready_duration": "0s"},  # nobody to wait for: it is the only one
            "wal": {"replay_memory_ceiling": "256MB"},  # of the container's 1 GB; the default is 4 GB
        },
        "compactor": {"retention_enabled": True, "delete_request_store": kind},
        "limits_config": _limits(keep),
        "querier": {"max_concurrent": 4},
        "ruler": _ruler(environment),
    }


def _bucket(store: ObjectStore) -> Table:
    return {
        "bucketnames": store.bucket,
        "endpoint": store.endpoint,
        "region": store.region,
        "insecure": store.insecure,
        "s3forcepathstyle": True,  # a bucket as a domain needs DNS that MinIO and the like seldom have
    }


def _limits(keep: float) -> Table:
    return {
        "retention_period": f"{round(max(keep, _SOONEST) / 3600)}h",
        # What is refused is lost: a collector that was away, or sees a server for the first time, sends old lines.
        "reject_old_samples": False,
        "max_line_size_truncate": True,
        # Fast enough to catch up after an outage; beyond it the collector is told to wait (429), and does.
        "ingestion_rate_mb": 16,
        "ingestion_burst_size_mb": 32,
        "per_stream_rate_limit": "8MB",
        "per_stream_rate_limit_burst": "32MB",
        "max_global_streams_per_user": 5000,
        "discover_service_name": [],  # else every stream gets a label more
        "shard_streams": {"enabled": False},  # and busy ones another
        "volume_enabled": True,
    }


def _ruler(environment: str) -> Table:
    return {
        "storage": {"type": "local", "local": {"directory": f"{MOUNT}/rules"}},
        "rule_path": f"{DATA}/rules-temp",
        "alertmanager_url": "http://alertmanager:9093",
        "external_labels": {"environment": environment},
        "ring": {"kvstore": {"store": "inmemory"}},
    }
