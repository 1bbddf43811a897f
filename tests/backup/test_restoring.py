"""Restores seen from here: who else writes, and what is told when servers end up with different data."""

from __future__ import annotations

import pytest

from backup.restoring import Replaced, left_alone, require_one_writer
from ops.config import Backup, BackupSource, Environment, HostAddress
from ops.errors import Refused
from tests.backup.test_settings import environment

DATABASE = BackupSource.model_validate({"kind": "postgres", "container": "db", "user": "blog", "database": "blog"})
FILE = BackupSource.model_validate({"kind": "sqlite", "path": "/srv/blog.db"})


def planned(source: str, *hosts: str) -> list[Replaced]:
    return [Replaced(host, source, "", "2026-01-01T00:00:00Z", 1, "v1") for host in hosts]


def two_hosts() -> Environment:
    found = environment(main=DATABASE, posts=FILE)
    hosts = (HostAddress(address="one"), HostAddress(address="two"))
    return found.model_copy(update={"hosts": hosts})


def test_a_database_that_the_app_elsewhere_writes_to_is_not_replaced_under_it() -> None:
    with pytest.raises(Refused, match="the app on two writes to main"):
        require_one_writer(two_hosts(), planned("main", "one"))


def test_files_of_one_server_are_nobody_elses() -> None:
    require_one_writer(two_hosts(), planned("posts", "one"))
    assert left_alone(two_hosts(), planned("posts", "one")) == ["two"]


def test_a_source_that_ops_toml_does_not_have_any_more_is_judged_by_the_server() -> None:
    require_one_writer(two_hosts(), planned("gone", "one"))


def test_one_server_is_its_only_writer() -> None:
    only = two_hosts().model_copy(update={"hosts": (HostAddress(address="one"),)})
    require_one_writer(only, planned("main", "one"))
    assert Backup.model_validate({"sources": {"main": DATABASE}}).sources["main"] == DATABASE
