"""Grafana: nobody gets in without the password, nothing leaves, and nothing can be changed but by files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from monitoring import dashboards, grafana
from monitoring.inventory import Inventory
from ops.config import Monitoring
from ops.config_monitoring import PublicGrafana

INVENTORY = Inventory("production", "blog", (), (), "alloy", frozenset())
WITHOUT_LOKI = Inventory("production", "blog", (), (), "alloy", frozenset(("loki", "collector")))
PUBLIC = Monitoring(
    grafana=PublicGrafana.model_construct(domain="watch.example.org", certificate=Path("watch.pem"), key="WATCH_KEY")
)


def provisioned(known: Inventory, kind: str) -> dict[str, Any]:
    files = {one.path: one for one in grafana.render(known, Monitoring())}
    document: dict[str, Any] = yaml.safe_load(files[f"grafana/provisioning/{kind}/tidegate.yaml"].content)
    assert document["apiVersion"] == 1
    return document


def datasources(known: Inventory) -> dict[str, dict[str, Any]]:
    return {one["uid"]: one for one in provisioned(known, "datasources")["datasources"]}


def test_datasources_are_those_of_the_stack_and_cannot_be_edited() -> None:
    found = datasources(INVENTORY)
    assert {uid: one["url"] for uid, one in found.items()} == {
        "prometheus": "http://tidegate-monitoring-prometheus-1:9090",
        "loki": "http://tidegate-monitoring-loki-1:3100",
        "alertmanager": "http://tidegate-monitoring-alertmanager-1:9093",
    }
    assert not any(one["editable"] for one in found.values())
    assert [uid for uid, one in found.items() if one["isDefault"]] == ["prometheus"]


def test_rates_span_at_least_four_scrapes() -> None:
    assert datasources(INVENTORY)["prometheus"]["jsonData"]["timeInterval"] == "15s"


def test_alertmanager_takes_no_alerts_from_grafana() -> None:
    assert datasources(INVENTORY)["alertmanager"]["jsonData"]["handleGrafanaManagedAlerts"] is False


def test_a_datasource_that_is_left_out_goes_away_in_a_running_grafana_too() -> None:
    assert "loki" not in datasources(WITHOUT_LOKI)
    assert provisioned(WITHOUT_LOKI, "datasources")["prune"] is True


def test_dashboards_name_only_datasources_that_are_provisioned() -> None:
    for known in (INVENTORY, WITHOUT_LOKI):
        found = [json.loads(one.content) for one in dashboards.render(None, known.without)]
        assert {(one["type"], one["uid"]) for document in found for one in references(document)} <= {
            (one["type"], uid) for uid, one in datasources(known).items()
        }


def references(document: Any) -> list[dict[str, str]]:
    if isinstance(document, list):
        return [one for value in document for one in references(value)]
    if not isinstance(document, dict):
        return []
    own = [document["datasource"]] if isinstance(document.get("datasource"), dict) else []
    return own + [one for value in document.values() for one in references(value)]


def test_dashboards_are_read_only_and_come_from_where_they_are_mounted() -> None:
    (provider,) = provisioned(INVENTORY, "dashboards")["providers"]
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    assert provider["options"] == {"path": "/etc/tidegate/dashboards"}
    assert {Path(one.path).parent.as_posix() for one in dashboards.render()} == {"grafana/dashboards"}
    assert (
        grafana.environment(Monitoring())["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == "/etc/tidegate/dashboards/overview.json"
    )


def test_the_password_is_in_a_file_and_nothing_in_the_environment_is_secret() -> None:
    settings = grafana.environment(Monitoring())
    assert settings["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/etc/tidegate/secrets/admin_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in settings
    assert "GF_SECURITY_SECRET_KEY" not in settings


def test_nobody_signs_up_and_nothing_is_told_to_or_fetched_from_others() -> None:
    settings = grafana.environment(Monitoring())
    assert all(type(value) is str for value in settings.values())
    off = [name for name, value in settings.items() if value == "false"]
    assert set(off) >= {
        "GF_AUTH_ANONYMOUS_ENABLED", "GF_USERS_ALLOW_SIGN_UP", "GF_ANALYTICS_REPORTING_ENABLED", "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "GF_NEWS_NEWS_FEED_ENABLED", "GF_PLUGINS_PLUGIN_ADMIN_ENABLED",
        "GF_PLUGINS_PREINSTALL_AUTO_UPDATE", "GF_SNAPSHOTS_EXTERNAL_ENABLED",
    }  # fmt: skip
    assert settings["GF_SECURITY_DISABLE_GRAVATAR"] == settings["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"


def test_cookies_travel_only_encrypted_where_grafana_is_public() -> None:
    near, public = grafana.environment(Monitoring()), grafana.environment(PUBLIC)
    assert (near["GF_SERVER_ROOT_URL"], near["GF_SECURITY_COOKIE_SECURE"]) == ("http://localhost:7810/", "false")
    assert (public["GF_SERVER_ROOT_URL"], public["GF_SECURITY_COOKIE_SECURE"]) == ("https://watch.example.org/", "true")
    assert public["GF_SECURITY_STRICT_TRANSPORT_SECURITY"] == "true"
