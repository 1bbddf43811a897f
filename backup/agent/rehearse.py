"""Rehearsing: the next image's migration, run on the restored backup where it can harm nobody, and timed.

Its container has the app's mounts, each a throwaway volume, and no network; with a database, that of a throwaway server
which answers to the live one's names, so that the app's own settings lead it there.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from backup.agent import mariadb_sql
from backup.agent.directory import DirectoryTrial
from backup.agent.errors import BackupError, Refused
from backup.agent.mariadb_restore import MariaDbTrial
from backup.agent.mariadb_tools import client
from backup.agent.model import Settings, Source
from backup.agent.places import find
from backup.agent.postgres_restore import PostgresTrial
from backup.agent.report import Report
from backup.agent.room import require_trial_room
from backup.agent.source import Driver, Kinds, Saved
from backup.agent.sqlite import SqliteTrial
from backup.agent.sqlite_read import connect
from backup.agent.store import Backup, Store
from backup.agent.toolbox import FOLDER_LABEL, LABEL
from backup.agent.verify import check_sums, source_of
from ops.agent import waits
from ops.agent.engine import Engine, EngineError

PREFIX = "tidegate-rehearsal-"
LAST_LINES = 40
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
DATABASES = ("postgres", "mariadb")


@dataclass(frozen=True)
class Rehearsal:
    """What is to run: an image's command with the app's environment; `volumes` maps the app's volumes to where it has them."""

    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    volumes: Mapping[str, str]
    id: str = ""
    timeout: float = 600.0
    identity: int | None = None


@dataclass(frozen=True)
class Stood:
    """A source restored for the rehearsal: the driver that looks at the copy, and how its rows are counted."""

    driver: Driver
    source: Source
    trial: PostgresTrial | MariaDbTrial | None = None

    def counts(self, engine: Engine) -> dict[str, int]:
        """Return the exact rows per table."""
        if self.trial:
            return dict(self.trial.counts())
        place = find(self.source, engine)
        if self.source.kind == "directory":
            return dict(DirectoryTrial(self.source.name, place).counts())
        with closing(connect(place.path, "mode=rw")) as database:
            return dict(SqliteTrial(self.source.name, database).counts())


class Rehearse:
    """Rehearses an app's migration on this server; the caller holds the store's lock."""

    def __init__(self, settings: Settings, kinds: Kinds, store: Store, report: Report) -> None:
        self._settings = settings
        self._kinds = kinds
        self._store = store
        self._report = report
        self._engine = Engine(settings.engine)

    def rehearse(self, wanted: Rehearsal) -> dict[str, Any]:
        """Restore the backup (the newest good one), run the migration on it, and tell what it did. Raises BackupError."""
        try:
            return self._rehearse(wanted)
        except EngineError as error:
            raise BackupError("the engine failed during the rehearsal", str(error)) from error

    def _rehearse(self, wanted: Rehearsal) -> dict[str, Any]:
        backup = self._store.get(wanted.id) if wanted.id else self._newest()
        sources = self._sources(backup, wanted)
        check_sums(backup, self._report, tuple(sources))
        self._sweep()
        began = time.monotonic()
        with ExitStack() as stack:
            work = stack.enter_context(self._work(backup.id))
            require_trial_room(self._settings, [one for one in backup.manifest.items if one.source in sources], work)
            trials = {name: stack.enter_context(self._trial(one, backup, work, wanted)) for name, one in sources.items()
                      if one.kind in DATABASES}  # fmt: skip
            name = f"{PREFIX}{secrets.token_hex(4)}"
            volumes = stack.enter_context(self._container(name, wanted, next(iter(trials.values()), None), work))
            stood = {name: trials[name] if name in trials else self._stand(one, backup, wanted, volumes)
                     for name, one in sources.items()}  # fmt: skip
            before = {name: (one.counts(self._engine), one.driver.state().schema) for name, one in stood.items()}
            restored = round(time.monotonic() - began, 3)
            self._report.say(f"running {' '.join(wanted.command)}")
            code, seconds, said = self._run(name, wanted.timeout)
            after = {name: (one.counts(self._engine), one.driver.state().schema) for name, one in stood.items()}
        changed = [name for name in stood if before[name][1] != after[name][1]]
        return {
            "backup": backup.id, "taken": backup.manifest.started, "restored_seconds": restored, "seconds": seconds, "exit_code": code,
            "said": said, "counts_before": _flat(before), "counts_after": _flat(after), "schema_changed": bool(changed),
            "changed": changed,
        }  # fmt: skip

    def _newest(self) -> Backup:
        good = [one for one in self._store.backups()[0] if one.whole]
        if not good:
            raise BackupError("there is no good backup to rehearse on", fix="inv backup.run")
        return good[-1]

    def _sources(self, backup: Backup, wanted: Rehearsal) -> dict[str, Source]:
        """Return the sources that the migration can reach; those outside the app's volumes it has never seen."""
        if backup.manifest.encrypted and wanted.identity is None:
            raise Refused(f"{backup.id} is encrypted", "no identity was given", "name it as backup.identity in ops.toml")
        known = {item.source: source_of(self._settings, item) for item in backup.manifest.items}
        databases = [name for name, one in known.items() if one.kind in DATABASES]
        if len(databases) > 1:
            raise Refused("a rehearsal has room for one database", f"{backup.id} has {', '.join(databases)}")
        return {name: one for name, one in known.items() if one.kind in DATABASES or one.volume in wanted.volumes}

    @contextmanager
    def _work(self, id: str) -> Iterator[Path]:
        """Make a folder that is swept when we are killed; its lock tells others that we live."""
        work = self._store.folder / f".partial-rehearsal-{id}"
        work.mkdir(mode=0o700)
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield work
        finally:
            os.close(lock)
            shutil.rmtree(work)

    @contextmanager
    def _trial(self, source: Source, backup: Backup, work: Path, wanted: Rehearsal) -> Iterator[Stood]:
        """Restore a database into a throwaway server that answers to the names of the live one."""
        self._report.say(f"restoring {source.name} into a throwaway server")
        item = backup.manifest.item(source.name)
        assert item is not None
        driver = self._kinds.driver(self._settings, source)
        with driver.trial(Saved(item, backup.folder, self._report, wanted.identity), work) as trial:
            assert isinstance(trial, PostgresTrial | MariaDbTrial)
            names = self._names(source)
            lines = "".join(f"127.0.0.1 {name}\n" for name in names)
            trial.box.run(["sh", "-c", "cat >>/etc/hosts"], lines)
            there = replace(source, container=trial.container, address="", port=0)
            if isinstance(trial, MariaDbTrial):
                there = replace(there, user="tidegate_rehearsal", password=secrets.token_hex(16))
                trial.box.run(client(""), _users((source, there), wanted.environment, names))
            yield Stood(self._kinds.driver(self._settings, there), there, trial)

    def _names(self, source: Source) -> tuple[str, ...]:
        """Return the names under which the app may know the database."""
        if not source.container:
            found = {source.address}
        else:
            known = self._engine.inspect(source.container)
            networks = known["NetworkSettings"]["Networks"].values()
            found = {known["Name"].lstrip("/"), known["Config"]["Hostname"]}
            found |= {name for one in networks for key in ("Aliases", "DNSNames") for name in one.get(key) or ()}
        return tuple(sorted(name for name in found if HOST.fullmatch(name) and not name.replace(".", "").isdigit()))

    @contextmanager
    def _container(self, name: str, wanted: Rehearsal, database: Stood | None, work: Path) -> Iterator[dict[str, str]]:
        """Create the migration's container with a throwaway volume for each of the app's; yields which is whose."""
        volumes = {volume: f"{name}-{number}" for number, volume in enumerate(wanted.volumes)}
        labels = {LABEL: self._settings.app, FOLDER_LABEL: str(work)}
        body = {
            "Image": wanted.image,
            "Cmd": list(wanted.command),
            "Env": [f"{key}={value}" for key, value in wanted.environment.items()],
            "Labels": labels,
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {
                "Mounts": [{"Type": "volume", "Source": volumes[one], "Target": path} for one, path in wanted.volumes.items()],
                "NetworkMode": f"container:{database.trial.container}" if database and database.trial else "none",
                "SecurityOpt": ["no-new-privileges"],
                "Init": True,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
            },
        }
        try:
            for one in volumes.values():
                self._engine.call("POST", "/volumes/create", 60.0, {"Name": one, "Labels": {LABEL: self._settings.app}})
            self._engine.call("POST", f"/containers/create?name={quote(name)}", 60.0, body)
            for live, one in volumes.items():
                self._lend(live, one)
            yield volumes
        finally:
            self._remove([name], list(volumes.values()))

    def _lend(self, live: str, volume: str) -> None:
        """Give a throwaway volume the live one's owner and mode; without a live one the image's are kept."""
        try:
            known = Path(self._engine.call("GET", f"/volumes/{quote(live)}")["Mountpoint"]).stat()
        except EngineError:
            return
        path = self._engine.call("GET", f"/volumes/{quote(volume)}")["Mountpoint"]
        os.chown(path, known.st_uid, known.st_gid)
        os.chmod(path, known.st_mode & 0o7777)

    def _stand(self, source: Source, backup: Backup, wanted: Rehearsal, volumes: Mapping[str, str]) -> Stood:
        """Restore a file or folder into the throwaway volume, by the same steps as beside the live one."""
        self._report.say(f"restoring {source.name} into a throwaway volume")
        item = backup.manifest.item(source.name)
        assert item is not None
        there = replace(source, volume=volumes[source.volume])
        place = find(there, self._engine)
        if source.path.strip("/"):
            _make_folders(place.root, place.names[:-1])
        driver = self._kinds.driver(self._settings, there)
        driver.beside(Saved(item, backup.folder, self._report, wanted.identity), "rehearsal").swap()
        return Stood(driver, there)

    def _run(self, name: str, timeout: float) -> tuple[int, float, str]:
        began = time.monotonic()
        self._engine.call("POST", f"/containers/{name}/start", 60.0)
        found = waits.ended(self._engine, name, timeout, threading.Event())
        seconds, said = round(time.monotonic() - began, 3), self._engine.logs(name, LAST_LINES)
        if "code" not in found:
            raise BackupError(f"the migration did not end within {timeout:.0f} s", said)
        return found["code"], seconds, said

    def _sweep(self) -> None:
        """Remove what killed rehearsals of this app left."""
        filters = quote('{"label":["%s=%s"]}' % (LABEL, self._settings.app))  # noqa: UP031  # braces
        known = self._engine.call("GET", f"/containers/json?all=1&filters={filters}")
        containers = [name.lstrip("/") for one in known for name in one["Names"] if name.startswith(f"/{PREFIX}")]
        volumes = self._engine.call("GET", f"/volumes?filters={filters}")["Volumes"] or []
        self._remove(containers, [one["Name"] for one in volumes if one["Name"].startswith(PREFIX)])

    def _remove(self, containers: list[str], volumes: list[str]) -> None:
        """Remove containers and volumes; those already gone are fine."""
        for name in containers:
            self._engine.sequence([["DELETE", f"/containers/{quote(name)}?force=1&v=1", None, [404], 60.0]])
        for name in volumes:
            self._engine.sequence([["DELETE", f"/volumes/{quote(name)}?force=1", None, [404], 60.0]])


def _flat(looked: Mapping[str, tuple[Mapping[str, int], str]]) -> dict[str, int]:
    return {f"{source} {table}": number for source, (counts, _) in looked.items() for table, number in counts.items()}


def _make_folders(root: Path, names: tuple[str, ...]) -> None:
    """Make the folders above a file, as their volume is."""
    known, here = root.stat(), root
    for name in names:
        here /= name
        here.mkdir(exist_ok=True)
        os.chown(here, known.st_uid, known.st_gid)


def _users(sources: Sequence[Source], environment: Mapping[str, str], hosts: tuple[str, ...]) -> str:
    """Return what lets in whom the app may log in as: the sources' users, and those of URLs that lead to the database."""
    found = {one.user: one.password for one in sources}
    for value in environment.values():
        try:
            url = urlsplit(value)
            if url.username and url.hostname in hosts:
                found[unquote(url.username)] = unquote(url.password or "")
        except ValueError:
            continue  # not a URL
    text = mariadb_sql.literal
    return "".join(
        f"CREATE USER IF NOT EXISTS {text(user)}@'%' IDENTIFIED BY {text(password)};\n"
        f"GRANT ALL PRIVILEGES ON *.* TO {text(user)}@'%';\n"
        for user, password in found.items() if user not in ("", "root")
    )  # fmt: skip
