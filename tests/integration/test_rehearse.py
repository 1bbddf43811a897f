"""The next migration, tried on a restored copy: what it will do, while the live data stays what it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backup.agent.errors import BackupError, Refused
from backup.agent.kinds import KINDS
from backup.agent.model import Settings, Source
from backup.agent.rehearse import PREFIX, Rehearsal, Rehearse
from backup.agent.report import Report
from backup.agent.restore import Request, Restore
from backup.agent.run import Run, Wanted
from backup.agent.store import Store
from ops.bases import ensure_base
from tests.integration.databases import docker, server

pytestmark = pytest.mark.integration

PASSWORD = "p:a ss'w@rd"
QUOTED = "p%3Aa%20ss%27w%40rd"
POSTGRES, MARIADB = "postgres:17", "mariadb:11.8"
ON_POSTGRES = pytest.mark.parametrize("shop", ["postgres", pytest.param("mariadb", marks=pytest.mark.slow)], indirect=True)


@dataclass
class Shop:
    """An app with a backup of its data."""

    settings: Settings
    ask: Callable[[str], str]
    image: str
    url: str
    migrate: Callable[[str], tuple[str, ...]]
    volumes: dict[str, str]

    @property
    def store(self) -> Store:
        return Store(self.settings.folder / "backups")

    def save(self) -> str:
        with self.store.locked("a backup"):
            wanted = Wanted("20261123T030000Z-000000", ("daily",))
            taken = Run(self.settings, self.store, KINDS, Report()).take(wanted, datetime(2026, 11, 23, 3, tzinfo=UTC))
        assert taken
        assert taken.complete
        return taken.id

    def rehearse(self, change: str, timeout: float = 60) -> dict[str, Any]:
        environment = {"DATABASE_URL": self.url, "PGPASSWORD": PASSWORD, "MYSQL_PWD": PASSWORD}
        wanted = Rehearsal(self.image, self.migrate(change), environment, self.volumes, timeout=timeout)
        with self.store.locked("a rehearsal"):
            return Rehearse(self.settings, KINDS, self.store, Report()).rehearse(wanted)

    def left(self) -> str:
        label = f"label=dev.tidegate.backup={self.settings.app}"
        folders = [str(path) for path in (*self.settings.folder.glob(".toolbox-*"), *self.store.folder.glob(".partial*"))]
        return docker("ps", "-aq", "--filter", label) + docker("volume", "ls", "-q", "--filter", label) + "".join(folders)


def settings(home: Path, source: Source) -> Settings:
    return Settings(f"shop-{os.urandom(3).hex()}", "production", "here", (source,), reserve=0, home=str(home))


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    name = f"tidegate-test-{os.urandom(4).hex()}"
    docker("network", "create", "--label", "dev.tidegate.test=1", name)
    yield name
    docker("network", "rm", name)


@pytest.fixture(scope="module")
def postgres(network: str) -> Iterator[str]:
    ensure_base(POSTGRES, print)
    environment = {"POSTGRES_USER": "boss", "POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": "shop"}
    with server(POSTGRES, environment, ["pg_isready", "-h127.0.0.1"]) as name:
        docker("network", "connect", "--alias", "db", network, name)
        docker("exec", name, "psql", "-Uboss", "-dshop", "-c", f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'",
               "-c", "ALTER DATABASE shop OWNER TO app", "-c", "SET ROLE app", "-c", "CREATE TABLE posts AS SELECT generate_series(1, 500) AS id")  # fmt: skip
        yield name
        docker("network", "disconnect", network, name)


@pytest.fixture(scope="module")
def mariadb(network: str) -> Iterator[str]:
    ensure_base(MARIADB, print)
    environment = {"MARIADB_ROOT_PASSWORD": "r", "MARIADB_USER": "app", "MARIADB_PASSWORD": PASSWORD, "MARIADB_DATABASE": "shop"}
    probe = ["mariadb", "-h127.0.0.1", "-pr", "--skip-ssl-verify-server-cert", "-e", "SELECT 1"]
    with server(MARIADB, environment, probe) as name:
        docker("network", "connect", "--alias", "db", network, name)
        docker("exec", name, "mariadb", "-pr", "shop", "-e", "CREATE TABLE posts AS SELECT seq AS id FROM seq_1_to_500")
        yield name
        docker("network", "disconnect", network, name)


@pytest.fixture(params=["postgres", "mariadb"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A database that the app knows by the name `db`, as a user of its own with a password."""
    container = request.getfixturevalue(request.param)
    if request.param == "postgres":
        source = Source("main", "postgres", container=container, user="boss", database="shop", password=PASSWORD)
        url = f"postgresql://app:{QUOTED}@db:5432/shop"
        yield Shop(settings(tmp_path, source), lambda text: docker("exec", container, "psql", "-Uboss", "-dshop", "-Atc", text), POSTGRES,
                   url, lambda text: ("sh", "-c", f'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c "{text}"'), {})  # fmt: skip
    else:
        source = Source("main", "mariadb", container=container, user="root", database="shop", password="r")
        options = "--skip-ssl-verify-server-cert -h db -u app shop"
        yield Shop(settings(tmp_path, source), lambda text: docker("exec", container, "mariadb", "-pr", "-BN", "shop", "-e", text), MARIADB,
                   f"mysql://app:{QUOTED}@db/shop", lambda text: ("sh", "-c", f'mariadb {options} -e "{text}"'), {})  # fmt: skip


def test_the_migration_runs_on_the_copy_with_the_apps_own_settings_and_the_live_data_is_not_touched(shop: Shop) -> None:
    shop.save()
    done = shop.rehearse("ALTER TABLE posts ADD COLUMN title text; DELETE FROM posts WHERE id > 400")
    assert (done["exit_code"], done["schema_changed"]) == (0, True), done["said"]
    assert [sum(done[key].values()) for key in ("counts_before", "counts_after")] == [500, 400]
    assert 0 < done["seconds"] < done["restored_seconds"] + 10
    assert shop.ask("SELECT count(*) FROM posts") == "500"
    assert shop.left() == ""


@ON_POSTGRES
def test_a_migration_that_fails_is_told_with_its_last_words(shop: Shop) -> None:
    shop.save()
    done = shop.rehearse("ALTER TABLE nothing ADD COLUMN title text")
    assert done["exit_code"] != 0
    assert "nothing" in done["said"]
    assert done["schema_changed"] is False
    assert shop.left() == ""


@ON_POSTGRES
def test_a_migration_that_takes_too_long_is_removed(shop: Shop) -> None:
    shop.save()
    with pytest.raises(BackupError, match="did not end within 1 s"):
        shop.rehearse("SELECT sleep(50)" if shop.image == MARIADB else "SELECT pg_sleep(50)", timeout=1)
    assert shop.left() == ""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Shop]:
    """An app with a folder in a volume, which belongs to a user of its own, and a second volume that is not saved."""
    volumes = {f"tidegate-test-{os.urandom(4).hex()}": path for path in ("/app/data", "/app/cache")}
    data, cache = volumes
    script = "mkdir /app/data/up && echo 1 > /app/data/up/one && echo 2 > '/app/data/up/t wo' && chown -R 10001 /app/data && echo x > /app/cache/x"
    mounts = [word for name, path in volumes.items() for word in ("-v", f"{name}:{path}")]
    docker("run", "--rm", *mounts, "debian:trixie-slim", "sh", "-c", script)
    source = Source("uploads", "directory", volume=data, path="up")
    live = f"{docker('volume', 'inspect', '-f', '{{.Mountpoint}}', data)}/up"
    ask = lambda _: " ".join(sorted(os.listdir(live)))  # noqa: E731
    yield Shop(settings(tmp_path, source), ask, "debian:trixie-slim", "", lambda text: ("sh", "-c", text), volumes)
    docker("volume", "rm", data, cache)


def test_volumes_are_replaced_by_throwaway_ones_that_belong_to_whom_the_live_ones_do(folder: Shop) -> None:
    folder.save()
    done = folder.rehearse(
        "ls -A /app/cache; stat -c %u /app/data /app/data/up/one; cat /app/data/up/*; rm /app/data/up/one; ip -o link 2>&1 | wc -l"
    )
    assert done["exit_code"] == 0, done["said"]
    assert done["said"].split()[:4] == ["10001", "10001", "1", "2"]
    assert [list(done[key].values()) for key in ("counts_before", "counts_after")] == [[3], [2]]
    assert folder.ask("") == "one t wo"
    assert folder.left() == ""


def test_what_a_killed_rehearsal_left_is_removed_by_the_next(folder: Shop) -> None:
    folder.save()
    label = f"dev.tidegate.backup={folder.settings.app}"
    docker("volume", "create", "--label", label, f"{PREFIX}dead-0")
    docker("create", "--name", f"{PREFIX}dead", "--label", label, "-v", f"{PREFIX}dead-0:/x", "debian:trixie-slim")
    folder.rehearse("true")
    assert folder.left() == ""


def test_without_a_backup_or_an_image_nothing_is_rehearsed(folder: Shop) -> None:
    with pytest.raises(BackupError, match="no good backup"):
        folder.rehearse("true")
    folder.save()
    folder.image = "tidegate/nothing:1"
    with pytest.raises(BackupError, match="tidegate/nothing:1"):
        folder.rehearse("true")
    assert folder.left() == ""


@ON_POSTGRES
def test_two_databases_are_refused(shop: Shop) -> None:
    one = shop.settings.sources[0]
    shop.settings = replace(shop.settings, sources=(one, replace(one, name="other")))
    shop.save()
    with pytest.raises(Refused, match="room for one database"):
        shop.rehearse("true")


def test_a_database_is_restored_where_nothing_serves_and_the_old_one_is_kept(shop: Shop) -> None:
    id = shop.save()
    shop.ask("DELETE FROM posts WHERE id > 10")
    with shop.store.locked("a restore"):
        done = Restore(shop.settings, KINDS, shop.store, Report()).restore(Request(id, by="somebody"))
    assert shop.ask("SELECT count(*) FROM posts") == "500"
    assert done["sources"]["main"]["rows"] == 500
    assert done["paused_seconds"] == 0
    safety = shop.store.get(done["safety"]).manifest.item("main")
    assert safety
    assert sum(safety.counts.values()) == 10
    kept = done["sources"]["main"]["kept"].removeprefix("database ")
    shop.ask(f"DROP DATABASE {kept}")
    assert shop.left() == ""
