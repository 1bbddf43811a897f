"""What ops.toml may say about backups."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.intent import _what_runs
from ops.config import App, ConfigProblems, Environment, Problem, Project, load
from ops.config_explain import explain

AGE = "age1" + "q" * 58
SQLITE = 'sources.blog = { kind = "sqlite", volume = "data", path = "blog.db" }\n'
MAIN = 'kind = "postgres"\nuser = "blog"\ndatabase = "blog"\n'


def loaded(folder: Path, backup: str) -> Project:
    (folder / "Dockerfile").touch()
    (folder / "ops.toml").write_text(
        '[app]\nname = "blog"\nport = 3000\nvolumes = { data = "/app/data" }\nsecrets = ["KEY"]\n'
        f'[environments.production]\ndomain = "a.b"\nhosts = ["h"]\n[notifications]\nurls = ["SLACK"]\n[app.backup]\n{backup}'
    )
    return load(folder / "ops.toml", {})


def environment(folder: Path, backup: str) -> Environment:
    return loaded(folder, backup).environment("production")


def problem(folder: Path, backup: str) -> Problem:
    with pytest.raises(ConfigProblems) as caught:
        loaded(folder, backup)
    (one,) = caught.value.problems
    return one


def test_a_source_is_all_that_is_needed(tmp_path: Path) -> None:
    backup = environment(tmp_path, SQLITE).app.backup
    assert backup
    assert (backup.compression, backup.at, backup.minimum) == ("zstd", "03:00", 3)
    assert (backup.keep.daily.keep, backup.keep.weekly.keep, backup.keep.monthly.keep) == (30 * 86400, 90 * 86400, 365 * 86400)


@pytest.mark.parametrize(
    ("text", "key", "expected", "found"),
    [
        ("", "sources", "a value, it is required", ""),
        ("sources = {}", "sources", "at least one source", "a table"),
        (f'{SQLITE}compression = "zip"', "compression", "'zstd'", '"zip"'),
        (f"{SQLITE}level = 20", "level", "at most 19", "20"),
        (f'{SQLITE}at = "24:00"', "at", "a time of day in UTC", '"24:00"'),
        (f'{SQLITE}drill = "weekly"', "drill", 'a period such as "12h"', '"weekly"'),
        (f'{SQLITE}reserve = "much"', "reserve", "a size such as", '"much"'),
        (f"{SQLITE}minimum = 0", "minimum", "at least 1", "0"),
        (f'{SQLITE}recipients = ["age1"]', "recipients[0]", "a public key", "not shown"),
        (f'{SQLITE}recipients = ["AGE-SECRET-KEY-1ABC"]', "recipients[0]", "a public key", "not shown"),
        (f'{SQLITE}identity = "AGE"', "identity", "recipients as well", "not shown"),
        (f'{SQLITE}ping = "https://example.com/hunter2"', "ping", "the name of an environment variable", "not shown"),
        (f"{SQLITE}keep.daily = {{}}", "keep.daily", 'keep = "30d"', "a table"),
        (f'{SQLITE}keep.daily = {{ keep = "0" }}', "keep.daily.keep", "at least 1", '"0"'),
        (f"{SQLITE}keep.hourly = {{ count = 3 }}", "keep.hourly", "one of daily", "the unknown key"),
        (f'{SQLITE}offsite = {{ repository = "r" }}', "offsite.password", "it is required", ""),
        (f'{SQLITE}offsite = {{ repository = "r", password = "a b" }}', "offsite.password", "variable", "not shown"),
        ('sources.Blog = { kind = "sqlite", path = "/a" }', "sources.Blog", "a name of at most", 'the key "Blog"'),
        ('sources.b.path = "/a"', "sources.b.kind", "it is required", ""),
        ('sources.b.kind = "oracle"', "sources.b.kind", "'sqlite'", '"oracle"'),
        ('sources.b.kind = "sqlite"', "sources.b.path", "the path of a file", ""),
        ('sources.b.kind = "directory"', "sources.b.path", "a path, or a volume, or both", ""),
        ('sources.b = { kind = "sqlite", path = "b.db" }', "sources.b.path", "no volume is named", '"b.db"'),
        ('sources.b = { kind = "directory", path = "/" }', "sources.b.path", "an absolute path", '"/"'),
        ('sources.b = { kind = "directory", path = "/a/../b" }', "sources.b.path", 'without ".."', '"/a/../b"'),
        ('sources.b = { kind = "sqlite", volume = "data", path = "/b.db" }', "sources.b.path", "inside the volume", '"/b.db"'),
        ('sources.b = { kind = "sqlite", volume = "data", path = "../b" }', "sources.b.path", "inside the volume", '"../b"'),
        ('sources.b = { kind = "sqlite", volume = "dat", path = "b" }', "sources.b.volume", "[app.volumes] (data)", '"dat"'),
        ('sources.b = { kind = "sqlite", path = "/b", user = "x" }', "sources.b.user", 'whose kind is "sqlite"', '"x"'),
        ('sources.b = { kind = "sqlite", path = "/b", exclude = ["x"] }', "sources.b.exclude", "no such key", "a list of 1"),
        ('sources.b = { kind = "directory", path = "/b", smoke = "x" }', "sources.b.smoke", "no such key", '"x"'),
        (f'[app.backup.sources.b]\n{MAIN}container = "c"\npath = "/x"', "sources.b.path", 'whose kind is "postgres"', '"/x"'),
        (f"[app.backup.sources.b]\n{MAIN}", "sources.b.container", "or else address and image", ""),
        (f'[app.backup.sources.b]\n{MAIN}address = "db"', "sources.b.image", "postgres:16", ""),
        (f'[app.backup.sources.b]\n{MAIN}address = "-db"\nimage = "i"', "sources.b.address", "a host name", '"-db"'),
        (f'[app.backup.sources.b]\n{MAIN}container = "c"\nport = 5432', "sources.b.container", "port is there as well", '"c"'),
        (f'[app.backup.sources.b]\n{MAIN}container = "a b"', "sources.b.container", "a container's name", '"a b"'),
        (f'[app.backup.sources.b]\n{MAIN}container = "c"\npassword = "x y"', "sources.b.password", "variable", "not shown"),
        ('sources.b = { kind = "mariadb", container = "c", user = "u" }', "sources.b.database", "a database needs it", ""),
        ('sources.b = { kind = "mariadb", container = "c", database = "d" }', "sources.b.user", "a database needs it", ""),
    ],
)
def test_a_mistake_is_named_with_what_was_expected_and_found(
    tmp_path: Path, text: str, key: str, expected: str, found: str
) -> None:
    one = problem(tmp_path, text)
    assert (one.file, one.key) == ("ops.toml", f"app.backup.{key}")
    assert expected in one.expected
    assert found in one.found
    assert bool(found) == bool(one.found)


def test_each_host_has_files_and_the_first_has_databases_unless_told(tmp_path: Path) -> None:
    text = f'{SQLITE}sources.all = {{ kind = "directory", volume = "data", path = "uploads" }}\n'
    text += 'sources.one = { kind = "directory", volume = "data", path = "more", on = "first" }\n[app.backup.sources.main]\ncontainer = "db"\n'
    backup = environment(tmp_path, text + MAIN).app.backup
    assert backup
    assert {name: source.each for name, source in backup.sources.items()} == {
        "blog": True, "all": True, "one": False, "main": False,
    }  # fmt: skip


def test_the_identity_is_no_secret_that_a_server_needs(tmp_path: Path) -> None:
    text = f'recipients = ["{AGE}"]\nidentity = "AGE"\nping = "PING"\noffsite = {{ repository = "r", password = "RESTIC", '
    text += 'environment = { AWS_ACCESS_KEY_ID = "AWS" } }\n[app.backup.sources.main]\ncontainer = "db"\npassword = "DB"\n'
    env = environment(tmp_path, text + MAIN)
    assert env.app.backup
    assert env.app.backup.server_secrets == ("DB", "PING", "RESTIC", "AWS")
    assert env.secret_names == ("KEY", "SLACK", "DB", "PING", "RESTIC", "AWS", "AGE")


def test_other_volumes_of_an_environment_are_known_to_its_sources(tmp_path: Path) -> None:
    text = f'{SQLITE}[environments.production.app]\nvolumes = {{ more = "/more" }}\n'
    text += '[environments.production.app.backup.sources.more]\nkind = "directory"\nvolume = "more"\n'
    backup = environment(tmp_path, text).app.backup
    assert backup
    assert set(backup.sources) == {"blog", "more"}


def test_a_change_of_backups_is_no_reason_to_restart_the_app(tmp_path: Path) -> None:
    env = environment(tmp_path, SQLITE)
    without = env.model_copy(update={"app": App(**{**dict(env.app), "backup": None})})
    assert _what_runs(env, "", None) == _what_runs(without, "", None)


def test_what_is_in_effect_is_shown_in_days_and_without_what_a_source_leaves_out(tmp_path: Path) -> None:
    rows = {key: value for key, value, _ in explain(loaded(tmp_path, SQLITE), "production")}
    assert rows["app.backup.keep.daily.keep"] == '"30d"'
    assert rows["app.backup.sources.blog.path"] == '"blog.db"'
    assert "app.backup.sources.blog.container" not in rows


UPLOADS = 'sources.files = { kind = "directory", volume = "data"'


@pytest.mark.parametrize("folder", [f"{UPLOADS} }}", f'{UPLOADS}, exclude = ["cache/*"] }}'])
def test_a_folder_that_holds_the_bare_file_of_a_database_is_refused(tmp_path: Path, folder: str) -> None:
    one = problem(tmp_path, f"{SQLITE}{folder}\n")
    assert 'exclude = ["blog.db*"]' in one.expected


@pytest.mark.parametrize("folder", [f'{UPLOADS}, path = "uploads" }}', f'{UPLOADS}, exclude = ["blog.db*"] }}'])
def test_a_folder_beside_a_database_or_without_it_is_fine(tmp_path: Path, folder: str) -> None:
    backup = environment(tmp_path, f"{SQLITE}{folder}\n").app.backup
    assert backup
    assert len(backup.sources) == 2
