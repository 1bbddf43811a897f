"""Loki's configuration, as far as it can be told without Loki."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from monitoring import loki
from monitoring.loki import ObjectStore
from ops.secret import Secret

BUCKET = ObjectStore("logs", "s3.example.org", "eu-central-1", Secret("AK-1"), Secret("hush"), insecure=True)
DAY = 86400.0


def configured(keep: float = 14 * DAY, store: ObjectStore | None = None) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(loki.render("production", keep, store, {})[0].content)
    return found


def test_logs_go_when_their_time_is_over() -> None:
    main = configured()
    assert main["limits_config"]["retention_period"] == "336h"
    assert main["compactor"] == {"retention_enabled": True, "delete_request_store": "filesystem"}


def test_logs_are_kept_a_day_at_least_which_is_the_soonest_that_loki_deletes() -> None:
    assert configured(keep=3600.0)["limits_config"]["retention_period"] == "24h"


def test_object_storage_takes_chunks_index_and_deletions() -> None:
    main = configured(store=BUCKET)
    assert [period["object_store"] for period in main["schema_config"]["configs"]] == ["s3"]
    assert main["compactor"]["delete_request_store"] == "s3"
    assert main["common"]["storage"]["s3"] == {
        "bucketnames": "logs", "endpoint": "s3.example.org", "region": "eu-central-1", "insecure": True, "s3forcepathstyle": True,
    }  # fmt: skip


def test_keys_to_the_bucket_are_in_a_file_that_only_loki_reads() -> None:
    main, keys = loki.render("production", DAY, BUCKET, {})
    assert "hush" not in main.content
    assert keys.content == "[default]\naws_access_key_id = AK-1\naws_secret_access_key = hush\n"
    assert (keys.path, keys.mode, keys.owner) == ("loki/secrets/s3", 0o400, 10001)


def test_rules_are_where_the_ruler_looks_and_its_alerts_say_the_environment() -> None:
    files = {file.path: file.content for file in loki.render("production", DAY, None, {"logs.yml": "groups: []"})}
    assert files["loki/rules/fake/logs.yml"] == "groups: []"
    ruler = configured()["ruler"]
    assert ruler["storage"]["local"]["directory"] == "/etc/tidegate/rules"
    assert ruler["alertmanager_url"] == "http://alertmanager:9093"
    assert ruler["external_labels"] == {"environment": "production"}


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("reject_old_samples", False),
        ("max_line_size_truncate", True),
        ("discover_service_name", []),
        ("shard_streams", {"enabled": False}),
    ],
)
def test_old_and_long_lines_are_taken_and_no_label_is_added(limit: str, value: object) -> None:
    assert configured()["limits_config"][limit] == value


def test_nothing_is_reported_to_anybody() -> None:
    assert configured()["analytics"] == {"reporting_enabled": False}
