"""The database images, pulled or stand-ins, keep what the upstream ones promise; each is started for real."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ops.bases import DATABASES, ensure_base
from ops.this_machine import local_client

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.integration
engine = cache(local_client)  # asked for by a test, never while tests are collected: there may be no engine yet
POSTGRES = [name for name in DATABASES if name.startswith("postgres:")]
MARIADB = [name for name in DATABASES if name.startswith("mariadb:")]
PASSWORD = 'it\'s "a" \\ `$HOME`'
PATIENCE, POLL = 60, 0.1


@dataclass
class Database:
    """A database in a container, on a volume of its own, and its client programs."""

    image: str
    folder: str
    settings: dict[str, str]
    name: str = field(default_factory=lambda: f"tidegate-test-{uuid.uuid4().hex[:8]}")

    def start(self) -> None:
        mounts = [f"{self.name}:{self.folder}"]
        engine().containers.run(self.image, detach=True, name=self.name, environment=self.settings, volumes=mounts)

    @property
    def container(self) -> Container:
        return engine().containers.get(self.name)

    @property
    def logs(self) -> str:
        return str(self.container.logs().decode())

    @property
    def address(self) -> str:
        """The container's own address: clients that use it count as foreign, unlike those of 127.0.0.1."""
        return str(self.container.attrs["NetworkSettings"]["IPAddress"])

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Run a program in the container; returns its exit status and everything it said."""
        status, output = self.container.exec_run(list(command), environment=environment)
        assert isinstance(output, bytes)
        return status or 0, output.decode().strip()

    def ready(self) -> None:
        """Wait until it answers over TCP."""
        probe = ("pg_isready", "-h") if self.image in POSTGRES else ("mariadb-admin", "ping", "-h")
        end = time.monotonic() + PATIENCE
        while self.run(*probe, "127.0.0.1")[0]:
            assert time.monotonic() < end, self.logs
            assert self.container.status == "running", self.logs
            time.sleep(POLL)

    def stop(self) -> float:
        """Stop it by its own stop signal; returns the seconds that took."""
        began = time.monotonic()
        self.container.stop(timeout=30)
        return time.monotonic() - began


@contextmanager
def started(image: str, folder: str, settings: dict[str, str]) -> Iterator[Database]:
    ensure_base(image, print)
    database = Database(image, folder, settings)
    try:
        database.start()
        database.ready()
        yield database
    finally:
        database.container.remove(force=True)
        engine().volumes.get(database.name).remove()


@pytest.fixture(
    scope="module", params=[pytest.param(one, marks=pytest.mark.slow) if one != POSTGRES[0] else one for one in POSTGRES]
)
def postgres(request: pytest.FixtureRequest) -> Iterator[Database]:
    settings = {"POSTGRES_USER": "blog", "POSTGRES_DB": 'the "blog"', "POSTGRES_PASSWORD": PASSWORD}
    with started(request.param, "/var/lib/postgresql/data", settings) as database:
        yield database


@pytest.fixture(scope="module", params=MARIADB)
def mariadb(request: pytest.FixtureRequest) -> Iterator[Database]:
    settings = {"MARIADB_USER": "blog", "MARIADB_DATABASE": "the_blog", "MARIADB_PASSWORD": PASSWORD}
    with started(request.param, "/var/lib/mysql", {**settings, "MARIADB_ROOT_PASSWORD": f"{PASSWORD} of root"}) as database:
        yield database


def psql(database: Database, query: str, password: str = PASSWORD, host: str = "") -> tuple[int, str]:
    command = ("psql", "-XAtqw", "-h", host or database.address, "-U", "blog", "-d", 'the "blog"', "-c", query)
    return database.run(*command, PGPASSWORD=password)


def sql(database: Database, query: str, password: str = PASSWORD, user: str = "blog", host: str = "") -> tuple[int, str]:
    command = ("mariadb", "--no-defaults", "-N", f"--host={host or database.address}", f"--user={user}", "-e", query)
    return database.run(*command, MYSQL_PWD=password)


def test_postgres_lets_the_user_in_with_the_password_only(postgres: Database) -> None:
    assert psql(postgres, "select current_user, current_database(), usesuper from pg_user") == (0, 'blog|the "blog"|t')
    status, said = psql(postgres, "select 1", password="wrong")
    assert status != 0
    assert "password authentication failed" in said


def test_postgres_trusts_whoever_is_in_the_container(postgres: Database) -> None:
    for host in ("/var/run/postgresql", "127.0.0.1"):
        assert psql(postgres, "select 1", password="", host=host) == (0, "1")


def test_postgres_is_of_the_major_that_its_tag_says_and_so_are_its_programs(postgres: Database) -> None:
    major = postgres.image.partition(":")[2]
    assert psql(postgres, "show server_version")[1].startswith(f"{major}.")
    for program in ("pg_dump", "pg_restore", "pg_dumpall", "psql", "pg_isready", "initdb"):
        status, said = postgres.run(program, "--version")
        assert (status, said.split()[2].partition(".")[0]) == (0, major)


def test_postgres_keeps_text_as_upstream_does(postgres: Database) -> None:
    query = "select pg_encoding_to_char(encoding), datcollate, datctype from pg_database where datname = current_database()"
    assert psql(postgres, query) == (0, "UTF8|en_US.utf8|en_US.utf8")


def test_postgres_runs_as_its_own_user_and_its_data_are_nobody_elses(postgres: Database) -> None:
    assert postgres.run("stat", "-c", "%u", "/proc/1")[1] == "999"
    assert postgres.run("sh", "-c", "stat -c '%a %U' $PGDATA") == (0, "700 postgres")


def test_postgres_has_a_socket_only_while_it_is_initialised(postgres: Database) -> None:
    before, _, after = postgres.logs.partition("init process complete")
    assert "listening on Unix socket" in before
    assert "listening on IPv4" not in before
    assert "listening on IPv4" in after


def test_a_dump_of_postgres_is_restored_by_its_own_programs(postgres: Database) -> None:
    assert psql(postgres, "create table notes as select n, md5(n::text) from generate_series(1, 1000) n")[0] == 0
    dump = "pg_dump -Fc -U blog -d 'the \"blog\"' > /tmp/dump && createdb -U blog restored && pg_restore -U blog -d restored /tmp/dump"
    assert postgres.run("sh", "-c", dump) == (0, "")
    assert postgres.run("psql", "-XAt", "-U", "blog", "-d", "restored", "-c", "select count(*) from notes") == (0, "1000")


def test_postgres_stops_fast_and_its_data_survive_with_a_client_connected(postgres: Database) -> None:
    assert psql(postgres, "create table kept as select 'still here' as word")[0] == 0
    postgres.container.exec_run(["psql", "-U", "blog", "-d", "postgres", "-c", "select pg_sleep(60)"], detach=True)
    assert postgres.stop() < 5
    assert postgres.container.attrs["State"]["ExitCode"] == 0
    postgres.container.start()
    postgres.ready()
    assert psql(postgres, "select word from kept") == (0, "still here")


def test_mariadb_lets_users_in_with_their_passwords_only(mariadb: Database) -> None:
    assert sql(mariadb, "select current_user(); create table the_blog.one (n int)") == (0, "blog@%")
    status, said = sql(mariadb, "select 1", password="wrong")
    assert status != 0
    assert "Access denied" in said
    for host, user in ((mariadb.address, "root@%"), ("127.0.0.1", "root@%"), ("localhost", "root@localhost")):
        assert sql(mariadb, "select current_user()", f"{PASSWORD} of root", "root", host) == (0, user)
        assert sql(mariadb, "select 1", "", "root", host)[0] != 0


def test_a_user_of_mariadb_owns_one_database_and_sees_no_other(mariadb: Database) -> None:
    assert sql(mariadb, "show databases") == (0, "information_schema\nthe_blog")
    assert sql(mariadb, "create database other")[0] != 0


def test_mariadb_has_its_version_and_programs_under_the_new_names_only(mariadb: Database) -> None:
    assert sql(mariadb, "select version()")[1].startswith(f"{mariadb.image.partition(':')[2]}.")
    for program in ("mariadb", "mariadb-dump", "mariadb-admin"):
        assert mariadb.run(program, "--version")[0] == 0
    assert mariadb.run("sh", "-c", "command -v mysqldump")[0] != 0


def test_mariadb_runs_as_its_own_user_and_listens_only_once_it_is_initialised(mariadb: Database) -> None:
    assert mariadb.run("stat", "-c", "%u", "/proc/1")[1] == "999"
    before, _, after = mariadb.logs.partition("init process done")
    assert "port: 0" in before
    assert "port: '3306'" not in before
    assert "port: '3306'" in after


def test_a_dump_of_mariadb_is_restored_by_its_own_programs(mariadb: Database) -> None:
    assert sql(mariadb, "create table the_blog.notes as select seq from the_blog.seq_1_to_1000")[0] == 0
    dump = "mariadb-dump --single-transaction -uroot the_blog > /tmp/dump && mariadb -uroot -e 'create database restored'"
    environment = {"MYSQL_PWD": f"{PASSWORD} of root"}
    assert mariadb.run("sh", "-c", f"{dump} && mariadb -uroot restored < /tmp/dump", **environment) == (0, "")
    assert sql(mariadb, "select count(*) from restored.notes", environment["MYSQL_PWD"], "root") == (0, "1000")


def test_mariadb_stops_fast_and_its_data_survive(mariadb: Database) -> None:
    assert sql(mariadb, "create table the_blog.kept as select 'still here' as word")[0] == 0
    assert mariadb.stop() < 5
    mariadb.container.start()
    mariadb.ready()
    assert sql(mariadb, "select word from the_blog.kept") == (0, "still here")


@pytest.mark.parametrize("image", [POSTGRES[0], MARIADB[0]])
def test_a_database_without_a_password_is_refused(image: str) -> None:
    ensure_base(image, print)
    container = engine().containers.run(image, detach=True)
    try:
        assert container.wait(timeout=PATIENCE)["StatusCode"] == 1
        assert "PASSWORD" in container.logs().decode()
    finally:
        container.remove(force=True, v=True)


def test_the_password_may_come_from_a_file_and_programs_other_than_the_server_just_run(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o644)
    image, script = POSTGRES[0], "docker-entrypoint.sh postgres & until pg_isready -qh 127.0.0.1; do sleep 0.1; done; psql -XAtw"
    environment = {"POSTGRES_PASSWORD_FILE": "/run/password", "PGPASSWORD": PASSWORD, "PGUSER": "postgres"}
    command = ["sh", "-c", f"{script} -h $(hostname -i) -c 'select 42'"]
    mounts = [f"{secret}:/run/password:ro"]
    ensure_base(image, print)
    said = engine().containers.run(image, command, environment=environment, volumes=mounts, remove=True, stderr=False)
    assert said.decode().strip().endswith("42")
