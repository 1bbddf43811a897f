"""Signals that ask us to stop, as one exception that leaves time to undo."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future, wait
from types import FrameType
from typing import Any

_PATIENCE = b"please wait: this is being brought to an end that leaves nothing half done\n"

_STEP = 0.2


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


def wait_for(futures: Collection[Future[Any]], return_when: str = ALL_COMPLETED) -> None:
    """Wait as `concurrent.futures.wait` does, and be interrupted whatever comes.

    Of two signals at once, as a closing terminal or a service manager sends them, none may wake a thread that waits without end.
    """
    while True:
        done, left = wait(futures, _STEP, return_when)
        if not left or (return_when == FIRST_EXCEPTION and any(one.exception() for one in done)):
            return


def _handle(number: int, frame: FrameType | None) -> None:
    if _Interrupts.allowed:
        _Interrupts.allowed = False
        raise KeyboardInterrupt
    try:
        os.write(2, _PATIENCE)
    except OSError:
        pass  # the terminal is gone; that is why we were asked
