"""Telling people: when something fails, once a day while it goes on failing, and when it is well again.

What was told is in the history, so whoever runs next knows it. A notice that cannot be sent fails nothing: it is a
warning, and is tried again by the next run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from backup.agent.expire import judge
from backup.agent.masks import masked, masked_url
from backup.agent.model import RESTORE, Settings, utc, written
from backup.agent.report import Report
from backup.agent.store import Store

History = Sequence[Mapping[str, Any]]

BACKUP, DRILL, OFFSITE, EXPIRY = "the backup", "the restore drill", "the off-site copy", "the expiry of old backups"
FAILED, STILL, RECOVERED = "failed", "still failing", "recovered"
REMINDED = (BACKUP, OFFSITE)
EVERY = timedelta(hours=23, minutes=30)  # a day, with room for runs that come some minutes early
PATIENCE = 30.0
PING_TIMEOUT, PINGS = 10.0, 2


@dataclass(frozen=True)
class Notice:
    """Something to tell: what it is about, whether it failed, still fails or recovered, and why."""

    about: str
    kind: str
    why: str = ""
    since: str = ""


def troubles(history: History, frozen: Sequence[str]) -> dict[str, str]:
    """Return what is wrong now, and why; nothing is said of what was never tried. Pure."""
    tried = {BACKUP: _last(history, "run"), DRILL: _last(history, "verify", RESTORE), OFFSITE: _last(history, "offsite")}
    failed = {about: one for about, one in tried.items() if one and not one["ok"]}
    wrong = {about: str(one.get("error") or "no reason was written down") for about, one in failed.items()}
    return {**wrong, EXPIRY: "; ".join(frozen)} if frozen else wrong


def what_to_tell(history: History, wrong: Mapping[str, str], now: datetime) -> list[Notice]:
    """Return the notices that are due. Pure: what was told already is in the history."""
    found = (_due(about, history, wrong, now) for about in (BACKUP, DRILL, OFFSITE, EXPIRY))
    return [one for one in found if one]


def _due(about: str, history: History, wrong: Mapping[str, str], now: datetime) -> Notice | None:
    notices = (one for one in reversed(history) if one.get("event") == "notice" and one.get("about") == about)
    told = next((one for one in notices if one.get("ok")), None)
    known = told is not None and told.get("kind") != RECOVERED
    if about not in wrong:
        return Notice(about, RECOVERED) if known else None
    if not known:
        # Expiry freezes because backups fail; one notice about that is enough.
        return None if about == EXPIRY and BACKUP in wrong else Notice(about, FAILED, wrong[about], _since(about, history))
    again = about in REMINDED and not timedelta(0) <= now - _time(told or {}, now) < EVERY
    return Notice(about, STILL, wrong[about], _since(about, history)) if again else None


def _time(record: Mapping[str, Any], now: datetime) -> datetime:
    try:
        return utc(str(record.get("finished")))
    except ValueError:
        return now


def _last(history: History, event: str, level: str = "") -> Mapping[str, Any] | None:
    found = (one for one in reversed(history) if one.get("event") == event and "ok" in one)
    return next((one for one in found if not level or one.get("level") == level), None)


def _since(about: str, history: History) -> str:
    """Return when the first of the failures in a row was."""
    event = {BACKUP: "run", DRILL: "verify", OFFSITE: "offsite"}.get(about)
    since = ""
    for one in reversed(history):
        if one.get("event") == event and (about != DRILL or one.get("level") == RESTORE):
            if one.get("ok"):
                break
            since = str(one.get("finished", ""))
    return since


def words(settings: Settings, notice: Notice, newest: str) -> tuple[str, str]:
    """Return a notice's title and text, without secrets; `newest` says which is the newest good backup. Pure."""
    what = f"{notice.about} {'works again' if notice.kind == RECOVERED else notice.kind}"
    if notice.about == EXPIRY:
        what = "old backups expire again" if notice.kind == RECOVERED else "old backups are not deleted for now"
    title = f"{settings.app} ({settings.environment}) on {settings.server}: {what}"
    lines = [f"app: {settings.app}", f"environment: {settings.environment}", f"server: {settings.server}"]
    lines += [f"why: {notice.why}"] if notice.why else []
    lines += [f"failing since: {notice.since}"] if notice.since else []
    lines += [f"newest good backup: {newest or 'none'}", f"next: inv backup.status -e {settings.environment}"]
    return masked(title, settings), masked("\n".join(lines), settings)


def tell(settings: Settings, store: Store, report: Report, now: datetime) -> None:
    """Send the notices that are due, and the sign of life after a backup that is whole and proven. Never raises for them."""
    good = [one.id for one in store.backups()[0] if one.whole]
    if settings.notify:
        frozen = judge(settings, store, now).frozen if good else ()
        for notice in what_to_tell(store.history(), troubles(store.history(), frozen), now):
            if notice.about != OFFSITE or settings.offsite:
                title, text = words(settings, notice, good[-1] if good else "")
                problems = _send_all(settings.notify, title, text, report, failed=notice.kind != RECOVERED)
                store.note({"event": "notice", "about": notice.about, "kind": notice.kind, "finished": written(now),
                            "ok": len(problems) < len(settings.notify), "error": "; ".join(problems)}, report.warn)  # fmt: skip
    if settings.ping and (id := ping_due(store.history())) in good:
        if problem := ping(settings.ping):
            report.warn(f"the dead-man switch was not reached: {problem}")
        store.note({"event": "ping", "id": id, "ok": not problem, "error": problem, "finished": written(now)}, report.warn)


def _send_all(urls: Sequence[str], title: str, text: str, report: Report, *, failed: bool) -> list[str]:
    """Tell every service by itself: one that refuses must not make the others hear it twice."""
    problems = [problem for url in urls if (problem := send(url, title, text, failed=failed))]
    for problem in problems:
        report.warn(f"a notice was not sent: {problem}")
    if len(problems) < len(urls):
        report.say(f"notice sent: {title}")
    return problems


def ping_due(history: History) -> str:
    """Return the id of the last backup if it succeeded and its sign of life was not taken yet. Pure."""
    last = _last(history, "run")
    if last is None or not last["ok"]:
        return ""
    id = str(last.get("id"))
    return "" if any(one.get("event") == "ping" and one.get("id") == id and one.get("ok") for one in history) else id


def send(url: str, title: str, text: str, *, failed: bool) -> str:
    """Send a notice through the apprise command; returns why it was not taken, without the URL's secrets.

    The URL is in memory behind a descriptor: never in an argument, a variable or a file.
    """
    program = shutil.which("apprise")
    if not program:
        return "apprise is not installed here: inv backup.schedule installs it"
    descriptor = os.memfd_create("apprise")
    try:
        os.write(descriptor, f"{url}\n".encode())
        argv = [program, "-v", "-c", f"file:///dev/fd/{descriptor}?format=text", "-i", "text",
                "-n", "failure" if failed else "success", "-t", title]  # fmt: skip
        done = subprocess.run(argv, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[descriptor],
                              timeout=PATIENCE, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {PATIENCE:g} s"
    except OSError as error:
        return str(error)
    finally:
        os.close(descriptor)
    said = " ".join(done.stdout.decode("utf-8", "replace").split())
    return masked_url(said, url) or f"apprise ended with exit code {done.returncode}" if done.returncode else ""


def ping(url: str) -> str:
    """Ask a dead-man switch's URL, twice if need be; returns why it was not reached, without the URL's secrets."""
    from http.client import HTTPException
    from urllib import request

    if not url.lower().startswith(("http://", "https://")):
        return "its URL is not one of http or https"
    problem = ""
    for _ in range(PINGS):
        try:
            with request.urlopen(url, timeout=PING_TIMEOUT):  # noqa: S310  # the scheme is checked above
                return ""
        except (OSError, HTTPException, ValueError) as error:
            problem = masked_url(str(error) or type(error).__name__, url)
    return problem
