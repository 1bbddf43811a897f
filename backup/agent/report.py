"""What a run says while it works: JSON lines for `inv`, plain lines for the log of a schedule."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, TextIO


class Report:
    """Where progress goes; with `as_json` one object a line."""

    def __init__(self, out: TextIO | None = None, *, as_json: bool = False) -> None:
        self._out = out or sys.stdout
        self._json = as_json
        self._last = 0.0

    def say(self, text: str) -> None:
        """Tell of a step."""
        self._write("say", text, text=text)

    def warn(self, text: str) -> None:
        """Tell of something that does not stop the run and that somebody should know."""
        self._write("warn", f"warning: {text}", text=text)

    def bytes(self, source: str, done: int, total: int) -> None:
        """Tell how many bytes of a source are written; `total` is an estimate, 0 where nobody knows. Twice a second at most."""
        if self._json and time.monotonic() - self._last > 0.5:
            self._last = time.monotonic()
            self._write("bytes", "", source=source, done=done, total=total)

    def result(self, value: Any) -> None:
        """Give the result, last."""
        self._write("result", json.dumps(value, indent=1, sort_keys=True), value=value)

    def error(self, what: str, why: str, fix: str, code: int) -> None:
        """Tell why it failed, last."""
        self._write("error", f"failed: {what}" + (f": {why}" if why else ""), what=what, why=why, fix=fix, code=code)

    def _write(self, event: str, plain: str, **fields: Any) -> None:
        try:
            print(json.dumps({"event": event, **fields}) if self._json else plain, file=self._out, flush=True)
        except OSError:
            pass  # nobody listens any more, or the log's disk is full; that must not keep anything from being finished or undone
