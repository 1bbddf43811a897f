"""PostgreSQL 15 to 17, saved and proved by the database's own programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from backup.agent import postgres_sql as sql
from backup.agent.errors import BackupError, Refused
from backup.agent.model import Item, Settings, Source
from backup.agent.postgres_restore import PostgresReplacement, PostgresTrial, conninfo, psql, trial_server
from backup.agent.programs import Program
from backup.agent.reach import Reach, explained
from backup.agent.source import Saved, Stage, State
from backup.agent.toolbox import INSIDE, Talk, Toolbox
from ops.agent.engine import Engine

TRAILER = b"-- PostgreSQL database cluster dump complete"
FIXES = {
    "password authentication failed": "check the source's `user` and `password` in ops.toml",
    "no password supplied": "name the source's `password` in ops.toml",
    "does not exist": "check the source's `database` and `user` in ops.toml",
    "Connection refused": "check the source's `address` and `port` in ops.toml, and that the database accepts TCP connections",
    "lock timeout": "somebody changes a table and does not finish: look at pg_locks and try again",
    "canceling statement due to lock": "somebody changes a table and does not finish: look at pg_locks and try again",
}


class Postgres:
    """A database of a PostgreSQL server."""

    def __init__(self, settings: Settings, source: Source, engine: Engine) -> None:
        self.source, self.settings = source, settings
        self.database = source.database or self.user
        self.reach = Reach(settings, source, engine)

    @property
    def user(self) -> str:
        """Return the user we log in as."""
        return self.source.user or "postgres"

    @property
    def environment(self) -> dict[str, str]:
        """Return libpq's settings, without the password."""
        return {"PGHOST": self.reach.host, "PGPORT": str(self.source.port or 5432), "PGUSER": self.user, "PGCLIENTENCODING": "UTF8",
                "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "tidegate-backup", "PGPASSFILE": f"{INSIDE}/password", "LC_ALL": "C"}  # fmt: skip

    @contextmanager
    def toolbox(self) -> Iterator[Toolbox]:
        """Start a toolbox that can log in."""
        password = self.source.password.replace("\\", "\\\\").replace(":", "\\:")
        files = {"password": f"*:*:*:*:{password}\n"} if password else {}
        with explained(FIXES), self.reach.toolbox(self.environment, files) as box:
            yield box

    def ask(self, text: str, database: str = "", **names: str) -> str:
        """Have short commands run; `names` are psql's variables."""
        password = {"PGPASSWORD": self.source.password} if self.source.password else {}
        with explained(FIXES), self.reach.place({**self.environment, **password}) as place:
            return place.run(psql(database or self.database, names), text)

    def state(self) -> State:
        """Look at the database, cheaply."""
        known = json.loads(self.ask(sql.STATE))
        return State(present=True, schema=known["schema"], version=known["server"], bytes=known["bytes"])

    def dump(self, stage: Stage) -> Item:
        """Save the database and the server's roles; counts and schema are those of pg_dump's snapshot."""
        began, name = time.monotonic(), self.source.name
        with self.toolbox() as box, box.talk(psql(self.database, {})) as talk:
            talk.say(sql.BEGIN.format(wait=sql.LOCK_WAIT))
            known = json.loads(talk.hear(sql.END))
            _fits(known)
            talk.say(sql.LOCK)
            talk.hear(sql.END)
            talk.say(f"{sql.BEFORE_COUNTING}{sql.SCHEMA}{sql.COUNT_WITHIN}\\echo {sql.END}\n")  # answered while pg_dump runs
            dumped = ["pg_dump", "-w", "-Fc", "-Z0", f"--snapshot={known['snapshot']}",
                      f"--lock-wait-timeout={sql.LOCK_WAIT}s", "-d", conninfo(self.database)]  # fmt: skip
            roles: list[Program] = []  # the engine starts one program after another: pg_dump comes first
            also = _pg_dumpall(self.database, passwords=known["roles"])
            archive = box.produce(
                dumped, lambda fd: stage.save(name, f"{name}.pgdump", fd), lambda _: roles.append(box.start(also))
            )
            schema, counts = _counted(talk)
            roles[0].finish()
            with (box.folder / "globals.sql").open("rb") as file:
                globals_ = stage.save(name, f"{name}.globals.sql", file.fileno())
        return Item(
            name, self.source.kind, (archive, globals_), counts, schema,
            {"server": known["server"], "pg_dump": known["client"], "bootstrap user": known["bootstrap"],
             "bytes": str(known["bytes"])},
            time.monotonic() - began,
            () if known["roles"] else (f"{self.user} may not read the passwords of roles: they are not in the backup",),
        )  # fmt: skip

    def decode(self, saved: Saved, work: Path) -> None:
        """Level 2: have pg_restore read the archive to its end, and find the end of the roles."""
        with self.reach.apart() as box:
            archive = f"{self.source.name}.pgdump"
            box.consume(["pg_restore", "-f", "/dev/null"], lambda fd: saved.read(archive, fd))
        with TemporaryFile(dir=work) as end:
            saved.read(f"{self.source.name}.globals.sql", end.fileno(), [["tail", "-c", "200"]])
            end.seek(0)
            if TRAILER not in end.read():
                raise BackupError(f"{self.source.name}.globals.sql is cut short", "its last line is missing")

    @contextmanager
    def trial(self, saved: Saved, work: Path) -> Iterator[PostgresTrial]:
        """Level 3: restore it into a throwaway server of the same image that has no network."""
        with trial_server(self, saved) as trial:
            yield trial

    def beside(self, saved: Saved, tag: str) -> PostgresReplacement:
        """Restore it into a new database of the live server; where that fails, the new database is gone again."""
        replacement = self.replaced(tag)
        replacement.restore(saved)
        return replacement

    def replaced(self, tag: str) -> PostgresReplacement:
        """Return the replacement of that tag as it was left."""
        return PostgresReplacement(self, tag)


def _fits(known: Mapping[str, Any]) -> None:
    """Refuse a server that is newer than the programs that would save it."""
    if known["number"] // 10000 > known["tools"] // 10000:
        why = f"the server is {known['server']}, pg_dump is {known['client']}"
        raise Refused("the database is newer than the programs that would save it", why, "name a newer `image` for the source")


def _pg_dumpall(database: str, *, passwords: bool) -> list[str]:
    return ["pg_dumpall", "-w", "--globals-only", *([] if passwords else ["--no-role-passwords"]),
            "-f", f"{INSIDE}/globals.sql", "-l", conninfo(database)]  # fmt: skip


def _counted(talk: Talk) -> tuple[str, dict[str, int]]:
    schema, *rows = [json.loads(line) for line in talk.hear(sql.END).split("\n") if line]
    return schema["schema"], {table: int(number) for table, number in rows}
