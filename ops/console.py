"""What people see: lines, tables and questions on the terminal, or one JSON document for scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ops.program import called

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

PIPE_WIDTH = 250  # a log or a pipe has no width of its own; tables are not folded there

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "bold green": "1;32", "bold red": "1;31"}


def _put(out: TextIO, text: str) -> None:
    """Write in one go: several threads tell of several servers."""
    out.write(text)
    out.flush()


class Console:
    """The terminal; with `as_json`, people's output goes to standard error and only the document to standard output."""

    def __init__(self, *, as_json: bool = False, assume_yes: bool = False) -> None:
        self.as_json = as_json
        self.environ: Mapping[str, str] = os.environ  # of a command: with the secrets that no program it starts sees
        self._assume_yes = assume_yes

    @cached_property
    def rich(self) -> RichConsole:
        """Return rich's console, loaded when the first line is printed."""
        from rich.console import Console as RichConsole

        console = RichConsole(stderr=self.as_json, highlight=False, soft_wrap=True)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = PIPE_WIDTH
        return console

    def say(self, text: str, style: str = "") -> None:
        """Print a line of ours; its commands are told as people here type them."""
        self.quote(called(text), style)

    def quote(self, text: str, style: str = "") -> None:
        """Print a line, literally but for control characters, with a style where a terminal shows it."""
        out = sys.stderr if self.as_json else sys.stdout
        clean = "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
        coloured = style and out.isatty() and "NO_COLOR" not in os.environ
        self._write(lambda: _put(out, f"\033[{STYLES[style]}m{clean}\033[0m\n" if coloured else f"{clean}\n"))

    @staticmethod
    def _write(action: Callable[[], None]) -> None:
        """Write, and go on in silence once nobody reads: a lost terminal must not stop an undo."""
        try:
            action()
        except OSError:
            sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # until the process ends

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text("" if cell is None else called(str(cell))) for cell in row))
        self._write(lambda: self.rich.print(table))

    def document(self, value: Any) -> None:
        """Print the JSON document when scripts asked for one."""
        if self.as_json:
            self._write(lambda: print(json.dumps(value, indent=1, sort_keys=True), flush=True))

    def line(self, value: Any) -> None:
        """Print one of many JSON values, each on a line of its own, when scripts asked for them."""
        if self.as_json:
            self._write(lambda: print(json.dumps(value, sort_keys=True), flush=True))

    def confirm(self, question: str, *, in_person: bool = False) -> bool:
        """Ask yes or no; without a terminal the answer is no, unless `--yes` was given, which is not enough `in_person`."""
        if self._assume_yes and not in_person:
            return True
        if not sys.stdin.isatty():
            hint = "this needs a person at a terminal" if in_person else "no terminal to ask on: give --yes to agree"
            self.say(f"{question} {hint}", "yellow")
            return False
        sys.stderr.write(f"{called(question)} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
