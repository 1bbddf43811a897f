"""PostgreSQL saved, proved and restored for real."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from backup.agent import postgres, postgres_restore, postgres_sql, room
from backup.agent.errors import BackupError, Refused, Stopped, Untried
from backup.agent.model import Source
from backup.agent.postgres import Postgres
from backup.agent.postgres_restore import PostgresReplacement, conninfo
from backup.agent.source import Saved, Stage
from backup.agent.toolbox import sweep
from ops.agent.engine import Engine
from ops.bases import ensure_base
from tests.integration.databases import DAMAGE, Site, damaged, docker, server

pytestmark = pytest.mark.integration

IMAGES = [f"postgres:{major}" for major in (15, 16, 17)]
PASSWORD = "a:b'c\"d\\e#ü"
DATABASE = "Shop 'of' \"ü\"=x\\"
FILL = """
CREATE TABLE accounts (id int PRIMARY KEY, cents bigint NOT NULL);
CREATE TABLE transfers (id bigserial PRIMARY KEY, account int NOT NULL REFERENCES accounts, cents bigint NOT NULL, filler text);
CREATE SCHEMA "Bö x"; CREATE TYPE "Bö x".mood AS ENUM ('glad', 'sad');
CREATE TABLE "Bö x"."or der's ""t"" x" ("näme" text, mood "Bö x".mood, data bytea);
CREATE TABLE parted (id int, day date) PARTITION BY RANGE (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM accounts;
INSERT INTO accounts SELECT n, 0 FROM generate_series(1, 50) n;
INSERT INTO transfers (account, cents, filler) SELECT 1 + n % 50, n, md5(n::text) || repeat(md5((n * 7)::text), 9) FROM generate_series(1, 20000) n;
INSERT INTO "Bö x"."or der's ""t"" x" VALUES ('it''s \\ ü', 'sad', '\\x00ff0a0d5c27');
INSERT INTO parted SELECT 1, '2026-02-03' FROM generate_series(1, 7);
"""
COUNTS = {"public.accounts": 50, "public.transfers": 20000, '"Bö x"."or der\'s ""t"" x"': 1, "public.parted_1": 7}


def sql(container: str, text: str, database: str = "postgres") -> str:
    """Run SQL as the superuser."""
    command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "Bo ss", "-d", conninfo(database)]
    return docker("exec", "-i", container, *command, feed=text)


@contextmanager
def postgres_server(image: str) -> Iterator[str]:
    ensure_base(image, print)
    environment = {"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_USER": "Bo ss"}
    with server(image, environment, ["pg_isready", "-h", "127.0.0.1"], "-c", "fsync=off") as name:
        yield name


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    with postgres_server(IMAGES[2]) as name:
        sql(name, "CREATE ROLE owner LOGIN PASSWORD 'p' CREATEDB; CREATE ROLE reader LOGIN PASSWORD 'p'; CREATE ROLE \"o dd\"")
        yield name


@pytest.fixture
def site(container: str, tmp_path: Path) -> Iterator[Site]:
    """A shop's database with unusual names; afterwards nothing of ours may be left."""
    before = databases(container)
    sql(container, f"CREATE DATABASE {quoted(DATABASE)} OWNER owner")
    sql(container, FILL, DATABASE)
    site = Site(
        tmp_path, Source("main", "postgres", container=container, user="Bo ss", database=DATABASE, password=PASSWORD), Postgres
    )
    yield site
    for name in (DATABASE, f"{DATABASE}_before_t1"):
        sql(container, f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
    assert site.left() == []
    assert databases(container) == before
    assert sql(container, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tidegate%'") == "0"


@pytest.fixture(scope="module")
def saved(container: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Saved]]:
    """One backup for all that only read it."""
    sql(container, "CREATE DATABASE saved")
    sql(container, FILL, "saved")
    source = Source("main", "postgres", container=container, user="Bo ss", database="saved", password=PASSWORD)
    site = Site(tmp_path_factory.mktemp("saved"), source, Postgres)
    try:
        yield site, site.save()
    finally:
        sql(container, "DROP DATABASE saved")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def databases(container: str) -> list[str]:
    return sql(container, "SELECT datname FROM pg_database ORDER BY 1").splitlines()


def rows(site: Site, table: str = "transfers") -> int:
    return int(sql(site.source.container, f"SELECT count(*) FROM {table}", DATABASE))


def test_a_backup_passes_every_level_with_the_rows_of_the_dump(site: Site) -> None:
    saved = site.save()
    assert dict(saved.item.counts) == COUNTS
    assert [file.name for file in saved.item.files] == ["main.pgdump.zst", "main.globals.sql.zst"]
    assert saved.item.warnings == ()
    site.driver.decode(saved, site.work())
    volumes = docker("volume", "ls", "-q").splitlines()
    with site.driver.trial(saved, site.work()) as trial:
        assert trial.counts() == saved.item.counts
        assert trial.query('SELECT data FROM "Bö x"."or der\'s ""t"" x"') == "\\x00ff0a0d5c27"
        assert trial.query("SELECT count(*) FROM pg_roles WHERE rolname IN ('owner', 'reader', 'o dd', 'Bo ss')") == "4"
        box = trial.box.container  # type: ignore[attr-defined]
        assert docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", box) == "none"
        mine = docker("inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", box).split()
    assert not set(mine) & set(docker("volume", "ls", "-q").splitlines()) or set(mine) & set(volumes)


@pytest.mark.parametrize(
    ("image", "locale", "provider"),
    [
        pytest.param(IMAGES[0], "LOCALE_PROVIDER icu ICU_LOCALE 'de-AT'", "i", marks=pytest.mark.slow),
        pytest.param(IMAGES[1], "LC_COLLATE 'C' LC_CTYPE 'C'", "c", marks=pytest.mark.slow),
        pytest.param(IMAGES[2], "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'", "b", marks=pytest.mark.slow),
    ],
)
def test_each_server_is_saved_proved_and_replaced(image: str, locale: str, provider: str, tmp_path: Path) -> None:
    with postgres_server(image) as name:
        sql(name, "CREATE ROLE grp; CREATE ROLE mate; GRANT grp TO mate WITH ADMIN OPTION")
        sql(name, f"CREATE DATABASE {quoted(DATABASE)} {locale} TEMPLATE template0")
        sql(name, FILL, DATABASE)
        site = Site(
            tmp_path, Source("main", "postgres", container=name, user="Bo ss", database=DATABASE, password=PASSWORD), Postgres
        )
        saved = site.save()
        site.driver.decode(saved, site.work())
        with site.driver.trial(saved, site.work()) as trial:
            assert trial.counts() == COUNTS
        replacement = site.driver.beside(saved, "t1")
        replacement.swap()
        known = "SELECT datlocprovider FROM pg_database WHERE datname = current_database()"
        assert sql(name, known, DATABASE) == provider
        assert site.driver.state().schema == saved.item.schema
        replacement.swap_back()
        replacement.discard()
        assert site.left() == []


@pytest.mark.slow
def test_a_server_that_is_newer_than_pg_dump_is_refused(site: Site) -> None:
    ensure_base(IMAGES[0], print)
    address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", site.source.container)
    with pytest.raises(Refused, match="newer than the programs"):
        site.change(container="", address=address, image=IMAGES[0]).save()


def test_the_state_has_the_schema_of_the_dump_and_changes_with_it(site: Site) -> None:
    item = site.save().item
    assert site.driver.state().schema == item.schema
    sql(site.source.container, "INSERT INTO accounts VALUES (99, 1)", DATABASE)
    assert site.driver.state().schema == item.schema
    for change in (
        "ALTER TABLE accounts ADD note text",
        "CREATE INDEX ON transfers (cents)",
        "ALTER TYPE \"Bö x\".mood ADD VALUE 'so so'",
    ):
        before = site.driver.state().schema
        sql(site.source.container, change, DATABASE)
        assert site.driver.state().schema != before


def test_a_throwaway_server_fails_a_query_that_fails(saved: tuple[Site, Saved]) -> None:
    site, backup = saved
    with site.driver.trial(backup, site.work()) as trial, pytest.raises(BackupError, match="nowhere"):
        trial.query("SELECT 1 FROM nowhere")
    assert site.left() == []


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["main.pgdump.zst", "main.globals.sql.zst"])
def test_a_damaged_file_fails_the_decode(saved: tuple[Site, Saved], name: str, damage: str) -> None:
    site, backup = saved
    with pytest.raises(BackupError):
        site.driver.decode(damaged(backup, name, DAMAGE[damage]), site.work())


def test_writers_during_the_dump_are_in_it_wholly_or_not_at_all(site: Site) -> None:
    sql(site.source.container, "TRUNCATE transfers; DELETE FROM accounts WHERE id > 1", DATABASE)
    writing = """DO $$ BEGIN FOR i IN 1..1000000 LOOP
        INSERT INTO transfers (account, cents) VALUES (1, 1); INSERT INTO accounts VALUES (i + 10, 1); COMMIT;
    END LOOP; END $$"""
    with Background(site, writing) as writer:
        while rows(site) < 200:
            assert writer.poll() is None
        before = rows(site)
        backup = site.save()
        assert writer.poll() is None
    counts = backup.item.counts
    assert counts["public.transfers"] == counts["public.accounts"] - 1 >= before
    assert rows(site) > counts["public.transfers"]
    with site.driver.trial(backup, site.work()) as trial:
        assert trial.counts() == counts


class Background:
    """A session that runs SQL until the end of the block."""

    def __init__(self, site: Site, text: str) -> None:
        command = ["psql", "-Xq", "-U", "Bo ss", "-d", conninfo(DATABASE)]
        self.site = site
        self.process = subprocess.Popen(["docker", "exec", "-i", "-e", "PGAPPNAME=other", site.source.container, *command],
                                        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        assert self.process.stdin
        self.process.stdin.write(f"{text};\n".encode())
        self.process.stdin.flush()

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *_: object) -> None:
        sql(
            self.site.source.container,
            "SELECT count(pg_terminate_backend(pid, 9000)) FROM pg_stat_activity WHERE application_name = 'other'",
        )
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(20)


def test_a_table_that_somebody_keeps_locked_is_an_error_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_sql, "LOCK_WAIT", 1)
    with Background(site, "BEGIN; LOCK TABLE transfers; INSERT INTO accounts VALUES (77, 1)"):
        waiting_for = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'transfers'::regclass"
        while sql(site.source.container, waiting_for, DATABASE) == "0":
            pass
        with pytest.raises(BackupError, match="lock timeout") as failure:
            site.save()
    assert "pg_locks" in failure.value.fix


@pytest.mark.slow
def test_a_table_that_is_dropped_during_the_dump_is_in_it_wholly(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = []

    def drop() -> None:
        held = "SELECT count(DISTINCT pid) FROM pg_locks WHERE relation = 'transfers'::regclass AND mode = 'AccessShareLock' AND granted"
        while sql(site.source.container, held, DATABASE) != "2":
            pass
        dropped.append(Background(site, "DROP TABLE transfers, accounts CASCADE"))

    during(monkeypatch, drop)
    backup = site.save()
    assert dict(backup.item.counts) == COUNTS
    with site.driver.trial(backup, site.work()) as trial:
        assert trial.counts() == backup.item.counts
    dropped[0].__exit__()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"password": "wrong"}, "password authentication failed|trust"), ({"database": "nowhere"}, "does not exist"),
     ({"port": 1}, "Connection refused"), ({"container": "no-such-container"}, "does not exist"), ({"user": "nobody"}, "nobody")],
)  # fmt: skip
def test_what_cannot_be_reached_is_told_plainly(saved: tuple[Site, Saved], change: dict[str, Any], why: str) -> None:
    site, _ = saved
    if "password" in change:  # loopback trusts everybody, as in the upstream image: come by the container's address
        address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", site.source.container)
        change = {**change, "container": "", "address": address, "image": IMAGES[2]}
    other = site.change(**change)
    for attempt in (other.save, other.driver.state):
        with pytest.raises(BackupError, match=why):
            attempt()
    assert other.left() == []


def test_a_database_that_is_reached_over_the_network_is_saved_too(site: Site) -> None:
    address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", site.source.container)
    other = site.change(container="", address=address, image=IMAGES[2])
    backup = other.save()
    other.driver.decode(backup, site.work())
    assert dict(backup.item.counts) == COUNTS
    assert other.driver.state().schema == backup.item.schema


def test_an_image_that_is_not_there_is_told_plainly(saved: tuple[Site, Saved]) -> None:
    site, _ = saved
    with pytest.raises(BackupError, match="is not on the server"):
        site.change(container="", address="127.0.0.1", image="postgres:1").save()


def during(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Do something once a dump has begun to be received."""
    original = Stage.save

    def save(stage: Any, source: str, name: str, stdin: int, *rest: Any) -> Any:
        if name.endswith("pgdump"):
            act()
        return original(stage, source, name, stdin, *rest)

    monkeypatch.setattr(Stage, "save", save)


@pytest.fixture
def long(site: Site) -> Site:
    """A database whose dump is long enough to be hit in the middle: it waits for its reader."""
    sql(
        site.source.container,
        "INSERT INTO transfers (account, cents, filler) SELECT 1, n, repeat(md5(n::text), 40) FROM generate_series(1, 60000) n",
        DATABASE,
    )
    return site


KILL = 'for p in /proc/[0-9]*; do case "$(readlink $p/exe)" in */pg_dump) kill -9 ${p#/proc/};; esac; done'


@pytest.mark.parametrize("how", ["the program", pytest.param("the toolbox", marks=pytest.mark.slow)])
def test_a_dump_that_is_killed_is_no_backup(long: Site, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def kill() -> None:
        box = docker("ps", "-q", "--filter", f"label=dev.tidegate.backup={long.settings.app}")
        docker("kill", box) if how == "the toolbox" else docker("exec", box, "sh", "-c", KILL)

    during(monkeypatch, kill)
    # Where the container is gone before the engine has started pg_dump in it, there is nothing to kill.
    with pytest.raises(BackupError, match=r"killed|could not be started"):
        long.save()


def test_a_database_that_stops_in_the_middle_is_an_error(
    saved: tuple[Site, Saved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(IMAGES[2], {"POSTGRES_PASSWORD": "p"}, ["pg_isready", "-h", "127.0.0.1"]) as name:
        fill = "CREATE TABLE t AS SELECT repeat(md5(n::text), 40) FROM generate_series(1, 60000) n"
        docker("exec", name, "psql", "-U", "postgres", "-c", fill)
        site = Site(tmp_path, Source("main", "postgres", container=name, database="postgres"), Postgres)
        during(monkeypatch, lambda: docker("kill", name))
        with pytest.raises(BackupError):
            site.save()
        assert site.left() == []
        with pytest.raises(BackupError, match=f"database container {name} is not running"):
            site.save()


def test_a_stop_in_the_middle_leaves_nothing(long: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise Stopped

    during(monkeypatch, stop)
    with pytest.raises(Stopped):
        long.save()
    assert long.left() == []


def test_the_container_ends_with_a_killed_agent_and_the_rest_is_swept(long: Site) -> None:
    script = f"""
import sys, signal, os
sys.path.insert(0, {str(Path(postgres.__file__).parents[2])!r})
from pathlib import Path
from backup.agent import postgres
from backup.agent.model import Settings
from backup.agent.source import Stage
from backup.agent.report import Report
from backup.agent.streams import Codec
from ops.agent.engine import Engine
settings = Settings.from_json(sys.stdin.read())
postgres.Stage.save = lambda *_: (print("saving", flush=True), signal.pause())
postgres.Postgres(settings, settings.sources[0], Engine(settings.engine)).dump(Stage(settings, Path("/nowhere"), Codec("none"), Report()))
"""
    agent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert agent.stdin
    assert agent.stdout
    agent.stdin.write(long.settings.to_json().encode())
    agent.stdin.close()
    assert agent.stdout.readline() == b"saving\n"
    engine = Engine(long.settings.engine)
    sweep(engine, long.settings)
    assert len(long.left()) == 2
    box = long.left()[0]
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    agent.stdout.close()
    docker("wait", box, check=False)
    sweep(engine, long.settings)
    assert long.left() == []


def test_a_restored_database_takes_the_place_and_gives_it_back(site: Site) -> None:
    saved = site.save()
    for change in (f"ALTER DATABASE {quoted(DATABASE)} SET work_mem = '7MB'", f"ALTER DATABASE {quoted(DATABASE)} SET search_path = \"Bö x\", public",
                   f"REVOKE ALL ON DATABASE {quoted(DATABASE)} FROM PUBLIC", f'GRANT CONNECT ON DATABASE {quoted(DATABASE)} TO "o dd" WITH GRANT OPTION',
                   f"ALTER ROLE reader IN DATABASE {quoted(DATABASE)} SET statement_timeout = '1s'",
                   f"COMMENT ON DATABASE {quoted(DATABASE)} IS 'it''s'"):  # fmt: skip
        sql(site.source.container, change)
    sql(site.source.container, 'DELETE FROM public.transfers WHERE id > 100; DROP TABLE "Bö x"."or der\'s ""t"" x"', DATABASE)
    described = (
        "SELECT pg_get_userbyid(datdba), datacl, shobj_description(oid, 'pg_database'), datcollate, datallowconn,"
        f" (SELECT array_agg(setconfig::text || setrole ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = $x${DATABASE}$x$"
    )
    before = sql(site.source.container, described)
    with Background(site, "SELECT 1") as session:
        replacement = site.driver.beside(saved, "t1")
        assert replacement.counts() == saved.item.counts
        assert rows(site) == 100
        assert session.poll() is None
        assert replacement.swap() == f"database {DATABASE}_before_t1"
        assert replacement.swap() == f"database {DATABASE}_before_t1"
    assert rows(site) == 20000
    assert replacement.counts() == saved.item.counts
    assert sql(site.source.container, described) == before
    site.driver.replaced("t1").swap_back()
    replacement.swap_back()
    assert rows(site) == 100
    assert sql(site.source.container, described) == before
    replacement.discard()
    replacement.discard()


@pytest.mark.parametrize(("act", "undo"), [("swap", "swap_back"), pytest.param("swap_back", "swap", marks=pytest.mark.slow)])
def test_a_swap_that_stopped_between_any_two_statements_is_undone_or_completed(
    site: Site, monkeypatch: pytest.MonkeyPatch, act: str, undo: str
) -> None:
    saved = site.save()
    sql(site.source.container, "DELETE FROM transfers WHERE id > 100", DATABASE)
    replacement = site.driver.beside(saved, "t1")
    assert isinstance(replacement, PostgresReplacement)
    whole = PostgresReplacement._ask

    def stopping(number: int) -> Any:
        def ask(self: PostgresReplacement, text: str) -> str:
            if "RENAME" not in text:
                return whole(self, text)
            statements = text.splitlines(keepends=True)
            whole(self, "".join(statements[:number]))
            if number < len(statements):
                raise Stopped
            return ""

        return ask

    if act == "swap_back":
        replacement.swap()
    before = rows(site)
    for number in range(20):
        with monkeypatch.context() as patch, suppress(Stopped):
            patch.setattr(PostgresReplacement, "_ask", stopping(number))
            getattr(replacement, act)()
            break
        getattr(replacement, undo)()
        assert rows(site) == before
    assert number > 8
    assert {before, rows(site)} == {100, 20000}
    if act == "swap":
        replacement.swap_back()
    replacement.discard()


@pytest.mark.slow
def test_the_old_database_is_found_again_when_the_live_name_is_free(site: Site) -> None:
    saved = site.save()
    replacement = site.driver.beside(saved, "t1")
    sql(site.source.container, f"ALTER DATABASE {quoted(DATABASE)} RENAME TO {quoted(DATABASE + '_before_t1')}")
    replacement.swap_back()
    assert rows(site) == 20000
    replacement.discard()


@pytest.mark.parametrize("user", ["reader", "owner"])
def test_who_may_not_replace_a_database_is_refused_before_anything_is_changed(site: Site, user: str) -> None:
    saved = site.save()
    if user == "owner":
        sql(site.source.container, "ALTER ROLE owner NOCREATEDB")
    with pytest.raises(Refused, match="cannot be replaced"):
        site.change(user=user, password="p").driver.beside(saved, "t1")
    sql(site.source.container, "ALTER ROLE owner CREATEDB")


@pytest.mark.slow
def test_an_owner_that_may_create_databases_saves_and_replaces_its_own(site: Site) -> None:
    sql(site.source.container, f"DROP DATABASE {quoted(DATABASE)}; ")
    sql(site.source.container, f"CREATE DATABASE {quoted(DATABASE)} OWNER owner")
    sql(site.source.container, f"SET ROLE owner; {FILL}", DATABASE)
    own = site.change(user="owner", password="p")
    saved = own.save()
    assert ["passwords of roles" in warning for warning in saved.item.warnings] == [True]
    own.driver.decode(saved, site.work())
    with own.driver.trial(saved, site.work()) as trial:
        assert trial.counts() == COUNTS
    replacement = own.driver.beside(saved, "t1")
    replacement.swap()
    assert rows(site) == 20000
    replacement.swap_back()
    replacement.discard()


@pytest.mark.slow
def test_a_restore_of_a_damaged_backup_leaves_no_database(site: Site) -> None:
    saved = site.save()
    with pytest.raises(BackupError):
        site.driver.beside(damaged(saved, "main.pgdump.zst", DAMAGE["cut in half"]), "t1")


@pytest.mark.slow
def test_thousands_of_tables_fill_no_table_of_locks(container: str, tmp_path: Path) -> None:
    sql(container, "CREATE DATABASE many")
    try:
        sql(container, """DO $$ BEGIN FOR i IN 1..4500 LOOP
            EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, a int UNIQUE, b int UNIQUE)', i); IF i % 300 = 0 THEN COMMIT; END IF;
        END LOOP; END $$""", "many")  # fmt: skip
        source = Source("main", "postgres", container=container, user="Bo ss", database="many", password=PASSWORD)
        assert len(Site(tmp_path, source, Postgres).save().item.counts) == 4500
    finally:
        sql(container, "DROP DATABASE many WITH (FORCE)")


@pytest.mark.slow
def test_tablespaces_and_a_first_user_that_may_not_log_in_are_no_trouble_for_a_throwaway(tmp_path: Path) -> None:
    with postgres_server(IMAGES[0]) as name:
        docker("exec", name, "sh", "-c", "mkdir /fast && chown postgres /fast")
        sql(name, "CREATE TABLESPACE \"fa st\" LOCATION '/fast'")
        sql(name, 'CREATE DATABASE shop TABLESPACE "fa st"')
        sql(
            name, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE u () TABLESPACE pg_default", "shop"
        )
        sql(name, 'CREATE ROLE chief SUPERUSER LOGIN; ALTER ROLE "Bo ss" SET default_transaction_read_only = on')
        sql(name, 'SET default_transaction_read_only = off; SET ROLE chief; ALTER ROLE "Bo ss" NOLOGIN')
        site = Site(tmp_path, Source("main", "postgres", container=name, user="chief", database="shop"), Postgres)
        saved = site.save()
        with site.driver.trial(saved, site.work()) as trial:
            assert trial.counts() == {"public.t": 1, "public.u": 0}
        replacement = site.driver.beside(saved, "t1")
        replacement.swap()
        replacement.swap_back()
        replacement.discard()
        assert site.left() == []


def test_a_throwaway_server_that_does_not_start_says_nothing_about_the_backup(
    saved: tuple[Site, Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, backup = saved
    monkeypatch.setattr(postgres_restore, "QUICK", ["-c", "no_such_setting=1"])
    with pytest.raises(Untried, match=r"(?s)did not start.*no_such_setting"), site.driver.trial(backup, site.work()):
        pass
    with pytest.raises(Untried, match="does not exist"), site.change(container="gone").driver.trial(backup, site.work()):
        pass
    assert site.left() == []


@pytest.mark.slow
def test_a_view_of_a_table_that_somebody_keeps_locked_holds_nobody_up_for_ever(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_sql, "STATE", postgres_sql.STATE.replace("'15s'", "'1s'"))
    sql(site.source.container, "CREATE VIEW seen AS SELECT * FROM transfers", DATABASE)
    with Background(site, "BEGIN; LOCK TABLE transfers"):
        waiting_for = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'transfers'::regclass"
        while sql(site.source.container, waiting_for, DATABASE) == "0":
            pass
        with pytest.raises(BackupError, match="lock timeout"):
            site.driver.state()


def test_room_is_looked_for_where_the_server_has_its_data(site: Site) -> None:
    found = docker("inspect", "-f", "{{range .Mounts}}{{.Source}}{{end}}", site.source.container)
    assert room._of_container(Engine(site.settings.engine), site.source) == Path(found)
    assert site.save().item.restored > 10_000_000
