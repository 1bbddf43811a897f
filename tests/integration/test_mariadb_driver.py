"""MariaDB saved, proved and restored for real."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backup.agent import mariadb_restore
from backup.agent.errors import BackupError, Refused, Stopped
from backup.agent.mariadb import MariaDb
from backup.agent.mariadb_sql import name as quoted
from backup.agent.model import Source
from backup.agent.source import Saved, Stage
from ops.bases import ensure_base
from tests.integration.databases import DAMAGE, Site, damaged, docker, server

pytestmark = pytest.mark.integration

IMAGE = "mariadb:11.8"
PASSWORD = "a b'c\"d\\e#ü"
DATABASE = "Shop `of' \"ü"
ODD = "or der's \\ `x`"
FILL = f"""
CREATE TABLE `accounts` (id int PRIMARY KEY, cents bigint NOT NULL) ENGINE=InnoDB;
CREATE TABLE `transfers` (id int AUTO_INCREMENT PRIMARY KEY, account int NOT NULL, cents bigint NOT NULL, filler blob,
  FOREIGN KEY (account) REFERENCES accounts (id)) ENGINE=InnoDB;
CREATE TABLE {quoted(ODD)} (`näme'"` varchar(50), data varbinary(20)) ENGINE=InnoDB;
INSERT INTO accounts SELECT seq, 0 FROM seq_1_to_50;
INSERT INTO transfers (account, cents, filler) SELECT 1 + seq % 50, seq, RANDOM_BYTES(400) FROM seq_1_to_20000;
INSERT INTO {quoted(ODD)} VALUES ('it''s \\\\ ü', x'00ff0a0d5c27');
"""


def sql(container: str, text: str, database: str = "", user: str = "root", password: str = PASSWORD) -> str:
    """Run SQL in a database."""
    command = ["exec", "-i", "-e", f"MYSQL_PWD={password}", container, "mariadb", "-h127.0.0.1", "-BN", f"-u{user}"]
    return docker(
        *command, "--skip-ssl-verify-server-cert", "--default-character-set=utf8mb4", f"--database={database}", feed=text
    )


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    ensure_base(IMAGE, print)
    probe = ["mariadb", "-h127.0.0.1", f"-p{PASSWORD}", "--skip-ssl-verify-server-cert", "-e", "SELECT 1"]
    with server(IMAGE, {"MARIADB_ROOT_PASSWORD": PASSWORD}, probe) as name:
        yield name


@pytest.fixture
def site(container: str, tmp_path: Path) -> Iterator[Site]:
    """A shop's database with unusual names; afterwards nothing of ours may be left."""
    before = set(databases(container))
    sql(container, f"CREATE DATABASE {quoted(DATABASE)} COLLATE utf8mb4_unicode_520_ci")
    sql(container, FILL, DATABASE)
    site = Site(
        tmp_path, Source("main", "mariadb", container=container, user="root", database=DATABASE, password=PASSWORD), MariaDb
    )
    yield site
    kept = f"{DATABASE}_before_t1"
    sql(container, f"DROP DATABASE IF EXISTS {quoted(DATABASE)}; DROP DATABASE IF EXISTS {quoted(kept)}")
    assert site.left() == []
    assert set(databases(container)) == before
    assert sessions(container) == 0


def databases(container: str) -> list[str]:
    return sql(container, "SHOW DATABASES").splitlines()


def sessions(container: str) -> int:
    """Count the sessions of others, once those that are ending have ended."""
    ours = "SELECT COUNT(*) FROM information_schema.processlist WHERE user <> 'system user' AND id <> CONNECTION_ID()"
    sql(container, f"""DELIMITER //
        BEGIN NOT ATOMIC FOR i IN 1..50 DO IF ({ours}) > 0 THEN DO SLEEP(0.1); END IF; END FOR; END //""")  # fmt: skip
    return int(sql(container, ours))


def rows(site: Site, table: str = "transfers", database: str = DATABASE) -> int:
    return int(sql(site.source.container, f"SELECT COUNT(*) FROM {quoted(table)}", database))


@pytest.fixture(scope="module")
def saved(container: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Saved]]:
    """One backup for all that only read it."""
    name = "saved only"
    sql(container, f"CREATE DATABASE {quoted(name)}")
    sql(container, FILL, name)
    source = Source("main", "mariadb", container=container, user="root", database=name, password=PASSWORD)
    site = Site(tmp_path_factory.mktemp("saved"), source, MariaDb)
    try:
        yield site, site.save()
    finally:
        sql(container, f"DROP DATABASE {quoted(name)}")


def test_a_backup_passes_every_level_with_the_rows_of_the_dump(site: Site) -> None:
    saved = site.save()
    assert dict(saved.item.counts) == {"accounts": 50, "transfers": 20000, ODD: 1}
    assert [file.name for file in saved.item.files] == ["main.sql.zst", "main.globals.sql.zst"]
    assert saved.item.warnings == ()
    site.driver.decode(saved, site.work())
    with site.driver.trial(saved, site.work()) as trial:
        assert trial.counts() == saved.item.counts
        assert trial.query(f"SELECT hex(data) FROM {quoted(ODD)}") == "00FF0A0D5C27"


@pytest.mark.parametrize(("user", "password"), [("root", PASSWORD), pytest.param("cl_e'rk", "p'\\ü", marks=pytest.mark.slow)])
def test_the_sources_own_user_may_come_into_a_throwaway_server(saved: tuple[Site, Saved], user: str, password: str) -> None:
    site, backup = saved
    own = site.change(user=user, password=password)
    with own.driver.trial(backup, site.work()) as trial:
        inside = own.change(container=trial.container)  # type: ignore[attr-defined]
        assert inside.driver.state().schema == backup.item.schema


def test_the_state_has_the_schema_of_the_dump_and_changes_with_it(site: Site) -> None:
    item = site.save().item
    assert site.driver.state().schema == item.schema
    sql(site.source.container, "INSERT INTO accounts VALUES (99, 1)", DATABASE)
    assert site.driver.state().schema == item.schema
    sql(site.source.container, "ALTER TABLE accounts ADD note text", DATABASE)
    assert site.driver.state().schema != item.schema


@pytest.mark.slow
def test_a_throwaway_server_fails_a_query_that_fails(saved: tuple[Site, Saved]) -> None:
    site, backup = saved
    with site.driver.trial(backup, site.work()) as trial, pytest.raises(BackupError, match="nowhere"):
        trial.query("SELECT 1 FROM nowhere")
    assert site.left() == []


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["main.sql.zst", "main.globals.sql.zst"])
def test_a_damaged_file_fails_the_decode(saved: tuple[Site, Saved], name: str, damage: str) -> None:
    site, backup = saved
    with pytest.raises(BackupError):
        site.driver.decode(damaged(backup, name, DAMAGE[damage]), site.work())


@pytest.mark.slow
def test_writers_during_the_dump_are_in_it_wholly_or_not_at_all(site: Site) -> None:
    sql(site.source.container, "DELETE FROM transfers; DELETE FROM accounts WHERE id > 1", DATABASE)
    transfer = """DELIMITER //
        BEGIN NOT ATOMIC
          FOR i IN 1..100000 DO
            START TRANSACTION;
            INSERT INTO transfers (account, cents) VALUES (1, 1); INSERT INTO accounts VALUES (i + 10, 1);
            COMMIT;
          END FOR;
        END //"""
    command = ["docker", "exec", "-i", "-e", f"MYSQL_PWD={PASSWORD}", site.source.container, "mariadb", "-h127.0.0.1", "-uroot",
               "--skip-ssl-verify-server-cert", "--default-character-set=utf8mb4", f"--database={DATABASE}"]  # fmt: skip
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert writer.stdin
        writer.stdin.write(transfer.encode())
        writer.stdin.close()
        while rows(site) < 200:
            assert writer.poll() is None
        before = rows(site)
        backup = site.save()
        assert writer.poll() is None
    finally:
        others = "SELECT MAX(id) FROM information_schema.processlist WHERE command = 'Query' AND id <> CONNECTION_ID()"
        sql(site.source.container, f"KILL {sql(site.source.container, others)}")
        writer.wait()
    counts = backup.item.counts
    assert counts["transfers"] == counts["accounts"] - 1 >= before
    assert rows(site) > counts["transfers"]
    with site.driver.trial(backup, site.work()) as trial:
        assert trial.counts() == counts


def test_without_the_right_to_lock_everybody_the_tables_are_locked(site: Site) -> None:
    grant = f"CREATE USER clerk IDENTIFIED BY 'p'; GRANT ALL ON {quoted(DATABASE)}.* TO clerk"
    sql(site.source.container, grant)
    try:
        item = site.change(user="clerk", password="p").save().item
    finally:
        sql(site.source.container, "DROP USER clerk")
    assert item.counts["transfers"] == 20000
    assert len(item.warnings) == 1
    assert "users and grants are not in the backup" in item.warnings[0]


def test_who_may_only_read_is_told_that_counts_may_differ(site: Site) -> None:
    sql(
        site.source.container,
        f"CREATE USER clerk IDENTIFIED BY 'p'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON {quoted(DATABASE)}.* TO clerk",
    )
    try:
        item = site.change(user="clerk", password="p").save().item
    finally:
        sql(site.source.container, "DROP USER clerk")
    assert any("counts may differ" in warning for warning in item.warnings)


def test_tables_without_transactions_are_warned_of(site: Site) -> None:
    sql(site.source.container, "CREATE TABLE old (id int) ENGINE=MyISAM", DATABASE)
    assert any("MyISAM" in warning for warning in site.save().item.warnings)


@pytest.mark.parametrize(
    ("change", "why"),
    [({"password": "wrong"}, "Access denied"), ({"database": "nowhere"}, "Unknown database"), ({"port": 1}, "Can't connect"),
     ({"container": "no-such-container"}, "does not exist")],
)  # fmt: skip
def test_what_cannot_be_reached_is_told_plainly(saved: tuple[Site, Saved], change: dict[str, Any], why: str) -> None:
    site, _ = saved
    other = site.change(**change)
    for attempt in (other.save, other.driver.state):
        with pytest.raises(BackupError, match=why):
            attempt()
    assert other.left() == []


class Interrupt:
    """Does something once a dump has begun to be received."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
        original = Stage.save

        def save(stage: Any, source: str, name: str, stdin: int, *rest: Any) -> Any:
            if name.endswith(".sql") and not name.endswith("globals.sql"):
                act()
            return original(stage, source, name, stdin, *rest)

        monkeypatch.setattr(Stage, "save", save)


def slow(site: Site) -> None:
    """Make the dump long enough to be hit in the middle."""
    sql(
        site.source.container,
        "INSERT INTO transfers (account, cents, filler) SELECT 1, seq, RANDOM_BYTES(1000) FROM seq_1_to_60000",
        DATABASE,
    )


@pytest.mark.parametrize("how", ["the program", pytest.param("the container", marks=pytest.mark.slow)])
def test_a_dump_that_is_killed_is_no_backup(site: Site, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    slow(site)

    def kill() -> None:
        box = docker("ps", "-q", "--filter", f"label=dev.tidegate.backup={site.settings.app}")
        if how == "the container":
            docker("kill", box)
        else:
            docker(
                "exec",
                box,
                "sh",
                "-c",
                "for p in /proc/[0-9]*; do case $(readlink $p/exe) in *-dump) kill -9 ${p#/proc/};; esac; done",
            )

    Interrupt(monkeypatch, kill)
    with pytest.raises(BackupError, match="killed"):
        site.save()


@pytest.mark.slow
def test_a_database_that_stops_in_the_middle_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = ["mariadb", "-h127.0.0.1", f"-p{PASSWORD}", "--skip-ssl-verify-server-cert", "-e", "SELECT 1"]
    with server(IMAGE, {"MARIADB_ROOT_PASSWORD": PASSWORD}, probe) as name:
        sql(name, f"CREATE DATABASE {quoted(DATABASE)}")
        sql(name, FILL, DATABASE)
        site = Site(tmp_path, Source("main", "mariadb", container=name, database=DATABASE, password=PASSWORD), MariaDb)
        slow(site)
        Interrupt(monkeypatch, lambda: docker("kill", name))
        with pytest.raises(BackupError):
            site.save()
        assert site.left() == []


def test_a_stop_in_the_middle_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(Stage, "save", stop)
    with pytest.raises(Stopped):
        site.save()
    assert site.left() == []


def test_a_database_that_is_not_running_is_told_plainly(saved: tuple[Site, Saved], tmp_path: Path) -> None:
    with server(IMAGE, {"MARIADB_ROOT_PASSWORD": "p"}, ["true"]) as name:
        docker("kill", name)
        other = Site(tmp_path, Source("main", "mariadb", container=name, database="x"), MariaDb)
        with pytest.raises(BackupError, match=f"database container {name} is not running"):
            other.save()


def test_a_restored_database_takes_the_place_and_gives_it_back(site: Site) -> None:
    saved = site.save()
    sql(
        site.source.container,
        f"DELETE FROM transfers WHERE id > 100; DROP TABLE {quoted(ODD)}; CREATE TABLE later (id int)",
        DATABASE,
    )
    replacement = site.driver.beside(saved, "t1")
    assert replacement.counts() == saved.item.counts
    assert rows(site) == 100
    assert replacement.swap() == f"database {DATABASE}_before_t1"
    assert replacement.swap()
    assert rows(site) == 20000
    assert rows(site, ODD) == 1
    assert replacement.counts() == saved.item.counts
    with pytest.raises(AssertionError, match="foreign key"):
        sql(site.source.container, "INSERT INTO transfers (account, cents) VALUES (4711, 1)", DATABASE)
    site.driver.replaced("t1").swap_back()
    replacement.swap_back()
    assert rows(site) == 100
    assert rows(site, "later") == 0
    replacement.discard()
    replacement.discard()


def cut(replacement: mariadb_restore.MariaDbReplacement, patch: pytest.MonkeyPatch, done: int) -> None:
    """Let the next renaming do only so many of its tables, and the process die after it."""
    original = replacement._rename

    def rename(moves: list[tuple[str, str, str]]) -> None:
        original(moves[:done])
        raise Stopped

    patch.setattr(replacement, "_rename", rename)


@pytest.mark.slow  # as with PostgreSQL, whose part of it is in every run
@pytest.mark.parametrize("back", [False, True])
def test_a_swap_that_stopped_anywhere_is_undone(site: Site, monkeypatch: pytest.MonkeyPatch, back: bool) -> None:
    """RENAME TABLE of several is one statement; here it is cut after each of its tables, as no crash can do worse."""
    saved = site.save()
    sql(
        site.source.container,
        f"DELETE FROM transfers WHERE id > 100; DROP TABLE {quoted(ODD)}; CREATE TABLE later (id int)",
        DATABASE,
    )
    for done in range(7):
        replacement = site.driver.beside(saved, "t1")
        assert isinstance(replacement, mariadb_restore.MariaDbReplacement)
        if back:
            replacement.swap()
        with monkeypatch.context() as patch:
            cut(replacement, patch, done)
            with suppress(Stopped):
                replacement.swap_back() if back else replacement.swap()
        site.driver.replaced("t1").swap_back()
        assert rows(site) == 100
        assert rows(site, "later") == 0
        replacement.discard()
        assert f"{DATABASE}_before_t1" not in databases(site.source.container)


@pytest.mark.parametrize(
    "thing",
    [
        "PROCEDURE p() SELECT 1",
        pytest.param("VIEW v AS SELECT 1", marks=pytest.mark.slow),
        pytest.param("TRIGGER t BEFORE INSERT ON accounts FOR EACH ROW SET @x = 1", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_renamed_is_refused_before_anything_is_changed(site: Site, thing: str) -> None:
    saved = site.save()
    sql(site.source.container, f"CREATE {thing}", DATABASE)
    with pytest.raises(Refused, match=r"restore-by-hand\.md"):
        site.driver.beside(saved, "t1")
    again = site.save()
    sql(site.source.container, f"DROP {thing.split(maxsplit=1)[0]} {thing.split()[1].removesuffix('()')}", DATABASE)
    with pytest.raises(Refused, match=r"restore-by-hand\.md"):
        site.driver.beside(again, "t1")


def test_who_may_not_create_databases_is_refused(site: Site) -> None:
    saved = site.save()
    sql(site.source.container, f"CREATE USER clerk IDENTIFIED BY 'p'; GRANT ALL ON {quoted(DATABASE)}.* TO clerk")
    try:
        with pytest.raises(Refused, match="cannot be replaced"):
            site.change(user="clerk", password="p").driver.beside(saved, "t1")
    finally:
        sql(site.source.container, "DROP USER clerk")


@pytest.mark.slow
def test_a_restore_of_a_damaged_backup_leaves_no_database(site: Site) -> None:
    saved = site.save()
    with pytest.raises(BackupError):
        site.driver.beside(damaged(saved, "main.sql.zst", DAMAGE["cut in half"]), "t1")
    assert rows(site) == saved.item.counts["transfers"]


@pytest.mark.slow
def test_a_row_as_long_as_the_server_takes_comes_back(site: Site) -> None:
    sql(site.source.container, "CREATE TABLE big (b longblob); INSERT INTO big VALUES (REPEAT(CHAR(7), 12000000))", DATABASE)
    saved = site.save()
    with site.driver.trial(saved, site.work()) as trial:
        assert trial.counts() == saved.item.counts
    site.driver.beside(saved, "t1").discard()
