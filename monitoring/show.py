"""What comes of monitoring commands, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from monitoring import silences as silencing
from monitoring.alerts import Matcher, Silence
from monitoring.files import FOLDER
from monitoring.live import Http
from monitoring.render import PASSWORD
from monitoring.up import Done
from ops.console import Console
from ops.durations import period
from ops.errors import ConfigError
from ops.who import who


def came_up(console: Console, done: Done) -> None:
    """Say that an environment is watched, by what, and what is missing still."""
    console.table("", ("server", "services"), ((server, ", ".join(names)) for server, names in done.services.items()))
    for remark in done.remarks:
        console.say(f"! {remark}", "yellow")
    if done.password:
        told = f"in {FOLDER}/{PASSWORD} there" if console.as_json else f"{done.password.reveal()}   (shown this once)"
        console.say(f"Grafana: user admin, password {told}", "bold")
    console.say(f"{done.environment} is watched: {done.targets} targets answer, {done.seconds:.1f} s", "bold green")
    what = "" if any("grafana" in names for names in done.services.values()) else " --what prometheus"
    console.say(f"next: inv monitoring.open -e {done.environment}{what}; inv monitoring.drill -e {done.environment}")


def up_document(done: Done) -> dict[str, Any]:
    """Return it as JSON takes it; a password is for a person's eyes."""
    services = {server: list(names) for server, names in done.services.items()}
    return {"environment": done.environment, "services": services, "targets": done.targets, "seconds": done.seconds,
            "remarks": list(done.remarks)}  # fmt: skip


def add_silence(console: Console, http: Http, about: tuple[Matcher, ...], lasts: str, comment: str) -> Silence:
    """Open a silence and say what it mutes. Raises ConfigError for one of everything or without end."""
    try:
        length = timedelta(seconds=period(lasts))
    except ValueError as error:
        raise ConfigError("how long is the silence?", why=f"{lasts!r} is not {error}", fix="--for 2h") from None
    done = silencing.add(http, about, length, who(), comment or "inv monitoring.silence")
    console.say(f"silent: {silence(done)}", "bold")
    for summary in silencing.muted(http, done):
        console.say(f"  mutes now: {summary}")
    return done


def silences(console: Console, found: Sequence[Silence]) -> None:
    """Print silences."""
    rows = ((one.id[:8], words(one), f"{one.ends:%Y-%m-%d %H:%M} UTC", one.by, one.comment) for one in found)
    console.table("", ("id", "what", "until", "by", "why"), rows)


def silence(one: Silence) -> str:
    """Return a silence in words."""
    return f"{words(one)} until {one.ends:%Y-%m-%d %H:%M} UTC ({one.id[:8]})"


def words(one: Silence) -> str:
    """Return what a silence is about."""
    return ", ".join(map(str, one.matchers))


def silence_document(one: Silence) -> dict[str, Any]:
    """Return a silence as JSON takes it."""
    return {
        "id": one.id,
        "about": [str(matcher) for matcher in one.matchers],
        "ends": one.ends.isoformat(),
        "by": one.by,
        "comment": one.comment,
    }
