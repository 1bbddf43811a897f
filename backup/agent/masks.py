"""Keeping secrets out of what is said, noted and sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

from backup.agent.model import Settings

MASK = "********"
SHORTEST = 4  # anything shorter is found everywhere and protects nothing


def masked(text: str, settings: Settings) -> str:
    """Return a text with a mask in place of every secret of the settings."""
    return hide(text, _secrets(settings))


def masked_url(text: str, url: str) -> str:
    """Mask a URL and every telling part of it, as it stands and as a URL encodes it: for what is said about that URL."""
    scheme, _, rest = url.partition("://")
    pieces = [piece for piece in re.split(r"[/:@?&=#,\s]+", rest or scheme) if piece]
    return hide(text, [url, *pieces, *map(unquote, pieces), *(quote(piece, safe="") for piece in pieces)])


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return a text with a mask in place of every one of these, the longest first."""
    for one in sorted({one for one in secrets if len(one) >= SHORTEST}, key=len, reverse=True):
        text = text.replace(one, MASK)
    return text


def _secrets(settings: Settings) -> Iterator[str]:
    yield from (one.password for one in settings.sources)
    yield from settings.notify
    yield settings.ping
    if settings.offsite:
        yield settings.offsite.password
        yield from settings.offsite.environment.values()
        yield from re.findall(r"//[^/@\s:]*:([^@\s]+)@", settings.offsite.repository)
