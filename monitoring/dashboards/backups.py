"""Whether everything could be had back."""

from __future__ import annotations

from monitoring.dashboards.panels import APPS, HOSTS, NO, YES, Bars, Board, Graph, Panel, Row, Stat, Switches, Table, rising
from monitoring.dashboards.queries import APP, LATE_BACKUPS, Query

NAME = "{{app}} on {{host}}"
DAY = 86400


def figure(name: str) -> str:
    """Return one of the backup's figures, of the chosen apps."""
    return f"tidegate_backup_{name}{{{APP}}}"


NOW: tuple[Panel, ...] = (
    Bars(
        "Age of the newest backup", "100 % is the interval at which one is expected.",
        (Query(f"(time() - {figure('last_success_timestamp_seconds')}) / {figure('expected_interval_seconds')}", NAME),),
        unit="percentunit", thresholds=rising(1, 1.5), alerts=("BackupStale",), width=2,
    ),
    Stat(
        "Late or absent", "Apps whose newest good backup is older than one and a half intervals and an hour, or that have none.",
        (Query(f"count({LATE_BACKUPS}) or vector(0)", ""),), thresholds=NO, alerts=("BackupStale", "BackupAbsent"),
    ),
    Stat("Good copies", "Backups that are complete and proven.", (Query(figure("good_copies"), NAME),), thresholds=YES),
    Stat(
        "Last attempt", "Whether it saved every source.", (Query(figure("last_attempt_success"), NAME),),
        unit="bool_yes_no", thresholds=YES, alerts=("BackupFailed",),
    ),
    Stat(
        "Deletion frozen", "Whether old backups are kept because something looks wrong with new ones.",
        (Query(figure("frozen"), NAME),), unit="bool_yes_no", thresholds=NO, alerts=("BackupFailed", "BackupTooSmall"),
    ),
)  # fmt: skip

TREND: tuple[Panel, ...] = (
    Graph("Size", "Bytes on disk of the newest good backup.", (Query(figure("bytes"), NAME),), unit="bytes", alerts=("BackupTooSmall",)),
    Graph("Duration", "How long the newest good backup took.", (Query(figure("duration_seconds"), NAME),), unit="s"),
    Graph(
        "Age", "How old the newest good backup was; it falls at each new one.",
        (Query(f"time() - {figure('last_success_timestamp_seconds')}", NAME),), unit="s", alerts=("BackupStale",),
    ),
)  # fmt: skip

PROOF: tuple[Panel, ...] = (
    Graph(
        "Age of the newest proof", "Full: read to its end. Restore: restored to a server of its own and counted.",
        (Query(f"time() - {figure('last_verified_timestamp_seconds')}", f"{NAME}: {{{{level}}}}"),),
        unit="s", thresholds=rising(10 * DAY, 14 * DAY), alerts=("RestoreTestOld",),
    ),
    Switches(
        "Sources", "Whether the last attempt saved each source.", (Query(figure("source_success"), f"{NAME}: {{{{source}}}}"),),
        thresholds=YES, alerts=("BackupFailed",),
    ),
    Table(
        "Newest", "The newest good backup, the newest attempt and the newest proof by a restore.",
        (
            Query(f"max by (app, host) ({figure('last_success_timestamp_seconds')}) * 1000", "good", "dateTimeFromNow"),
            Query(f"max by (app, host) ({figure('last_attempt_timestamp_seconds')}) * 1000", "attempt", "dateTimeFromNow"),
            Query(
                f'max by (app, host) (tidegate_backup_last_verified_timestamp_seconds{{{APP},level="restore"}}) * 1000',
                "restored", "dateTimeFromNow",
            ),
        ),
        labels=("app", "host"), empty="no backups",
    ),
)  # fmt: skip

BOARD = Board(
    "backups", "Backups", "Whether everything could be had back: how old backups are, how big, how well proven.",
    (Row(6, NOW), Row(8, TREND, "Trend"), Row(9, PROOF, "Proof")),
    (APPS, HOSTS), since="now-30d", refresh="5m",
)  # fmt: skip
