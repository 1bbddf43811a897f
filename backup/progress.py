"""What happens on servers while it happens: lines and bars."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ops.console import Console

EVERY = 10.0  # seconds between two lines about bytes where there is no terminal to draw on


class Printer:
    """Tells what happens on which server; a context manager around what it tells of. With a terminal it draws bars."""

    def __init__(self, console: Console, servers: int) -> None:
        self._console = console
        self._several = servers > 1
        self._drawing = threading.Lock()  # events arrive in a thread per server
        self._progress: Any = None
        self._bars: dict[tuple[str, str], Any] = {}
        self._meters: dict[tuple[str, str], Meter] = {}

    def __enter__(self) -> Printer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._drawing:
            if self._progress:
                self._progress.stop()
            self._progress, self._bars, self._meters = None, {}, {}

    def event(self, server: str, event: Mapping[str, Any]) -> None:
        """Tell of an event of the program there."""
        if event["event"] == "bytes":
            self.bytes(server, event["source"], event["done"], event["total"])
        elif event["event"] == "warn":
            self._say(server, f"! {event['text']}", "yellow")
        elif "text" in event:
            self._say(server, f"· {event['text']}", "")

    def note(self, server: str, text: str) -> None:
        """Tell of a step of ours."""
        self._say(server, f"· {text}", "")

    def bytes(self, server: str, what: str, done: int, total: int) -> None:
        """Tell how many bytes there are of something; `total` is 0 where nobody knows."""
        with self._drawing:
            if self._console.rich.is_terminal:
                self._move_bar(server, what, done, total)
                return
            meter = self._meters.setdefault((server, what), Meter())
            line = meter.line(done, total, time.monotonic())
        if line:
            self._say(server, f"  {what}: {line}", "dim")

    def _say(self, server: str, text: str, style: str) -> None:
        self._console.say(f"  {server}: {text}" if self._several else f"  {text}", style)

    def _move_bar(self, server: str, what: str, done: int, total: int) -> None:
        if self._progress is None:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

            columns = (TextColumn("      {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                       TimeRemainingColumn())  # fmt: skip
            self._progress = Progress(*columns, console=self._console.rich, transient=True)
            self._progress.start()
        bar = self._bars.get((server, what))
        if bar is None:
            name = f"{server}: {what}" if self._several else what
            bar = self._bars[server, what] = self._progress.add_task(name, total=None)
        self._progress.update(bar, completed=done, total=max(total, done) if total else None)


class Meter:
    """Bytes, rate and time left as a line, now and then."""

    def __init__(self) -> None:
        self._begun: tuple[float, int] | None = None
        self._last = 0.0

    def line(self, done: int, total: int, now: float) -> str:
        """Return the line, or nothing where the last one is not old enough."""
        if self._begun is None:
            self._begun, self._last = (now, done), now
        if now - self._last < EVERY:
            return ""
        self._last = now
        began, before = self._begun
        rate = (done - before) / (now - began)
        left = f", {span((total - done) / rate)} left" if rate and total > done else ""
        return f"{size(done)}{f' of about {size(total)}' if total else ''}, {size(rate)}/s{left}"


def size(amount: float) -> str:
    """Return bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def span(seconds: float) -> str:
    """Return a length of time in words."""
    minutes, hours = divmod(round(seconds), 60)[0], round(seconds) // 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
