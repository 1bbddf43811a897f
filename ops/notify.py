"""Notices to people through Apprise; a notice that cannot be sent never fails anything."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from urllib.parse import quote, unquote

from ops.secret import MASK, Secret

DEADLINE = 10.0


def notify(urls: Sequence[Secret], title: str, body: str, failed: bool, deadline: float = DEADLINE) -> list[str]:  # noqa: FBT001
    """Send a notice to every URL at once; returns the problems as text, secrets masked, and never raises."""
    if not urls:
        return []
    ends = time.monotonic() + deadline
    notices = [_Notice(url, title, body, failed=failed) for url in urls]
    for notice in notices:
        notice.start()
    problems = []
    for number, notice in enumerate(notices, 1):
        notice.join(max(0.0, ends - time.monotonic()))
        problem = f"no answer within {deadline:g} s" if notice.is_alive() else notice.problem
        problems += [f"notice {number} of {len(urls)}: {problem}"] if problem else []
    return problems


class _Notice(threading.Thread):
    """One notice on its way; a daemon, so that a service that hangs cannot hold up the end of the program."""

    def __init__(self, url: Secret, title: str, body: str, *, failed: bool) -> None:
        super().__init__(daemon=True)
        self.problem = ""
        self._url = url
        self._title, self._body, self._failed = title, body, failed

    def run(self) -> None:
        """Send, and keep the reason when that fails."""
        try:
            self.problem = masked(self._send(), self._url)
        except Exception as error:  # noqa: BLE001 - whatever a service's plugin raises is a problem to report, not to fail for
            self.problem = masked(f"{type(error).__name__}: {error}", self._url)

    def _send(self) -> str:
        for name in ("apprise", "urllib3"):  # their records quote URLs; Apprise hands us its own below
            logging.getLogger(name).setLevel(logging.INFO)
            logging.getLogger(name).propagate = False
        import apprise

        sender = apprise.Apprise()
        if not sender.add(self._url.reveal()):
            return "not a URL that Apprise knows"
        kind = apprise.NotifyType.FAILURE if self._failed else apprise.NotifyType.SUCCESS
        body, text = self._body or self._title, apprise.NotifyFormat.TEXT
        sent = sender.notify(title=self._title, body=body, notify_type=kind, body_format=text)
        reasons = [entry.message for result in sent.results for entry in result.logs()]
        return "" if sent else "; ".join(reasons) or "the service did not take it"


def masked(text: str, url: Secret) -> str:
    """Mask a URL and every telling part of it, as it stands and as a URL encodes it."""
    value = url.reveal()
    scheme, _, rest = value.partition("://")
    pieces = {piece for piece in re.split(r"[/:@?&=#,\s]+", rest or scheme) if len(piece) > 2}
    forms = {value, *pieces} | {unquote(piece) for piece in pieces} | {quote(piece, safe="") for piece in pieces}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK) if form else text
    return "".join(character if character.isprintable() else " " for character in text)
