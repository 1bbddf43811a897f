"""Signals that ask us to stop, as one exception that leaves time to undo."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


def interrupt_once(say: Callable[[str], None]) -> None:
    """Let Ctrl-C, SIGTERM and a lost terminal raise KeyboardInterrupt the first time; after that the undo is not disturbed."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            say("already stopping; please wait until everything is undone")
            return
        asked = True
        raise KeyboardInterrupt

    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, handle)
