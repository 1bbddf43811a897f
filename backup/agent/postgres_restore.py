"""PostgreSQL restored: into a throwaway server, and beside the live database to take its place."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from backup.agent import postgres_sql as sql
from backup.agent.errors import BackupError, Refused
from backup.agent.source import Saved
from backup.agent.toolbox import INSIDE, Kit, Toolbox, toolbox

if TYPE_CHECKING:
    from backup.agent.postgres import Postgres

READY = 120.0  # seconds a throwaway server gets to start
NAME = 63  # bytes of a database's name
TRIES = 5
ABLE = "ALTER ROLE CURRENT_USER LOGIN CONNECTION LIMIT -1; ALTER ROLE CURRENT_USER RESET ALL"
THERE_ALREADY = "42710"  # SQLSTATE of a role that exists
QUICK = ["-c", "fsync=off", "-c", "allow_in_place_tablespaces=on", "-c", "full_page_writes=off", "-c", "max_wal_size=4GB"]


def conninfo(database: str) -> str:
    """Return a database's name as a connection string, which takes any name for what it is."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def psql(database: str, names: Mapping[str, str]) -> list[str]:
    """Return the command that runs SQL from standard input and stops at the first error."""
    variables = [part for key, value in names.items() for part in ("-v", f"{key}={value}")]
    return ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", *variables, "-d", conninfo(database)]


def read_counts(text: str) -> dict[str, int]:
    """Read what COUNT answers."""
    lines = filter(None, text.split("\n"))  # a name may have other ends of lines in it
    return {table: int(number) for table, number in map(json.loads, lines)}


@dataclass(frozen=True)
class PostgresTrial:
    """A throwaway server with the backup in it; `container` is its name, for what is to share its network."""

    box: Toolbox
    database: str

    @property
    def container(self) -> str:
        """Return the server's container."""
        return self.box.container

    def counts(self) -> dict[str, int]:
        """Return the exact rows per table."""
        return read_counts(self.box.run(psql(self.database, {}), sql.PLAIN + sql.COUNT))

    def query(self, text: str) -> str:
        """Run a query and return its output."""
        return self.box.run(psql(self.database, {}), text).strip()


@contextmanager
def trial_server(postgres: Postgres, saved: Saved) -> Iterator[PostgresTrial]:
    """Start a throwaway server and restore into it: roles first, then the database under its own name."""
    user = saved.item.versions.get("bootstrap user", "postgres")
    environment = {"POSTGRES_USER": user, "POSTGRES_DB": "postgres", "POSTGRES_HOST_AUTH_METHOD": "trust", "POSTGRES_INITDB_ARGS": "--no-sync",
                   "PGHOST": "127.0.0.1", "PGUSER": user, "PGCLIENTENCODING": "UTF8"}  # fmt: skip
    kit = Kit(postgres.reach.image(), environment=environment, server=True, arguments=tuple(QUICK))
    with toolbox(postgres.reach.engine, postgres.settings, kit) as box:
        box.ready("pg_isready -h 127.0.0.1", READY)
        _roles(box, saved, postgres.source.name)
        restore = ["pg_restore", "--exit-on-error", "--clean", "--if-exists", "--create", "-d", conninfo("template1")]
        box.consume(restore, lambda fd: saved.read(f"{postgres.source.name}.pgdump", fd))
        yield PostgresTrial(box, postgres.database)


def _roles(box: Toolbox, saved: Saved, name: str) -> None:
    """Create the roles; one that exists already is the bootstrap user, anything else that fails counts.

    Tablespaces get a place among the server's own data, and the user we come as stays able to: the live one may not log in.
    """
    script = f"""sed "s/^\\(CREATE TABLESPACE .*\\) LOCATION '.*';$/\\1 LOCATION '';/" |
        psql -XqAtw -v VERBOSITY=verbose -d template1 -o /dev/null -f - -c {shlex.quote(ABLE)} 2>{INSIDE}/roles"""
    command = ["sh", "-c", script, "psql"]
    box.consume(command, lambda fd: saved.read(f"{name}.globals.sql", fd))
    said = (box.folder / "roles").read_text("utf-8", "replace")
    wrong = [line for line in said.splitlines() if (code := re.search(r":  ([0-9A-Z]{5}): ", line)) and code[1] != THERE_ALREADY
             and not re.search(r":\s+(NOTICE|WARNING|INFO): ", line)]  # fmt: skip
    if wrong:
        raise BackupError("the roles could not be restored", "\n".join(wrong[:10]))


class PostgresReplacement:
    """A database restored beside the live one; every step looks first what is there."""

    def __init__(self, postgres: Postgres, tag: str) -> None:
        self._postgres = postgres
        live = postgres.database
        self._names = {"live": live, "new": named(live, f"_tidegate_{tag}"), "old": named(live, f"_before_{tag}")}

    @property
    def new(self) -> str:
        """Return the name of the restored database until it takes the place."""
        return self._names["new"]

    def restore(self, saved: Saved) -> None:
        """Create the new database as the live one is and fill it."""
        rights = json.loads(self._ask(sql.RIGHTS))
        if not rights["create"] or not rights["own"]:
            why = f"{rights['user']} may not create databases, or does not own {self._names['live']}"
            raise Refused(
                "the database cannot be replaced", why, "let the source's user be a superuser, or the owner with CREATEDB"
            )
        if self.new in self._there():
            raise Refused(f"there is a database {self.new} already", fix="inv backup.restore-undo, or drop it")
        try:
            self._fill(saved)
        except BaseException:
            self.discard()
            raise

    def _fill(self, saved: Saved) -> None:
        self._ask(sql.CREATE)
        with self._postgres.toolbox() as box:
            restore = ["pg_restore", "-w", "--exit-on-error", "-d", conninfo(self.new)]
            box.consume(restore, lambda fd: saved.read(f"{self._postgres.source.name}.pgdump", fd))
            box.run(psql(self.new, {}), f"{sql.PLAIN}ANALYZE;\n")
        self._ask(sql.CARRY)

    def counts(self) -> dict[str, int]:
        """Return the exact rows per table of what will take the place, or has."""
        database = self.new if self.new in self._there() else self._names["live"]
        return read_counts(self._postgres.ask(sql.PLAIN + sql.COUNT, database))

    def swap(self) -> str:
        """Rename the live database away and the new one into its place, in one transaction."""
        there = self._there()
        if self.new in there:
            pairs = [("live", "old")] if self._names["live"] in there else []
            self._rename(*pairs, ("new", "live"))
        elif self._names["live"] in there:
            self._ask(sql.opened("live"))
        return f"database {self._names['old']}" if self._names["old"] in self._there() else "there was no database before"

    def swap_back(self) -> None:
        """Rename the old database back, wherever the swap stopped."""
        there = self._there()
        if self._names["old"] in there:
            pairs = [("live", "new")] if self._names["live"] in there else []
            self._rename(*pairs, ("old", "live"))
        elif self._names["live"] in there:
            self._ask(sql.opened("live"))

    def discard(self) -> None:
        """Drop the new database."""
        self._ask('DROP DATABASE IF EXISTS :"new" WITH (FORCE);\n')

    def _rename(self, *pairs: tuple[str, str]) -> None:
        """Put everybody out and rename; somebody who was let in by a superuser's right is put out again."""
        closing = "".join(sql.closed(source) for source, _ in pairs)
        for left in reversed(range(TRIES)):
            try:
                self._ask(closing + sql.renamed(*pairs))
                return
            except BackupError as error:
                if not left or "is being accessed by other users" not in error.why:
                    self._ask("".join(sql.opened(source) for source, _ in pairs))
                    raise

    def _there(self) -> set[str]:
        return set(json.loads(self._ask(sql.EXIST) or "null") or ())

    def _ask(self, text: str) -> str:
        other = "template1" if "postgres" in self._names.values() else "postgres"
        return self._postgres.ask(text, other, **self._names)


def named(database: str, end: str) -> str:
    """Return a name made of a database's and an end, short enough; what is cut is told apart by a hash."""
    whole = database + end
    if len(whole.encode()) <= NAME:
        return whole
    mark = f"~{sha256(database.encode()).hexdigest()[:6]}{end}"
    return database.encode()[: NAME - len(mark.encode())].decode("utf-8", "ignore") + mark
