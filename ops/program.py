"""The tasks as a program of their own, `tidegate`, for whoever wants no clone; and by which name messages call it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invoke import Collection, Program

ROOT = Path(__file__).resolve().parent.parent
CLONE, WHEEL = "inv", "tidegate"
NAME = WHEEL if ROOT.name == "_app" else CLONE  # as the wheel lays it out
TASKS = ("audit", "backup", "config", "coverage", "deploy", "docker", "init", "monitoring", "sandbox", "server", "services")
_COMMAND = re.compile(rf"(?<![\w./-]){CLONE}(?= (?:{'|'.join(TASKS)})\b)")


def called(text: str, program: str = NAME) -> str:
    """Return a message with its commands as people here type them: messages are written with `inv`, as documents are."""
    return text if program == CLONE else _COMMAND.sub(program, text)


def program(namespace: Collection) -> Program:
    """Return the program that has these tasks for subcommands."""
    from invoke import Exit, Program

    class Tidegate(Program):
        """What `inv` does, without looking for tasks."""

        def print_version(self) -> None:
            """Say where it is, too: documents and examples are beside it."""
            from ops.version import version

            print(f"{self.name} {version()} from {ROOT}")

        def execute(self) -> None:
            """Run what was asked for."""
            try:
                super().execute()
            except Exit as ended:
                raise Exit(called(ended.message or ""), ended.code) from None

    return Tidegate(namespace=namespace, name="Tidegate", binary=WHEEL, binary_names=[WHEEL])
