"""Backups by themselves: looking at what a server has, installing a schedule and what it needs, and removing it.

systemd where it runs the server, else cron. A second installation finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backup.schedule_files import File, for_cron, for_systemd, minute_of, unit_of, upcoming
from backup.settings import backup_of
from ops.config import Environment
from ops.errors import Failed, Refused
from ops.host import Host
from ops.shell import Command, chain, sh

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_BEGIN = "tidegate-schedule"
_PROGRAMS = {"zstd": "zstd", "xz": "xz-utils", "age": "age", "restic": "restic", "ssh": "openssh-client", "apprise": "apprise",
             "cron": "cron"}  # fmt: skip
_PACKAGES = {**_PROGRAMS, "whole_python": "python3", "certificates": "ca-certificates"}

# One round trip for all that is to be known; every line is `key=value`, whatever a login shell prints before.
_FACTS = f"""
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C; export LC_ALL
echo; echo {_BEGIN}
[ -d /run/systemd/system ] && echo systemd=yes
for p in {" ".join(_PROGRAMS)}; do command -v "$p" >/dev/null && echo "has_$p=yes"; done
/usr/bin/python3 -I -c 'import argparse, sqlite3, ssl, urllib.request' 2>/dev/null && echo has_whole_python=yes
[ -s {CERTIFICATES} ] && echo has_certificates=yes
grep -qx cron "/proc/$(cat /run/crond.pid 2>/dev/null)/comm" 2>/dev/null && echo cron_runs=yes
systemctl --quiet is-active "$1.timer" 2>/dev/null && systemctl --quiet is-enabled "$1.timer" && echo timer_runs=yes
shift
for f; do [ -f "$f" ] && echo "file $f=$(stat -c '%a %u' "$f") $(sha256sum < "$f" | cut -d ' ' -f 1)"; done
exit 0
"""

# A file is written beside its place under a name that neither cron nor systemd reads, and renamed.
_PUT = """
set -e
new=$(mktemp "$(dirname "$1")/.tidegate-XXXXXX")
trap 'rm -f "$new"' EXIT
printf %s "$2" > "$new"
chmod 0644 "$new"
sync "$new"
mv -f "$new" "$1"
trap - EXIT
"""


@dataclass(frozen=True)
class Step:
    """Something to do on a server as root: what it is, and the command."""

    what: str
    command: Command


@dataclass(frozen=True)
class Schedule:
    """What runs an app's backups on a server, at which minute of every hour, and the next daily ones."""

    by: str
    minute: int
    next: tuple[datetime, ...]


def survey(env: Environment, host: Host) -> tuple[Step, ...]:
    """Return what a server lacks; changes nothing. Raises Refused where that cannot be mended, Unreachable."""
    backup_of(env)
    facts = _look(env, host)
    missing = tuple(steps(facts, env.app.name, minute_of(env.app.name, host.name), programs(env)))
    if missing:
        _require_root(host)
    return missing


def install(env: Environment, host: Host, say: Callable[[str, str], None], now: datetime) -> Schedule:
    """Install the schedule and what the configuration needs, and look again. Raises TidegateError."""
    _carry_out(host, survey(env, host), say, f"put that right on the server, then inv backup.schedule -e {env.name}")
    if left := survey(env, host):
        raise Failed(f"still missing: {', '.join(one.what for one in left)}", where=host.name,
                     fix=f"inv backup.schedule -e {env.name}")  # fmt: skip
    minute = minute_of(env.app.name, host.name)
    by = "systemd" if "systemd" in _look(env, host) else "cron"
    return Schedule(by, minute, upcoming(minute, backup_of(env).at, now))


def remove(env: Environment, host: Host, say: Callable[[str, str], None]) -> bool:
    """Take the schedule away, whichever it is, and return whether there was one; packages stay. Raises TidegateError."""
    found = tuple(removal(_look(env, host), env.app.name))
    if found:
        _require_root(host)
        _carry_out(host, found, say, f"put that right on the server, then inv backup.schedule --remove -e {env.name}")
    return bool(found)


def _carry_out(host: Host, todo: Sequence[Step], say: Callable[[str, str], None], fix: str) -> None:
    for one in todo:
        say(host.name, one.what)
        host.check(one.command, root=True, fix=fix)


def _look(env: Environment, host: Host) -> dict[str, str]:
    paths = [one.path for one in (*for_cron(env.app.name, 0), *for_systemd(env.app.name, 0))]
    done = host.run(sh("sh", "-c", _FACTS, "sh", unit_of(env.app.name), *paths))
    head, begin, lines = done.stdout.rpartition(f"{_BEGIN}\n")
    if done.code or not begin:
        raise Refused("the server runs no commands for us", where=host.name, why=(head + lines + done.stderr).strip(),
                      fix="inv server.bootstrap makes it ready")  # fmt: skip
    return parse(lines)


def parse(lines: str) -> dict[str, str]:
    """Return the facts in what a server printed. Pure."""
    pairs = (line.partition("=") for line in lines.splitlines())
    return {key: value for key, equals, value in pairs if equals}


def _require_root(host: Host) -> None:
    done = host.run(sh("true"), root=True)
    if done.code:
        raise Refused("we are not root and cannot become it", where=host.name, why=done.stderr.strip(),
                      fix="let the SSH user use sudo without a password: see inv server.bootstrap")  # fmt: skip


def programs(env: Environment) -> tuple[str, ...]:
    """Return the programs that backups need on a server as they are configured. Pure."""
    backup = backup_of(env)
    repository = backup.offsite.repository if backup.offsite else ""
    wanted = {
        backup.compression: backup.compression in ("zstd", "xz"),
        "age": bool(backup.recipients),
        "restic": bool(repository),
        "ssh": repository.startswith("sftp:"),
        "apprise": bool(env.notifications.urls),
        "certificates": bool(repository or env.notifications.urls or backup.ping),
        "whole_python": True,
    }
    return tuple(name for name, needed in wanted.items() if needed)


def steps(facts: Mapping[str, str], app: str, minute: int, needed: Sequence[str]) -> Iterator[Step]:
    """Yield what is to be done, in the order to do it. Pure."""
    systemd = "systemd" in facts
    wanted = (*needed,) if systemd else (*needed, "cron")
    lacking = sorted(_PACKAGES[name] for name in wanted if f"has_{name}" not in facts)
    if lacking:
        yield Step(f"install {', '.join(lacking)}", _install(lacking))
    # The other one first: two schedules would find each other at work.
    yield from _without(facts, for_cron(app, minute) if systemd else for_systemd(app, minute))
    files = for_systemd(app, minute) if systemd else for_cron(app, minute)
    changed = [one for one in files if facts.get(f"file {one.path}") != f"644 0 {one.digest}"]
    yield from (Step(f"write {one.path}", sh("sh", "-c", _PUT, "sh", one.path, one.text)) for one in changed)
    if systemd and (changed or "timer_runs" not in facts):
        timer = f"{unit_of(app)}.timer"
        start = chain(sh("systemctl", "daemon-reload"), sh("systemctl", "enable", timer), sh("systemctl", "restart", timer))
        yield Step(f"start {timer}", start)
    if not systemd and "cron_runs" not in facts:
        yield Step("start cron", sh("service", "cron", "start"))


def removal(facts: Mapping[str, str], app: str) -> Iterator[Step]:
    """Yield what takes away every schedule of an app. Pure."""
    timer = f"{unit_of(app)}.timer"
    if "systemd" in facts and ("timer_runs" in facts or f"file /etc/systemd/system/{timer}" in facts):
        yield Step(f"stop {timer}", sh("systemctl", "disable", "--now", timer))
    yield from _without(facts, (*for_cron(app, 0), *for_systemd(app, 0)))


def _without(facts: Mapping[str, str], files: Sequence[File]) -> Iterator[Step]:
    found = [one.path for one in files if f"file {one.path}" in facts]
    if found:
        gone = sh("rm", "-f", *found)
        reload = "systemd" in facts and any("systemd" in path for path in found)
        yield Step(f"remove {', '.join(found)}", chain(gone, sh("systemctl", "daemon-reload")) if reload else gone)


def _install(packages: Sequence[str]) -> Command:
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120")
    return chain(sh(*quiet, "update"), sh(*quiet, "install", "--no-install-recommends", *packages))
