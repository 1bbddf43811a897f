"""A restic repository, reached without a secret on a command line or on the disk. Restic 0.12 (Ubuntu 22.04) and later."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from backup.agent.errors import BackupError
from backup.agent.masks import masked
from backup.agent.model import Offsite, Settings
from backup.agent.streams import Argv, pipe

# Up to restic 0.16 only the words tell a repository that is not there from one that cannot be reached.
_ABSENT = re.compile(
    r"unable to open config file: .*(no such file|do(es not|esn't) exist|object not found|\b404\b)", re.IGNORECASE
)
_ABSENT_CODE = "ended with exit code 10"


class Absent(BackupError):
    """There is no repository at that place; one that cannot be reached is another matter."""


@dataclass(frozen=True)
class Snapshot:
    """A file in the repository: its snapshot's id, the tags by name, and the path it has there."""

    id: str
    path: str
    tags: dict[str, str]


class Restic:
    """The repository that the settings name."""

    def __init__(self, settings: Settings, offsite: Offsite, secrets: Sequence[int]) -> None:
        self._settings = settings
        self._keep = secrets
        files = dict(zip(("RESTIC_PASSWORD_FILE", "RESTIC_REPOSITORY_FILE"), (f"/dev/fd/{one}" for one in secrets), strict=True))
        self._environment = {**offsite.environment, **files, "RESTIC_CACHE_DIR": str(settings.folder / "restic-cache")}

    def run(self, *arguments: str, before: Sequence[Argv] = (), stdin: int | None = None) -> str:
        """Run restic, fed by programs when there are some, and return its output. Raises BackupError."""
        with tempfile.TemporaryFile() as out:
            self.stream([*before, ["restic", *arguments]], out.fileno(), stdin)
            out.seek(0)
            return out.read().decode("utf-8", "replace")

    def stream(self, stages: Sequence[Argv], stdout: int, stdin: int | None = None) -> None:
        """Run programs, restic among them, into a descriptor. Raises BackupError without a secret in it."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            pipe(stages, nothing if stdin is None else stdin, stdout, keep=self._keep, env=self._environment)
        except BackupError as error:
            absent = error.what.endswith(_ABSENT_CODE) or _ABSENT.search(error.why)
            raise (Absent if absent else BackupError)(error.what, masked(error.why, self._settings), error.fix) from None
        finally:
            os.close(nothing)

    def snapshots(self, tags: str) -> list[Snapshot]:
        """Return the snapshots that have all these tags, oldest first."""
        found: list[dict[str, Any]] = json.loads(self.run("snapshots", "--json", "--tag", tags)) or []
        return [
            Snapshot(one["id"], one["paths"][0], dict(tag.partition(":")[::2] for tag in one.get("tags") or ()))
            for one in sorted(found, key=lambda one: str(one["time"]))
        ]

    def save(self, path: str, tags: str, stdin: int, before: Sequence[Argv] = ()) -> tuple[str, int]:
        """Make a snapshot of what comes from a descriptor through programs; returns its id and the bytes. Raises BackupError.

        Restic takes the end of its input for success, so a snapshot made when a program failed has to be thrown away.
        """
        said = self.run("backup", "--json", "--quiet", "--stdin", "--stdin-filename", path, "--tag", tags,
                        "--host", self._settings.app, before=before, stdin=stdin)  # fmt: skip
        summary = next(json.loads(line) for line in reversed(said.splitlines()) if '"summary"' in line)
        return summary["snapshot_id"], summary["total_bytes_processed"]


@contextmanager
def opened(settings: Settings) -> Iterator[Restic]:
    """Hold password and address in memory, behind descriptors that restic reads like files. Raises BackupError."""
    if settings.offsite is None:
        raise BackupError("there is no off-site repository", fix="name one as [app.backup.offsite] in ops.toml")
    secrets: list[int] = []
    try:
        for text in (settings.offsite.password, settings.offsite.repository):
            secrets.append(os.memfd_create("restic"))
            os.write(secrets[-1], f"{text}\n".encode())
        yield Restic(settings, settings.offsite, secrets)
    finally:
        for one in secrets:
            os.close(one)
