"""What the demo shows: lines as they come and, on a terminal, a live table of what users see below them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.demo_users import Crowd, Seen
from ops.console import Console

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"✓": "green", "✗": "red", "!": "yellow", "·": "dim"}


class View:
    """The terminal of the demo."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._doing = ""

    def title(self, text: str) -> None:
        """Say what comes next."""
        self.console.say(f"\n── {text}", "bold")

    def typed(self, command: str) -> None:
        """Show a command as somebody types it."""
        self._doing = command
        self.console.say(f"$ {command}", "bold")

    def line(self, text: str) -> None:
        """Pass on a line of a command, in the colour of its mark."""
        self.console.say(text, _STYLES.get(text.strip()[:1], ""))

    def saw(self, seen: Seen) -> None:
        """Say what users saw of the command that ended."""
        style = "red" if seen.failures else "green"
        self.console.say(f"  users meanwhile: {seen.requests} requests, {seen.failures} failed, "
                         f"p50 {seen.p50 * 1000:.1f} ms, p99 {seen.p99 * 1000:.1f} ms", style)  # fmt: skip

    @contextmanager
    def watching(self, crowd: Crowd) -> Iterator[None]:
        """Keep the live table below the lines, where there is a terminal."""
        if not self.console.rich.is_terminal:
            yield
            return
        from rich.live import Live

        with Live(get_renderable=lambda: self._table(crowd), console=self.console.rich, refresh_per_second=4, transient=True):
            yield

    def _table(self, crowd: Crowd) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(title=f"users, while: {self._doing}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for column in ("server", "answers from", "slot", "requests", "failed", "p50", "p99"):
            table.add_column(column, justify="right" if column in ("requests", "failed", "p50", "p99") else "left")
        for one in crowd.users:
            now = one.now()
            failed = f"[{'red' if now.failures else 'green'}]{now.failures}[/]"
            table.add_row(one.server.name, one.serving, one.slot, str(now.requests), failed, _ms(now.p50), _ms(now.p99))
        return table

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table."""
        self.console.table(title, columns, rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
