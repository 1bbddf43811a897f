"""Room on the disks that restored data goes to: one that fills up would stop the live app."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from backup.agent.errors import Refused, Untried
from backup.agent.model import Item, Settings, Source
from backup.agent.places import Missing, find
from backup.agent.programs import asked
from ops.agent.engine import Engine, EngineError

SPARE = 1.1
DATA = {"postgres": "/var/lib/postgresql/data", "mariadb": "/var/lib/mysql"}  # where the images have a server's data


def require_room(settings: Settings, needs: Iterable[tuple[Source, int]]) -> None:
    """Refuse what would fill a disk; `needs` are the bytes that each source takes."""
    wanted: dict[int, tuple[Path, float]] = {}
    for source, size in needs:
        path = _where(settings, source)
        if path:
            device = os.stat(path).st_dev
            wanted[device] = (path, wanted.get(device, (path, 0.0))[1] + SPARE * size)
    for path, total in wanted.values():
        _require(path, int(total), settings)


def require_trial_room(settings: Settings, items: Iterable[Item], work: Path) -> None:
    """Refuse a throwaway restore that would fill the engine's disk or that of the work folder. Raises Untried."""
    for item in items:
        path = _of_engine(Engine(settings.engine)) if item.kind in DATA else work
        if path.exists():
            try:
                _require(path, int(SPARE * item.restored), settings)
            except Refused as error:  # which says nothing about the backup
                raise Untried(error.what, error.why, error.fix) from error


def _require(path: Path, size: int, settings: Settings) -> None:
    free, needed = shutil.disk_usage(path).free, size + settings.reserve
    if free < needed:
        raise Refused(f"{free // 1024**2} MB are free where the restored data goes, {needed // 1024**2} MB are needed",
                      f"as much as the live data takes, and the reserve of {settings.reserve // 1024**2} MB below {path}",
                      "make room, or lower backup.reserve")  # fmt: skip


def _where(settings: Settings, source: Source) -> Path | None:
    """Return the disk that a source is on, None where that is another machine's."""
    engine = Engine(settings.engine)
    try:
        if source.volume:
            place = find(source, engine).root
        elif source.path:
            place = Path(source.path).parent
        elif source.container:
            place = _of_container(engine, source)
        else:
            return None
    except (Missing, EngineError, Untried):
        return None  # whoever restores it there says so
    return place if place.exists() else None


def _of_container(engine: Engine, source: Source) -> Path:
    """Return where a database server in a container has its data on this machine."""
    known = engine.inspect(source.container)
    set_to = dict(one.partition("=")[::2] for one in known["Config"]["Env"] or ())
    data = Path(set_to.get("PGDATA") or DATA[source.kind])
    above = [one for one in known["Mounts"] if one.get("Source") and data.is_relative_to(one["Destination"])]
    found = max(above, key=lambda one: len(one["Destination"]), default=None)
    return Path(found["Source"]) if found else _of_engine(engine)


def _of_engine(engine: Engine) -> Path:
    return Path(asked(engine, "GET", "/info")["DockerRootDir"])
