"""How far a restore is: what restore.json says, so that whoever finds it there can finish it.

beside     copies lie beside the live data, the app serves          → remove the copies
paused     nginx answers 503 for the app, its containers run        → nginx back, remove the copies
swapping   containers stopped or stopping, sources may be swapped   → swap back, start, nginx back, remove the copies
resuming   all swapped, containers starting on the restored data    → the same
done       the app was healthy on it; users may write to it         → nginx back; the restored data stays
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backup.agent.errors import NeedsPerson
from backup.agent.model import Source
from backup.agent.writers import Paused
from ops.agent import files

BESIDE, PAUSED, SWAPPING, RESUMING, DONE = "beside", "paused", "swapping", "resuming", "done"


@dataclass(frozen=True)
class Begun:
    """What restore.json holds. The sources are in it as they were, whatever becomes of the settings."""

    id: str
    tag: str
    operation: str
    by: str
    started: str
    sources: tuple[Source, ...]
    phase: str = BESIDE
    safety: str = ""
    paused: Paused = field(default_factory=Paused)
    kept: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Begun | None:
        """Return the restore that is under way, if one is. Raises NeedsPerson when the file is not ours."""
        text = files.read(str(path))
        if text is None:
            return None
        try:
            known = json.loads(text)
            sources = tuple(Source(**{**one, "exclude": tuple(one["exclude"])}) for one in known.pop("sources"))
            return Begun(**{**known, "sources": sources, "paused": Paused.from_json(known["paused"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NeedsPerson(f"{path} cannot be read", str(error), "look what is swapped by hand, then remove it") from error

    def write(self, path: Path) -> Begun:
        """Make it what is known if we die now."""
        files.write(str(path), json.dumps(asdict(self), indent=1))
        return self


def stands(begun: Begun | None) -> str:
    """Say what is so while a restore is half done."""
    if begun is None:
        return "Nothing is left of it"
    app = ", ".join(one.name for one in begun.paused.containers) or "no container of the app"
    data = ", ".join(one.name for one in begun.sources)
    return {
        BESIDE: f"The live data was not touched; copies named {begun.tag} may lie beside it",
        PAUSED: f"The live data was not touched; nginx may answer 503 for the app; {app} runs",
        DONE: f"The restored data of {data} is in place; nginx may answer 503 for the app",
    }.get(begun.phase, f"{data} may be swapped (tag {begun.tag}); {app} may be stopped; nginx may answer 503 for the app")
