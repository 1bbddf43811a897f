"""Signals that ask us to stop, as one exception that leaves time to undo."""

from __future__ import annotations

import os
import signal
from types import FrameType

_PATIENCE = b"please wait: this is being brought to an end that leaves nothing half done\n"


class _Interrupts:
    """Whether a signal may still interrupt."""

    allowed = False


def interrupt_once() -> None:
    """Let Ctrl-C, SIGTERM or a lost terminal raise KeyboardInterrupt, once, and until `no_more_interrupts`."""
    _Interrupts.allowed = True
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _handle)


def no_more_interrupts() -> None:
    """From here on signals are only answered: an undo, or the end of what is decided, must not be cut short."""
    _Interrupts.allowed = False


def _handle(number: int, frame: FrameType | None) -> None:
    if _Interrupts.allowed:
        _Interrupts.allowed = False
        raise KeyboardInterrupt
    try:
        os.write(2, _PATIENCE)
    except OSError:
        pass  # the terminal is gone; that is why we were asked
