"""MariaDB restored: into a throwaway server, and beside the live database to take its place."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from backup.agent import mariadb_sql as sql
from backup.agent.errors import BackupError, Refused
from backup.agent.mariadb_tools import FROM_OPTIONS, OPTIONS, client, lines, options, read_counts
from backup.agent.source import Saved
from backup.agent.toolbox import Kit, Toolbox, toolbox

if TYPE_CHECKING:
    from backup.agent.mariadb import MariaDb

READY = 180.0  # seconds a throwaway server gets to start
NAME = 64  # characters of a database's name
MARK = "tidegate_swap"  # a table in the old database: the names of the tables that came from the backup
QUICK = ("--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--max-allowed-packet=1G")


@dataclass(frozen=True)
class MariaDbTrial:
    """A throwaway server with the backup in it; `container` is its name, for what is to share its network."""

    box: Toolbox
    database: str

    @property
    def container(self) -> str:
        """Return the server's container."""
        return self.box.container

    def counts(self) -> dict[str, int]:
        """Return the exact rows per table."""
        tables = [table for table, _ in lines(self.box.run(client(self.database), sql.PLAIN + sql.TABLES))]
        return read_counts(self.box.run(client(self.database), sql.PLAIN + sql.count(tables)))

    def query(self, text: str) -> str:
        """Run a query and return its output."""
        return self.box.run(client(self.database), text).strip()


@contextmanager
def trial_server(mariadb: MariaDb, saved: Saved) -> Iterator[MariaDbTrial]:
    """Start a throwaway server and restore into it, into a database of the same name."""
    password = mariadb.source.password or secrets.token_hex(16)
    environment = {f"{image}_ROOT_PASSWORD": password for image in ("MARIADB", "MYSQL")}
    files = {OPTIONS: options("127.0.0.1", 3306, "root", password)}
    kit = Kit(mariadb.reach.image(), "none", environment, files, server=True, arguments=QUICK)
    with toolbox(mariadb.reach.engine, mariadb.settings, kit) as box:
        box.ready(f"$(command -v mariadb || command -v mysql) {FROM_OPTIONS} -e 'SELECT 1'", READY)
        box.run(client(""), create(mariadb.database, saved))
        box.consume(client(mariadb.database), lambda fd: saved.read(f"{mariadb.source.name}.sql", fd))
        login = box.write("login.sql", _login(mariadb))
        box.start(["sh", "-c", f'exec "$@" <{login}', "mariadb", *client("")]).finish()
        yield MariaDbTrial(box, mariadb.database)


def _login(mariadb: MariaDb) -> str:
    """Return what lets the source's own user in, as a rehearsed migration comes; users are not restored here."""
    user, password = (sql.literal(text) for text in (mariadb.user, mariadb.source.password))
    if mariadb.user == "root":
        return "DO 1;\n"
    return f"""{sql.PLAIN}CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY {password};
GRANT ALL ON {sql.name(mariadb.database).replace("_", chr(92) + "_").replace("%", chr(92) + "%")}.* TO {user}@'%';
"""


def create(database: str, saved: Saved) -> str:
    """Return what creates a database as the saved one was."""
    return f"CREATE DATABASE {sql.name(database)} COLLATE {sql.name(saved.item.versions['collation'])};\n"


class MariaDbReplacement:
    """A database restored beside the live one, whose tables change places with the live one's; each step looks first."""

    def __init__(self, mariadb: MariaDb, tag: str) -> None:
        self._mariadb = mariadb
        live = mariadb.database
        self._names = {"live": live, "new": named(live, f"_tidegate_{tag}"), "old": named(live, f"_before_{tag}")}

    def restore(self, saved: Saved) -> None:
        """Create the new database and fill it."""
        self._only_tables()
        there = self._tables()
        for key in ("new", "old"):
            if key in there:
                raise Refused(f"there is a database {self._names[key]} already", fix="inv backup.restore-undo, or drop it")
        self._create(saved, there)
        try:
            with self._mariadb.toolbox() as box:
                box.consume(client(self._names["new"]), lambda fd: saved.read(f"{self._mariadb.source.name}.sql", fd))
            self._only_tables()
        except BaseException:
            self.discard()
            raise

    def _create(self, saved: Saved, there: dict[str, set[str]]) -> None:
        """Create the new database, and the live one where it is missing, having tried that the old one can be."""
        wanted = [key for key in ("live", "new") if key not in there]
        tried = f"{self._create_old()}DROP DATABASE {sql.name(self._names['old'])};\n"
        try:
            self._mariadb.ask(tried + "".join(create(self._names[key], saved) for key in wanted), "")
        except BackupError as error:
            fix = "let the source's user create and drop databases, or follow docs/restore-by-hand.md"
            raise Refused("the database cannot be replaced", error.why, fix) from error

    def _only_tables(self) -> None:
        """Refuse what no RENAME TABLE moves into another database."""
        found = [f"{kind.lower()} {name}" for key, name, kind in self._known() if key != "old" and kind in
                 ("VIEW", "TRIGGER", "FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY", "EVENT")]  # fmt: skip
        if found:
            why = f"it holds what cannot be renamed into its place: {', '.join(sorted(set(found)))}"
            raise Refused("the database cannot be replaced as a whole", why, "docs/restore-by-hand.md")

    def counts(self) -> dict[str, int]:
        """Return the exact rows per table of what will take the place, or has."""
        database = self._names["new" if self._tables().get("new") else "live"]
        tables = [table for table, _ in self._mariadb.ask(sql.TABLES, database)]
        return {table: int(number) for table, number in self._mariadb.ask(sql.count(tables), database)}

    def swap(self) -> str:
        """Let the tables change places, by one statement."""
        there = self._tables()
        new = there.get("new", set())
        restored = self._marked(there) or self._mark(new)
        away = [("live", "old", one) for one in there["live"] if one not in restored or one in new]
        self._rename([*away, *(("new", "live", one) for one in new)])
        return f"database {self._names['old']}"

    def swap_back(self) -> None:
        """Let them change back, wherever the swap stopped."""
        there = self._tables()
        if restored := self._marked(there):
            new = there.get("new", set())
            away = [("live", "new", one) for one in there["live"] if one in restored and one not in new]
            self._rename([*away, *(("old", "live", one) for one in there["old"] if one != MARK)])
        if restored or there.get("old") in (set(), {MARK}):
            self._mariadb.ask(f"DROP DATABASE {sql.name(self._names['old'])};\n", "")

    def discard(self) -> None:
        """Drop the new database."""
        self._mariadb.ask(f"DROP DATABASE IF EXISTS {sql.name(self._names['new'])};\n", "")

    def _create_old(self) -> str:
        return f"CREATE DATABASE IF NOT EXISTS {sql.name(self._names['old'])};\n"

    def _mark(self, new: set[str]) -> set[str]:
        """Write down which tables come from the backup, so that a later process can tell them from the live ones."""
        mark, restored = self._table("old", MARK), {"", *new}
        rows = ", ".join(f"({sql.literal(one)})" for one in sorted(restored))
        self._mariadb.ask(
            f"{self._create_old()}CREATE TABLE IF NOT EXISTS {mark} (name varchar(64) PRIMARY KEY) ENGINE=InnoDB COLLATE utf8mb4_bin;\n"
            f"INSERT INTO {mark} VALUES {rows};\n", "",
        )  # fmt: skip
        return restored

    def _marked(self, there: dict[str, set[str]]) -> set[str]:
        if MARK not in there.get("old", ()):
            return set()
        return {str(one) for (one,) in self._mariadb.ask(f"SELECT JSON_ARRAY(name) FROM {self._table('old', MARK)};\n", "")}

    def _rename(self, moves: list[tuple[str, str, str]]) -> None:
        if moves:
            pairs = ", ".join(f"{self._table(a, one)} TO {self._table(b, one)}" for a, b, one in moves)
            self._mariadb.ask(f"RENAME TABLE {pairs};\n", "")

    def _table(self, key: str, table: str) -> str:
        return f"{sql.name(self._names[key])}.{sql.name(table)}"

    def _tables(self) -> dict[str, set[str]]:
        """Return the tables of those of our databases that exist."""
        found: dict[str, set[str]] = {}
        for key, name, kind in self._known():
            found.setdefault(key, set()).update([name] if kind in ("BASE TABLE", "SYSTEM VERSIONED", "SEQUENCE") else [])
        return found

    def _known(self) -> list[tuple[str, str, str]]:
        return [(key, name, kind) for key, name, kind in self._mariadb.ask(sql.names_in(self._names), "")]


def named(database: str, end: str) -> str:
    """Return a name made of a database's and an end, short enough; what is cut is told apart by a hash."""
    whole = database + end
    mark = f"~{sha256(database.encode()).hexdigest()[:6]}{end}"
    return whole if len(whole) <= NAME else database[: NAME - len(mark)] + mark
