"""What makes a server take backups by itself: a file for cron, or a service and a timer for systemd. Pure.

Every hour the program is asked to do what is due; it decides that itself, in UTC. So a server that was down or a backup
that failed is made up for within the hour, and no hour that clocks skip or repeat matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import islice

from backup.agent.model import HOME
from backup.client import PROGRAM

SECURE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HEAD = "written by `inv backup.schedule`, taken away by `inv backup.schedule --remove`"


@dataclass(frozen=True)
class File:
    """A file on a server; root's, and nobody else may write to it, or cron would not read it."""

    path: str
    text: str

    @property
    def digest(self) -> str:
        """Return its SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def minute_of(app: str, server: str) -> int:
    """Return the minute of the hour for an app on a server: always the same, and another for most others."""
    return int(hashlib.sha256(f"{app} {server}".encode()).hexdigest()[:8], 16) % 60


def log_of(app: str) -> str:
    """Return where cron's runs write what they say; systemd's write to the journal."""
    return f"/var/log/tidegate-{app}.log"


def for_cron(app: str, minute: int) -> tuple[File, ...]:
    """Return the file for cron. Its name has no dot, since cron passes over names with one."""
    log = log_of(app)
    rotate = f"find {log} -size +1000k -exec mv -f {{}} {{}}.1 ';' 2>/dev/null"
    gently = "/usr/bin/nice -n 10 /usr/bin/ionice -t -c 3"
    line = f"umask 077; {rotate}; exec >>{log} 2>&1; date -u -Is; exec {gently} {_command(app)}"
    text = f"""\
# Backups of {app}: {HEAD}.
# What is due is done every hour and told in {log}, since mail of cron's is read by nobody.
SHELL=/bin/sh
PATH={SECURE_PATH}
MAILTO=""
{minute} * * * * root {line}
"""
    return (File(f"/etc/cron.d/tidegate-{app}", text),)


def for_systemd(app: str, minute: int) -> tuple[File, ...]:
    """Return service and timer for systemd."""
    return (
        File(f"/etc/systemd/system/{unit_of(app)}.service", _service(app)),
        File(f"/etc/systemd/system/{unit_of(app)}.timer", _timer(app, minute)),
    )


def unit_of(app: str) -> str:
    """Return the name of service and timer without their endings."""
    return f"tidegate-backup-{app}"


def next_runs(minute: int, at: str, now: datetime) -> Iterator[datetime]:
    """Yield when the next daily backups are taken: at the first look at or after the time of day, in UTC, without end."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    due = time.fromisoformat(at)
    while True:
        moment = day.replace(hour=due.hour, minute=minute)
        moment += timedelta(hours=1) if minute < due.minute else timedelta(0)
        if moment > now:
            yield moment
        day += timedelta(days=1)


def upcoming(minute: int, at: str, now: datetime, count: int = 3) -> tuple[datetime, ...]:
    """Return the next daily backups."""
    return tuple(islice(next_runs(minute, at, now), count))


def _command(app: str) -> str:
    return f"/usr/bin/python3 -I {PROGRAM} scheduled --app {app}"


def _service(app: str) -> str:
    # No private /tmp, home or devices: the engine mounts folders of ours by their paths, and sources can be anywhere.
    # Nor RestrictSUIDSGID: a drill restores files with their modes.
    return f"""\
# {HEAD}
[Unit]
Description=Backups of {app}: what is due
After=docker.service network-online.target time-sync.target
Wants=network-online.target
ConditionPathExists={HOME}/{app}/backup.json

[Service]
Type=oneshot
ExecStart={_command(app)}
# 4: a backup is at work already
SuccessExitStatus=4
Environment=PATH={SECURE_PATH} HOME=/root
UMask=0077
Nice=10
IOSchedulingClass=idle
KillMode=mixed
TimeoutStopSec=120
ProtectSystem=full
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
"""


def _timer(app: str, minute: int) -> str:
    return f"""\
# {HEAD}
[Unit]
Description=Backups of {app}: every hour

[Timer]
OnCalendar=*-*-* *:{minute:02}:00 UTC
Persistent=true
RandomizedDelaySec=60
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
