"""Room on the disks that restored data goes to: one that fills up would stop the live app."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from backup.agent.errors import Refused
from backup.agent.model import Settings, Source
from backup.agent.places import Missing, find
from ops.agent.engine import Engine, EngineError

SPARE = 1.1


def require_room(settings: Settings, needs: Iterable[tuple[Source, int]]) -> None:
    """Refuse what would fill a disk; `needs` are the bytes that each source takes."""
    wanted: dict[int, tuple[Path, float]] = {}
    for source, size in needs:
        path = _where(settings, source)
        if path:
            device = os.stat(path).st_dev
            wanted[device] = (path, wanted.get(device, (path, 0.0))[1] + SPARE * size)
    for path, total in wanted.values():
        free, needed = shutil.disk_usage(path).free, int(total) + settings.reserve
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
            place = Path(engine.call("GET", "/info")["DockerRootDir"])
        else:
            return None
    except (Missing, EngineError):
        return None  # whoever restores it there says so
    return place if place.exists() else None
