"""Grafana's settings, datasources and where its dashboards are. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from monitoring.files import MOUNT, PROJECT, SECRETS, File
from monitoring.inventory import Inventory
from monitoring.prometheus import INTERVAL
from ops.config import Monitoring

PORT = 7810  # on the stack host's loopback
DASHBOARDS = f"{MOUNT}/dashboards"

Table = dict[str, Any]


def render(known: Inventory, _: Monitoring) -> list[File]:
    """Return what Grafana reads at its start: datasources that nobody can change, dashboards that only files can."""
    return [
        _provisioned("datasources", _datasources(known)),
        _provisioned("dashboards", _dashboards()),
        *(_provisioned(kind, {}) for kind in ("plugins", "alerting")),  # an absent folder is an error in its log
    ]


def environment(settings: Monitoring) -> dict[str, str]:
    """Return Grafana's settings as its container's environment variables."""
    public = settings.grafana
    root = f"https://{public.domain}/" if public else f"http://localhost:{PORT}/"
    return {f"GF_{name}": value for name, value in _settings(root, secure="true" if public else "false").items()}


def _settings(root: str, secure: str) -> dict[str, str]:
    return {
        "PATHS_PROVISIONING": f"{MOUNT}/provisioning",
        "SERVER_ROOT_URL": root,
        "LOG_LEVEL": "warn",
        "DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{DASHBOARDS}/overview.json",
        # Nobody gets in but with the password, which acts on the first start only.
        "SECURITY_ADMIN_PASSWORD__FILE": f"{SECRETS}/admin_password",
        "SECURITY_COOKIE_SECURE": secure,
        "SECURITY_COOKIE_SAMESITE": "lax",
        "SECURITY_STRICT_TRANSPORT_SECURITY": secure,
        "AUTH_ANONYMOUS_ENABLED": "false",
        "USERS_ALLOW_SIGN_UP": "false",
        "USERS_ALLOW_ORG_CREATE": "false",
        # Nothing is told to others or fetched from them.
        "ANALYTICS_REPORTING_ENABLED": "false",
        "ANALYTICS_CHECK_FOR_UPDATES": "false",
        "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "ANALYTICS_FEEDBACK_LINKS_ENABLED": "false",
        "NEWS_NEWS_FEED_ENABLED": "false",
        "SECURITY_DISABLE_GRAVATAR": "true",
        "SNAPSHOTS_ENABLED": "false",
        "SNAPSHOTS_EXTERNAL_ENABLED": "false",
        "PLUGINS_PLUGIN_ADMIN_ENABLED": "false",
        "PLUGINS_PREINSTALL_DISABLED": "true",
        "PLUGINS_PREINSTALL_AUTO_UPDATE": "false",
        "PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED": "true",
    }


def _provisioned(kind: str, document: Table) -> File:
    text = yaml.safe_dump({"apiVersion": 1, **document}, sort_keys=False)
    return File(f"grafana/provisioning/{kind}/tidegate.yaml", "# Written by `inv monitoring.up`.\n" + text)


def _datasources(known: Inventory) -> Table:
    found = [
        # Its interval makes $__rate_interval a minute at least: four samples.
        _datasource("prometheus", 9090, {"httpMethod": "POST", "timeInterval": INTERVAL, "alertmanagerUid": "alertmanager"}),
        _datasource("alertmanager", 9093, {"implementation": "prometheus", "handleGrafanaManagedAlerts": False}),
    ]
    if known.has("loki"):
        found.append(_datasource("loki", 3100, {"maxLines": 1000, "alertmanagerUid": "alertmanager"}))
    return {"prune": True, "datasources": found}


def _datasource(name: str, port: int, settings: Table) -> Table:
    """Describe a datasource; its name in Compose is also its kind and the uid that dashboards know."""
    return {
        "name": name.capitalize(),
        "uid": name,
        "type": name,
        "access": "proxy",
        "url": f"http://{PROJECT}-{name}-1:{port}",  # an app's service of the short name might be found first
        "isDefault": name == "prometheus",
        "editable": False,
        "jsonData": settings,
    }


def _dashboards() -> Table:
    provider = {
        "name": "tidegate",
        "folder": "Tidegate",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": DASHBOARDS},
    }
    return {"providers": [provider]}
