"""What the demo shows: lines as they come and, on a terminal, a live table of what users see below them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deploy.demo_story import Row
from deploy.demo_users import Crowd, Seen
from ops.console import Console

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("command", "result", "exit", "seconds", "requests", "failed", "p99", "then serves")
_STYLES = {"✓": "green", "✗": "red", "!": "yellow", "·": "dim"}


class View:
    """The terminal of the demo."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._doing = "nothing else happens"

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
        self._doing = "nothing else happens"
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

        table = Table(title=f"what users see while: {self._doing}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for column in ("server", "answers from", "slot", "requests", "failed", "p50", "p99"):
            table.add_column(column, justify="right" if column in ("requests", "failed", "p50", "p99") else "left")
        for one in crowd.users:
            now = one.now()
            failed = f"[{'red' if now.failures else 'green'}]{now.failures}[/]"
            table.add_row(one.server.name, one.serving, one.slot, str(now.requests), failed, _ms(now.p50), _ms(now.p99))
        return table

    def tell(self, rows: Sequence[Row], document: Mapping[str, Any]) -> None:
        """Show what happened, what users saw, and what to do next."""
        self.title("what happened")
        self.console.table("", COLUMNS, map(cells, rows))
        users = document["users"].values()
        if not users:
            return
        requests, failures, posts = (sum(one[key] for one in users) for key in ("requests", "failures", "acknowledged_posts"))
        self.line(f"{'✗' if failures else '✓'} users sent {requests} requests; {failures} failed")
        for one in users:
            for kind, example in one["examples"].items():
                self.line(f"    ✗ {one['reasons'][kind]} × {kind}: {example}")
        self.line(
            f"{'✗' if document['lost_posts'] else '✓'} {posts} posts were acknowledged; {len(document['lost_posts'])} are lost"
        )
        self.line(f"{'✓ all as it should be' if document['ok'] else '✗ not as it should be'}, after {document['seconds']:.0f} s")


def cells(row: Row) -> tuple[object, ...]:
    """Return a row of the table."""
    seen = (row.requests, row.failures, f"{row.p99 * 1000:.0f} ms") if row.requests else ("",) * 3
    result = f"{'✓' if row.well else '✗'} {'failed, undone' if row.code else 'done'}"
    return (row.command, result, row.code, f"{row.seconds:.1f}", *seen, ", ".join(sorted(set(row.serving))))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
