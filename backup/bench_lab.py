"""Where backups are measured: a PostgreSQL container and SQLite files full of rows, the real program, and the same by hand."""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self
from urllib.parse import quote

from backup import package
from backup.agent.model import Settings, Source
from backup.agent.toolbox import LABEL
from backup.bench_report import Run
from ops.agent.engine import Engine, EngineError
from ops.errors import Failed, Refused

IMAGE = "postgres:17"
SOCKET = "/var/run/docker.sock"
INSIDE = "/bench"  # where the lab's folder is in the container
ROW = 460  # bytes that a row takes in either database, indexes included
LOOK = 0.1
SYLLABLES = ("an", "be", "co", "da", "el", "fi", "go", "hu", "in", "jo", "ka", "lo", "mi", "no", "or", "pa", "qu", "re", "si",
             "tu", "un", "ve")  # fmt: skip
TABLE = """CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INTEGER NOT NULL, placed TIMESTAMPTZ NOT NULL,
  amount NUMERIC(12, 2) NOT NULL, rating REAL, note TEXT NOT NULL)"""
INDEX = "CREATE INDEX orders_by_customer ON orders (customer, placed)"
SQLITE_COPY = """import sqlite3, sys
source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
source.backup(target)"""


def rows(megabytes: float) -> Iterator[tuple[int, int, str, str, float, str]]:
    """Return the same rows every time: numbers, moments, money, and prose of a small language."""
    dice = random.Random(20)  # noqa: S311  # data, not secrets
    words = ["".join(dice.choices(SYLLABLES, k=dice.randint(1, 4))) for _ in range(8000)]
    often = list(accumulate(1 / rank for rank in range(2, len(words) + 2)))
    prose = [" ".join(dice.choices(words, cum_weights=often, k=dice.randint(12, 45))) for _ in range(20000)]
    first = datetime(2020, 1, 1, tzinfo=UTC)
    for id in range(int(megabytes * 1e6 / ROW)):
        placed = (first + timedelta(seconds=97 * id)).isoformat()
        note = f"{dice.choice(prose)}. {dice.choice(prose)}."
        yield id, dice.randrange(20000), placed, f"{dice.random() * 10000:.2f}", round(dice.random(), 4), note


class Lab:
    """A database's container and a folder; nothing is left of either."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise Refused("this benchmark needs root", why="as which the program runs on servers")
        self.folder = folder
        self._app = f"bench-{secrets.token_hex(3)}"
        self._container = f"tidegate-{self._app}"
        self._engine = Engine(SOCKET)
        self._program = folder / "backup.pyz"

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / self._app).mkdir(parents=True)
        self._program.write_bytes(package.program())
        os.mkfifo(self.folder / "pipe")
        try:
            _call("docker", "run", "--detach", "--name", self._container, "--network=none", "--env=POSTGRES_HOST_AUTH_METHOD=trust",
                  f"--volume={self.folder}:{INSIDE}", IMAGE, "-c", "fsync=off", "-c", "max_wal_size=4GB")  # fmt: skip
            self._inside("sh", "-c", "until pg_isready -qh 127.0.0.1; do sleep 0.05; done")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self._container], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def fill(self, database: str, megabytes: float) -> float:
        """Make a PostgreSQL database of about that size; returns its real one."""
        self._sql("postgres", f"CREATE DATABASE {database}")
        self._sql(database, TABLE)
        copy = ["docker", "exec", "-i", self._container, *_psql(database), "-c", "COPY orders FROM STDIN"]
        with subprocess.Popen(copy, stdin=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            process.stdin.writelines("\t".join(map(str, one)) + "\n" for one in rows(megabytes))
        if process.returncode:
            raise Failed("the database could not be filled")
        self._sql(database, INDEX)
        self._sql(database, "VACUUM ANALYZE")
        return int(self._sql(database, f"SELECT pg_database_size('{database}')")) / 1e6

    def fill_sqlite(self, name: str, megabytes: float) -> float:
        """Make an SQLite file of about that size; returns its real one."""
        path = self.folder / name
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(TABLE)
            database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", rows(megabytes))
            database.execute(INDEX)
            database.commit()
        return path.stat().st_size / 1e6

    def postgres(self, database: str) -> Source:
        """Return a database as a source."""
        return Source("main", "postgres", container=self._container, user="postgres", database=database)

    def sqlite(self, name: str) -> Source:
        """Return a file as a source."""
        return Source("main", "sqlite", path=str(self.folder / name))

    def by_hand(self, database: str) -> float:
        """Save a database as one would by hand; returns the seconds."""
        return self._timed(f"docker exec {self._container} {_pg_dump(database)} | zstd -q -3 >by-hand.zst")

    def by_pipe(self, database: str) -> float:
        """Save it without the engine between the two: the least that can be."""
        dump = shlex.quote(f"exec {_pg_dump(database)} >{INSIDE}/pipe")
        return self._timed(f"docker exec {self._container} sh -c {dump} & zstd -q -3 <pipe >by-hand.zst; wait $!")

    def copy_by_hand(self, name: str) -> float:
        """Save an SQLite file by its online backup and zstd, and no more."""
        return self._timed(
            f"{_python()} -c {shlex.quote(SQLITE_COPY)} {name} by-hand.raw && zstd -q -3 by-hand.raw -o by-hand.zst"
        )

    def take(self, source: Source) -> Run:
        """Have the program take a backup; the one before it is gone, so that none is expired in between."""
        settings = Settings(self._app, "bench", "here", (source,), reserve=0, home=str(self.folder))
        shutil.rmtree(settings.folder / "backups", ignore_errors=True)
        file = settings.folder / "backup.json"
        file.write_text(settings.to_json())
        file.chmod(0o600)
        return self.watch("run")

    def watch(self, command: str, *arguments: str) -> Run:
        """Run a command of the program and watch what it takes."""
        argv = [
            _python(),
            "-I",
            str(self._program),
            command,
            "--app",
            self._app,
            "--home",
            str(self.folder),
            "--json",
            *arguments,
        ]
        marks: dict[str, float] = {}
        busy, begun = self._busy(), time.monotonic()
        with TemporaryFile() as words:
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=words)
            assert process.stdout is not None
            with _Watch(process.pid, self._engine, self._app) as watch, process.stdout as lines:
                for line in lines:
                    event = json.loads(line)
                    marks[_mark(event)] = time.monotonic() - begun
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its account is there until it is waited for
            seconds = time.monotonic() - begun
            cpu, children = _cpu(process.pid)
            if process.wait():
                words.seek(0)
                raise Failed(f"backup {command} failed", why=f"{event} {words.read().decode()}")
        return Run(seconds, marks.get("began", 0.0), marks.get("saved", 0.0), cpu, children, watch.toolbox(), self._busy() - busy,
                   watch.memory, event["value"].get("bytes", 0))  # fmt: skip

    def start(self) -> tuple[float, float]:
        """Return the seconds that `--version` takes, and those of a Python that does nothing."""
        return self._timed(f"{_python()} -I backup.pyz --version"), self._timed(f"{_python()} -I -c pass")

    def _timed(self, script: str) -> float:
        began = time.monotonic()
        _call("bash", "-o", "pipefail", "-c", script, cwd=self.folder)
        seconds = time.monotonic() - began
        for left in self.folder.glob("by-hand.*"):  # on the disk first: what it has to write must not slow down the next one
            subprocess.run(["sync", left], check=True)
            left.unlink()
        return seconds

    def _busy(self) -> float:
        """Return the CPU seconds that the database's server has taken."""
        return _nanoseconds(self._engine, self._container) / 1e9

    def _sql(self, database: str, text: str) -> str:
        return self._inside(*_psql(database), "-c", text)

    def _inside(self, *argv: str) -> str:
        return _call("docker", "exec", self._container, *argv)


class _Watch:
    """Looks at a process and its containers every moment, since neither can be asked afterwards."""

    def __init__(self, pid: int, engine: Engine, app: str) -> None:
        self.memory = 0.0
        self._pid, self._engine = pid, engine
        self._filters = quote(json.dumps({"label": [f"{LABEL}={app}"]}))
        self._nanoseconds: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def toolbox(self) -> float:
        """Return the CPU seconds of all containers, as of the last look at each: a little less than they took."""
        return sum(self._nanoseconds.values()) / 1e9

    def _look(self) -> None:
        while not self._done.wait(LOOK):
            peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self._pid}/status").read_text())
            self.memory = max(self.memory, int(peak[1]) / 1024 if peak else 0.0)
            for one in self._engine.call("GET", f"/containers/json?filters={self._filters}"):
                found = _nanoseconds(self._engine, one["Id"])
                self._nanoseconds[one["Id"]] = max(found, self._nanoseconds.get(one["Id"], 0))


def _nanoseconds(engine: Engine, container: str) -> int:
    """Return the CPU time of a container, 0 where it is gone."""
    try:
        known = engine.call("GET", f"/containers/{container}/stats?stream=0&one-shot=1")
    except EngineError:
        return 0
    return int(known["cpu_stats"]["cpu_usage"]["total_usage"]) if known else 0


def _mark(event: dict[str, Any]) -> str:
    text = str(event.get("text", ""))
    return "began" if text.startswith("saving ") else "saved" if text.endswith("; decoding them") else event["event"]


def _cpu(pid: int) -> tuple[float, float]:
    """Return the CPU seconds of a process, and of the children it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    own, own_system, children, children_system = (int(one) / os.sysconf("SC_CLK_TCK") for one in fields[11:15])
    return own + own_system, children + children_system


def _python() -> str:
    """Return the Python that a server would run it with."""
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def _psql(database: str) -> list[str]:
    return ["psql", "-XqAtv", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]


def _pg_dump(database: str) -> str:
    return f"pg_dump -U postgres -Fc -Z0 {database}"


def _call(*argv: str, cwd: Path | None = None) -> str:
    try:
        return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError as error:
        raise Refused(f"{argv[0]} is not installed here") from error
    except subprocess.CalledProcessError as error:
        raise Failed(f"{shlex.join(argv)} failed", why=error.stderr.strip()) from error
