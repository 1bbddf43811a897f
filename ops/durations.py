"""Durations ("100ms", "30s", "10m", "1h", "7d") and sizes ("512m") as people write them."""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15})([bkmg]?)", re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}

A_DURATION = 'a duration such as "500ms", "30s", "10m" or "1h"'
A_PERIOD = 'a period such as "12h", "7d" or "365d"'
A_SIZE = 'a size such as "512k", "64m" or "2g"'


def seconds(value: object) -> float:
    """Return a duration in seconds; a bare number is seconds. Raises ValueError saying what was expected.

    >>> seconds("500ms"), seconds("10m"), seconds(3)
    (0.5, 600.0, 3.0)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(float(value))
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(A_DURATION)
    return _finite(round(float(match[1]) * _UNITS[match[2]], 6))


def period(value: object) -> float:
    """Return a period of hours or days in seconds; "0" is none. Raises ValueError saying what was expected."""
    try:
        return 0.0 if value == "0" else seconds(value)
    except ValueError:
        raise ValueError(A_PERIOD) from None


def size(value: object) -> str:
    """Return a size in the form Docker and nginx share (lower case). Raises ValueError saying what was expected."""
    if not isinstance(value, str) or _SIZE.fullmatch(value) is None:
        raise ValueError(A_SIZE)
    return value.lower()


def size_bytes(text: str) -> int:
    """Return the number of bytes that a size means."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(A_SIZE)
    return int(match[1]) * _FACTORS[match[2].lower()]


def duration_text(value: float) -> str:
    """Return seconds as people write them: the largest unit that divides them evenly.

    >>> duration_text(5400), duration_text(7200), duration_text(0.25)
    ('90m', '2h', '250ms')
    """
    milliseconds = round(value * 1000)
    for unit in ("d", "h", "m", "s"):
        whole, rest = divmod(milliseconds, round(_UNITS[unit] * 1000))
        if whole and not rest:
            return f"{whole}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _finite(value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(A_DURATION)
    return value
