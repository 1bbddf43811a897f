"""docs/restore-by-hand.md, typed as it stands: its own blocks restore backups of every kind."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backup.agent import commands
from backup.agent.kinds import KINDS
from backup.agent.model import Source
from ops.bases import ensure_base
from tests.backup.agent_run import App
from tests.docs.documents import ROOT, by_heading
from tests.integration.databases import docker

TOOLS = ("age", "zstd", "xz", "gzip", "sqlite3", "openssl")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"not all of {', '.join(TOOLS)} are installed"),
]

DOCUMENT = ROOT / "docs" / "restore-by-hand.md"
BLOCKS = by_heading(DOCUMENT, "bash")
STOP = "Stop the app, and start it again"
ODD = "or der's ta`b|le"
POSTGRES_ODD = '"or der\'s ""ta|ble"""'
FILL = """
CREATE TABLE posts (id int PRIMARY KEY, title varchar(50));
CREATE TABLE notes (post int NOT NULL, FOREIGN KEY (post) REFERENCES posts (id));
INSERT INTO posts VALUES (1, 'one'), (2, 'two');
INSERT INTO notes VALUES (1);
"""


@dataclass(frozen=True)
class Reader:
    """Somebody who follows the document, with names of their own in place of the document's."""

    backup: Path
    names: Mapping[str, object] = field(default_factory=dict)

    def types(self, heading: str, *numbers: int, also: str = "") -> str:
        """Type the blocks of a section, those of the beginning first; returns what the terminal shows."""
        wanted = [BLOCKS["Begin"][0], BLOCKS[heading][0], *(BLOCKS[heading][one] for one in numbers), also]
        script = "\n".join(self._named(one) for one in dict.fromkeys(wanted))
        # On standard input, as in a terminal: a command that reads on takes away what was pasted after it.
        done = subprocess.run(["bash", "-e"], input=f"{script}\necho the end\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=120, check=False)  # fmt: skip
        assert done.stdout.endswith("the end\n"), done.stdout
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _named(self, block: str) -> str:
        block = re.sub(r"^cd \S+", f"cd {shlex.quote(str(self.backup))}", block, flags=re.MULTILINE)
        for name, value in self.names.items():
            block = re.sub(rf"^{name}=\S+", lambda _, n=name, v=value: f"{n}={shlex.quote(str(v))}", block, flags=re.MULTILINE)  # type: ignore[misc]
        unnamed = [name for name in re.findall(r"^([A-Z]+)=[^$\n]+$", block, re.MULTILINE) if name not in self.names]
        assert not unnamed, f"the document's own example would be used for {unnamed}"
        return block


@dataclass(frozen=True)
class Shop:
    """An app whose data is of every kind, and its backup, encrypted."""

    app: App
    key: Path
    backup: Path
    postgres: str
    mariadb: str

    def reader(self, source: str, **names: object) -> Reader:
        return Reader(self.backup, {"SOURCE": source, "KEY": self.key, **names})

    def psql(self, text: str, database: str = "shop") -> str:
        return docker(
            "exec", "-i", self.postgres, "psql", "-XqAtU", "postgres", "-v", "ON_ERROR_STOP=1", "-d", database, feed=text
        )

    def sql(self, text: str, database: str = "") -> str:
        script = 'MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb -u root -BN "$@"'
        return docker("exec", "-i", self.mariadb, "sh", "-c", script, "sh", *([database] if database else []), feed=text)


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, str]]:
    """Names for two database servers; whatever has them is gone afterwards."""
    tag = os.urandom(4).hex()
    names = {kind: f"tidegate-test-{kind}-{tag}" for kind in ("postgres", "mariadb")}
    yield names
    docker("rm", "-f", "-v", *names.values(), check=False)
    docker("volume", "rm", "-f", *names.values(), *(f"{one}-before" for one in names.values()), check=False)


@pytest.fixture(scope="module")
def shop(names: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Servers started as the document says, filled and saved; whoever restores from the backup changes nothing in it."""
    root = tmp_path_factory.mktemp("by hand")
    key = root / "age.key"
    recipient = subprocess.run(["age-keygen", "-o", key], capture_output=True, text=True, check=True).stderr.split()[-1]
    for image, heading, name in (("postgres:17", "PostgreSQL", names["postgres"]), ("mariadb:11.8", "MariaDB", names["mariadb"])):
        ensure_base(image, print)
        Reader(root, {"SOURCE": "none", "KEY": key, "DB": name, "DATABASE": "shop", "OWNER": "shop"}).types(heading, 1)
    app = App(root, recipients=(recipient,))
    shop = Shop(app, key, root, **names)
    _fill(shop)
    known = (
        *app.settings.sources,
        Source("pg", "postgres", container=names["postgres"], user="postgres", database="shop"),
        Source("maria", "mariadb", container=names["mariadb"], user="root", database="shop",
               password=docker("exec", names["mariadb"], "printenv", "MARIADB_ROOT_PASSWORD")),
    )  # fmt: skip
    taken = app.with_settings(sources=known).call(commands.run, KINDS)
    assert taken["result"] == "complete"
    assert taken["encrypted"]
    backup = app.folder / taken["id"]
    before = {path.name: path.stat().st_mtime_ns for path in backup.iterdir()}
    yield Shop(app, key, backup, **names)
    assert {path.name: path.stat().st_mtime_ns for path in backup.iterdir()} == before


def _fill(shop: Shop) -> None:
    shop.app.fill()
    with closing(sqlite3.connect(shop.app.database)) as database, database:
        database.execute('CREATE TABLE "or der\'s ""ta|ble""" (a)')
    (shop.app.uploads / "a folder").mkdir(mode=0o750)
    os.setxattr(shop.app.uploads / "a picture.png", "user.mime", b"image/png")
    shop.psql("CREATE ROLE shop LOGIN PASSWORD 'p'; CREATE ROLE reader LOGIN PASSWORD 'p'", "postgres")
    shop.psql("CREATE DATABASE shop OWNER shop", "postgres")
    shop.psql(f"{FILL} CREATE TABLE {POSTGRES_ODD} (a int); GRANT SELECT ON posts TO reader")
    shop.sql(
        "CREATE DATABASE shop COLLATE utf8mb4_unicode_520_ci; CREATE USER shop IDENTIFIED BY 'p'; GRANT ALL ON shop.* TO shop"
    )
    shop.sql(f"{FILL} CREATE TABLE `{ODD.replace('`', '``')}` (a int); CREATE VIEW titles AS SELECT title FROM posts;"
             "CREATE TRIGGER named BEFORE INSERT ON posts FOR EACH ROW SET NEW.title = UPPER(NEW.title);", "shop")  # fmt: skip


def test_every_block_of_the_document_is_executed_here() -> None:
    assert {heading: len(texts) for heading, texts in BLOCKS.items()} == {
        "Begin": 2, "SQLite": 2, "Directory": 2, "PostgreSQL": 5, "MariaDB": 6, STOP: 3,
    }  # fmt: skip


def test_the_beginning_tells_whether_a_backup_is_whole_and_what_is_in_it(shop: Shop) -> None:
    shown = shop.reader("posts").types("Begin", 1)
    assert "posts.sqlite.zst.age: OK" in shown
    assert "pg postgres {" in shown
    assert "20|posts\n" in shown
    assert '"level": "full", "ok": true' in shown


def test_a_damaged_backup_is_noticed_before_anything_is_done(shop: Shop, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", shop.backup, copy], check=True)
    with (copy / "posts.sqlite.zst.age").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(AssertionError, match=r"posts\.sqlite\.zst\.age: FAILED"):
        Reader(copy, shop.reader("posts").names).types("Begin", 1)
    with pytest.raises(AssertionError, match="age: error"):
        Reader(copy, {**shop.reader("posts").names, "LIVE": tmp_path / "x.db"}).types("SQLite")


def test_rows_that_are_missing_are_shown(shop: Shop) -> None:
    with pytest.raises(AssertionError, match=r"< 20\|posts\n +---\n +> 19\|posts"):
        shop.reader("posts").types("Begin", also="rows | sed 's/^20|posts/19|posts/' | cut -d'|' -f1 | compare")


def test_an_sqlite_file_comes_back_with_owner_and_mode_and_the_old_one_is_kept_whole(shop: Shop) -> None:
    live = shop.app.database
    live.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(live, 1234, 1235)
    owner = live.stat().st_uid, live.stat().st_gid
    with closing(sqlite3.connect(live)) as left_open:  # as a killed app leaves it: with rows that are only in the -wal
        left_open.execute("DELETE FROM posts WHERE id > 3")
        left_open.commit()
        shown = shop.reader("posts", LIVE=live).types("SQLite", 1)
    assert "ok\nall 2 counts are as they were" in shown
    found = live.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (*owner, 0o640)
    assert _posts(live) == 20
    assert _posts(live.with_name(f"{live.name}.before")) == 3
    assert not [path for path in live.parent.iterdir() if path.name.startswith(f"{live.name}.new")]


def _posts(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM posts").fetchone()[0])


@pytest.mark.parametrize("compression", ["gzip", "xz", "none"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_whatever_it_is_packed_with(shop: Shop, tmp_path: Path, compression: str, encrypted: bool) -> None:
    recipients = shop.app.settings.recipients if encrypted else ()
    app = App(tmp_path, compression=compression, recipients=recipients)
    app.fill()
    taken = app.call(commands.run)
    Reader(app.folder / taken["id"], {"SOURCE": "posts", "KEY": shop.key, "LIVE": app.database}).types("SQLite", 1)
    assert _posts(app.database) == 20


def test_a_folder_comes_back_with_modes_and_attributes_and_the_old_one_is_kept(shop: Shop) -> None:
    live = shop.app.uploads
    (live / "a picture.png").write_text("overwritten")
    shown = shop.reader("uploads", LIVE=live).types("Directory", 1)
    assert "all 1 counts are as they were" in shown
    assert os.getxattr(live / "a picture.png", "user.mime") == b"image/png"
    assert (live / "a folder").stat().st_mode & 0o777 == 0o750
    assert (live / "a picture.png").stat().st_size == 3000
    assert (live.with_name(f"{live.name}.before") / "a picture.png").read_text() == "overwritten"


def test_a_postgres_database_comes_back_with_roles_and_rights_and_the_old_one_is_kept(shop: Shop) -> None:
    shop.psql("DELETE FROM notes; DROP OWNED BY reader; DROP ROLE reader")
    docker("exec", "-d", shop.postgres, "psql", "-U", "postgres", "-d", "shop", "-c", "SELECT pg_sleep(300)")
    reader = shop.reader("pg", DB=shop.postgres, DATABASE="shop", OWNER="shop")
    assert "all 3 counts are as they were" in reader.types("PostgreSQL", 2, 3, 4)
    assert shop.psql("SELECT count(*) FROM notes") == "1"
    assert shop.psql("SELECT count(*) FROM notes", "shop_before") == "0"
    assert shop.psql("SELECT has_table_privilege('reader', 'posts', 'SELECT')") == "t"
    assert shop.psql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'") == "shop"


def test_a_mariadb_database_comes_back_with_views_triggers_and_users_and_the_old_one_is_kept(shop: Shop) -> None:
    shop.sql("DELETE FROM notes; DROP USER shop", "shop")
    reader = shop.reader("maria", DB=shop.mariadb, DATABASE="shop")
    shown = reader.types("MariaDB", 2, 3, 4, 5)
    assert shown.count("all 3 counts are as they were") == 2
    assert shop.sql("SELECT COUNT(*) FROM notes", "shop") == "1"
    assert shop.sql("INSERT INTO posts VALUES (3, 'three'); SELECT title FROM titles ORDER BY title", "shop") == "one\nTHREE\ntwo"
    assert "ALL PRIVILEGES ON `shop`" in shop.sql("SHOW GRANTS FOR shop")
    assert shop.sql("SELECT @@collation_database", "shop") == "utf8mb4_unicode_520_ci"
    assert "shop_new" not in shop.sql("SHOW DATABASES")
    kept = docker("run", "--rm", "-v", f"{shop.mariadb}-before:/before:ro", "--entrypoint", "ls", "mariadb:11.8", "/before/shop")
    assert "notes.ibd" in kept


def test_the_containers_that_ran_are_stopped_for_good_and_started_again(shop: Shop, tmp_path: Path) -> None:
    app = f"by-hand-{os.urandom(4).hex()}"
    started = [docker("run", "-d", "--init", "--restart", "always", "--label", f"dev.tidegate.app={app}",
                      "--entrypoint", "sleep", "postgres:17", "infinity") for _ in range(2)]  # fmt: skip
    try:
        docker("stop", "-t", "0", started[1])  # a kept release: it must stay down
        reader = shop.reader("posts", APP=app, STOPPED=tmp_path / "stopped")
        reader.types(STOP, 1)
        assert _states(started) == [("no", False), ("always", False)]
        reader.types(STOP, 2)
        assert _states(started) == [("always", True), ("always", False)]
    finally:
        docker("rm", "-f", *started)


def _states(containers: list[str]) -> list[tuple[str, bool]]:
    known = json.loads(docker("inspect", *containers))
    return [(one["HostConfig"]["RestartPolicy"]["Name"], one["State"]["Running"]) for one in known]
