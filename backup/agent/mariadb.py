"""MariaDB (and MySQL, whose programs have other names), saved and proved by the database's own programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from backup.agent import mariadb_sql as sql
from backup.agent.errors import BackupError, Refused
from backup.agent.mariadb_restore import MariaDbReplacement, MariaDbTrial, trial_server
from backup.agent.mariadb_tools import CLIENT, FROM_OPTIONS, OPTIONS, TRUSTED, client, lines, options, read_counts, tool
from backup.agent.model import DataFile, Item, Settings, Source
from backup.agent.programs import Program
from backup.agent.reach import Reach, explained
from backup.agent.sockets import local_ports
from backup.agent.source import Saved, Stage, State
from backup.agent.toolbox import INSIDE, Talk, Toolbox
from ops.agent.engine import Engine

TRAILER = b"-- Dump completed"
BEGUN, LOOK = 20.0, 0.01  # seconds mariadb-dump gets to begin, and between two looks whether it has
FIXES = {
    "Access denied": "check the source's `user`, `password` and the rights of that user",
    "Unknown database": "check the source's `database` in ops.toml",
    "gone away": "a row is longer than the server takes: SET GLOBAL max_allowed_packet = 1073741824 there, and try again",
    "packet bigger": "a row is longer than the server takes: SET GLOBAL max_allowed_packet = 1073741824 there, and try again",
    "Can't connect": "check the source's `address` and `port` in ops.toml, and that the database accepts TCP connections",
}
# Not --hex-blob: twice as long, a row that the server could take once would be too long for it to take back.
DUMP = ["--single-transaction", "--quick", "--routines", "--triggers", "--events", "--no-tablespaces",
        "--default-character-set=utf8mb4"]  # fmt: skip
FIXED = "it has views, triggers, routines or events: it is restored by hand only (docs/restore-by-hand.md)"
UNSURE = "nobody could be kept from writing for a moment (RELOAD or LOCK TABLES is needed): counts may differ from the dump's"


class MariaDb:
    """A database of a MariaDB server."""

    def __init__(self, settings: Settings, source: Source, engine: Engine) -> None:
        if not source.database:
            raise Refused(f"{source.name} has no `database`", fix="name it in ops.toml")
        self.source, self.settings, self.database = source, settings, source.database
        self.reach = Reach(settings, source, engine)
        self._port, self.user = source.port or 3306, source.user or "root"

    @contextmanager
    def toolbox(self) -> Iterator[Toolbox]:
        """Start a toolbox that can log in."""
        files = {OPTIONS: options(self.reach.host, self._port, self.user, self.source.password)}
        with explained(FIXES), self.reach.toolbox({}, files) as box:
            yield box

    def ask(self, text: str, database: str | None = None) -> list[Any]:
        """Have short commands run; returns the lines of their answer, decoded."""
        name = self.database if database is None else database
        there = ["--no-defaults", "-h", self.reach.host, "-P", str(self._port), "-u", self.user, "--protocol=tcp",
                 *([f"--{TRUSTED}"] if self.source.container else []), *([f"--database={name}"] if name else [])]  # fmt: skip
        with explained(FIXES), self.reach.place({"MYSQL_PWD": self.source.password}) as place:
            return lines(place.run(tool("mariadb", [*there, *CLIENT]), sql.PLAIN + text))

    def state(self) -> State:
        """Look at the database, cheaply."""
        known, *schema = self.ask(sql.FACTS + sql.SCHEMA)
        return State(present=True, schema=_fingerprint(schema), version=known["server"], bytes=known["bytes"])

    def dump(self, stage: Stage) -> Item:
        """Save the database, and the server's users where we may read them; counts are those of the dump's snapshot."""
        began, name = time.monotonic(), self.source.name
        with self.toolbox() as box, ExitStack() as stack:
            users = box.start(tool("mariadb-dump", [FROM_OPTIONS, "--system=users", f"--result-file={INSIDE}/users.sql"]))
            counting = _Counting(box, stack, self.database)
            archive = box.produce(tool("mariadb-dump", [FROM_OPTIONS, *DUMP, self.database]),
                                  lambda fd: stage.save(name, f"{name}.sql", fd), counting.begin)  # fmt: skip
            counts = counting.result()
            files, unsaved = _users(users, stage, name, box)
            known = counting.known
        versions = {"server": known["server"], "collation": known["collation"], "bytes": str(known["bytes"])}
        return Item(name, self.source.kind, (archive, *files), counts, counting.schema, versions,
                    time.monotonic() - began, (*counting.warnings, *counting.fixed, *unsaved), exact=not counting.warnings)  # fmt: skip

    def decode(self, saved: Saved, work: Path) -> None:
        """Level 2: decode every file to its end, where its last line tells that it is whole."""
        for file in saved.item.files:
            with TemporaryFile(dir=work) as end:
                saved.read(file.name, end.fileno(), [["tail", "-n", "1"]])
                end.seek(0)
                if not end.read(200).startswith(TRAILER):
                    raise BackupError(f"{file.name} is cut short", "its last line is missing")

    @contextmanager
    def trial(self, saved: Saved, work: Path) -> Iterator[MariaDbTrial]:
        """Level 3: restore it into a throwaway server of the same image that has no network."""
        with trial_server(self, saved) as trial:
            yield trial

    def beside(self, saved: Saved, tag: str) -> MariaDbReplacement:
        """Restore it into a new database of the live server; where that fails, the new database is gone again."""
        replacement = self.replaced(tag)
        replacement.restore(saved)
        return replacement

    def replaced(self, tag: str) -> MariaDbReplacement:
        """Return the replacement of that tag as it was left."""
        return MariaDbReplacement(self, tag)


class _Counting:
    """Counts rows in a snapshot that is the dump's own, since nobody writes while the two begin."""

    def __init__(self, box: Toolbox, stack: ExitStack, database: str) -> None:
        self._box, self._database = box, database
        self._talk = stack.enter_context(box.talk(client(database)))
        self.known, *tables = lines(self._ask(self._talk, sql.PLAIN + sql.FACTS + sql.TABLES))
        self._tables = [table for table, _ in tables]
        self._guard = self._lock(stack)
        self.warnings: tuple[str, ...] = () if self._guard else (UNSURE,)
        if other := sorted({engine for _, engine in tables if engine != "InnoDB"}):
            self.warnings += (f"tables of {', '.join(other)} know no transactions: they may have changed during the dump",)
        if lines(self._ask(self._talk, sql.TABLES)) != tables:
            raise BackupError("tables were created or dropped while the backup began", fix="try again")
        self._ask(self._talk, sql.BEGIN + sql.hold(self._tables))
        described = lines(self._ask(self._talk, sql.SCHEMA))
        self.schema = _fingerprint(described)
        self.fixed = (FIXED,) if any(row[0] in ("view", "trigger", "routine", "event") for row in described) else ()

    def begin(self, dump: Program) -> None:
        """Wait until the dump's own snapshot has begun, let everybody write again, and count while it goes on."""
        if self._guard:
            self._await(dump)
            self._ask(self._guard, "UNLOCK TABLES;\n")
        self._talk.say(sql.count(self._tables) + sql.end())

    def result(self) -> dict[str, int]:
        """Return the counts."""
        return read_counts(self._talk.hear(sql.END))

    def _lock(self, stack: ExitStack) -> Talk | None:
        """Keep everybody from writing, by whichever right we have."""
        for lock in (sql.ALL_LOCK, sql.read_lock(self._tables)) if self._tables else ():
            try:
                with ExitStack() as attempt:
                    talk = attempt.enter_context(self._box.talk(client(self._database)))
                    self._ask(talk, sql.PLAIN + lock)
                    stack.push(attempt.pop_all())
                    return talk
            except BackupError:
                continue  # the right is missing, or somebody has been writing for too long
        return None

    def _await(self, dump: Program) -> None:
        """Wait until mariadb-dump names the database, which it does as soon as its snapshot has begun."""
        deadline = time.monotonic() + BEGUN
        while not dump.wait(LOOK):
            if any(self._uses(port) for port in local_ports(dump.pid())):
                dump.wait(LOOK)  # it lists the tables next
                return
            if time.monotonic() > deadline:
                raise BackupError(f"mariadb-dump did not begin within {BEGUN:.0f} seconds", dump.err)

    def _uses(self, port: int) -> bool:
        assert self._guard
        return self._guard.ask(sql.where(port), sql.END).strip() != ""

    def _ask(self, talk: Talk, text: str) -> str:
        return talk.ask(text + sql.end(), sql.END)


def _users(users: Program, stage: Stage, name: str, box: Toolbox) -> tuple[list[DataFile], tuple[str, ...]]:
    """Save users and grants, where we may read them."""
    try:
        users.finish()
    except BackupError as error:
        return [], (f"users and grants are not in the backup: {error.why}",)
    with (box.folder / "users.sql").open("rb") as file:
        return [stage.save(name, f"{name}.globals.sql", file.fileno())], ()


def _fingerprint(schema: list[Any]) -> str:
    """Return a digest of the schema; the numbers that a table will give next are not part of it."""
    return sha256("\n".join(sorted(json.dumps(line) for line in schema)).encode()).hexdigest()
