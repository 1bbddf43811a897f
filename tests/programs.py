"""Programs of this machine that a test replaces: real ones, first on the PATH, that write down how they were called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


class Programs:
    """A folder of programs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "programs"
        self.folder.mkdir()
        self._log = folder / "called"
        monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")

    def add(self, name: str, script: str = "") -> None:
        """Have a program that runs these lines of shell."""
        program = self.folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._log}\n{script}\n')
        program.chmod(0o755)

    @property
    def called(self) -> list[str]:
        """Return the command lines so far."""
        return self._log.read_text().splitlines() if self._log.exists() else []
