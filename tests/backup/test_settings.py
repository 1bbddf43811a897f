"""What each server is told about its backups."""

from __future__ import annotations

import json

from backup.agent.expire import policy
from backup.agent.model import Settings
from backup.hosts import saving
from backup.settings import needed_secrets, server_settings
from ops.config import App, Backup, BackupSource, Environment, HostAddress, Keep, Keeping, Notifications, Offsite
from ops.secret import Secret

FIRST, SECOND = HostAddress(address="one"), HostAddress(address="two")
SQLITE = BackupSource(kind="sqlite", volume="data", path="blog.db")
DATABASE = BackupSource(kind="postgres", address="db", image="postgres:16", user="blog", database="blog", password="DB")
SECRETS = {name: Secret(f"value of {name}") for name in ("DB", "PING", "RESTIC", "AWS", "SLACK")}


def environment(**sources: BackupSource) -> Environment:
    backup = Backup(
        sources=sources,
        recipients=("age1" + "q" * 58,),
        identity="AGE",
        ping="PING",
        keep=Keeping(daily=Keep(count=10)),
        offsite=Offsite(repository="r", password="RESTIC", environment={"AWS_ID": "AWS"}),
    )
    return Environment(
        name="production",
        app=App(name="blog", port=3000, volumes={"data": "/app/data"}, backup=backup),
        hosts=(FIRST, SECOND),
        domains=("a.example",),
        notifications=Notifications(urls=("SLACK",)),
    )


def test_files_are_every_hosts_and_databases_the_firsts() -> None:
    env = environment(files=SQLITE, main=DATABASE)
    assert [one.name for one in server_settings(env, FIRST, SECRETS).sources] == ["files", "main"]
    assert [one.name for one in server_settings(env, SECOND, SECRETS).sources] == ["files"]
    assert saving(env) == (FIRST, SECOND)


def test_a_host_that_has_nothing_to_save_is_not_asked() -> None:
    assert saving(environment(main=DATABASE)) == (FIRST,)


def test_a_source_is_named_as_the_server_knows_it() -> None:
    files, main = server_settings(environment(files=SQLITE, main=DATABASE), FIRST, SECRETS).sources
    assert (files.volume, files.path) == ("blog_data", "blog.db")
    assert (main.address, main.port, main.image, main.password) == ("db", 5432, "postgres:16", "value of DB")


def test_secrets_are_their_values_and_the_identity_is_not_among_them() -> None:
    env = environment(main=DATABASE)
    settings = server_settings(env, FIRST, SECRETS)
    assert (settings.ping, settings.notify) == ("value of PING", ("value of SLACK",))
    assert settings.offsite
    assert (settings.offsite.password, settings.offsite.environment) == ("value of RESTIC", {"AWS_ID": "value of AWS"})
    assert needed_secrets(env) == ("DB", "PING", "RESTIC", "AWS", "SLACK")
    assert "AGE" not in settings.to_json()
    assert "value of" not in repr(settings)


def test_the_program_reads_what_it_is_told_and_the_same_text_comes_of_the_same_settings() -> None:
    env = environment(files=SQLITE, main=DATABASE)
    settings = server_settings(env, FIRST, SECRETS)
    read = Settings.from_json(settings.to_json())
    assert read == settings
    assert read.to_json() == server_settings(env, FIRST, dict(reversed(SECRETS.items()))).to_json()
    assert json.loads(read.to_json())["keep"]["daily"] == {"count": 10}
    rules = policy(read).rules
    assert (rules["daily"].keep, rules["daily"].count) == (None, 10)
    assert rules["weekly"].keep
    assert rules["weekly"].keep.days == 90
