"""The figures are right whatever ran last, in a form that Prometheus reads, and say nothing where nothing is known."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.agent.metrics import Standing, render, standing, write
from backup.agent.model import CHECKSUMS, FULL, RESTORE, DataFile, Item, Manifest, Proof, Settings, Source, written
from backup.agent.retention import Decision
from backup.agent.store import Backup, Store

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
SETTINGS = Settings("blog", "production", "web-1", (Source("posts", "sqlite"), Source("files", "directory")))
LABELS = {"app": "blog", "environment": "production"}
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})\{{((?:{LABEL},?)*)\}} (-?\d+(?:\.\d+)?)")


def read(text: str) -> Series:
    """Read the text format strictly: each metric once, its HELP and TYPE before its samples, no sample twice."""
    assert not text or text.endswith("\n")
    found: Series = {}
    seen: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in seen
            seen.append(name)
            assert re.fullmatch(rf"# HELP {NAME} [^\\]+", line)
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {seen[-1]} gauge"
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == seen[-1]
            labels = tuple((key, _plain(value)) for key, value in re.findall(LABEL, sample[2]))
            assert (sample[1], labels) not in found
            found[sample[1], labels] = float(sample[5])
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text)


def of(series: Series, name: str, **labels: str) -> float | None:
    return series.get((f"tidegate_backup_{name}", tuple({**LABELS, **labels}.items())))


def backup(
    hours: float, *proofs: Proof, failed: dict[str, str] | None = None, sources: tuple[str, ...] = ("posts", "files")
) -> Backup:
    taken = NOW - timedelta(hours=hours)
    id = f"{taken:%Y%m%dT%H%M%SZ}-abcdef"
    items = tuple(Item(name, "sqlite", (DataFile(f"{name}.zst", 100, "0" * 64),), {}) for name in sources)
    manifest = Manifest(id, "blog", "production", "web-1", ("daily",), written(taken), written(taken), 12.5, items, failed or {})
    return Backup(manifest, Path(id), proofs)


def proof(hours: float, level: str = FULL, ok: bool = True) -> Proof:
    return Proof(written(NOW - timedelta(hours=hours)), level, ok, 1.0)


def attempt(hours: float, ok: bool, id: str = "") -> dict[str, Any]:
    return {"event": "run", "id": id, "ok": ok, "finished": written(NOW - timedelta(hours=hours))}


def figures(backups: list[Backup], history: list[dict[str, Any]], *frozen: str) -> Series:
    return read(render(standing(SETTINGS, backups, history, frozen, NOW)))


def at(hours: float) -> float:
    return (NOW - timedelta(hours=hours)).timestamp()


def test_after_a_good_backup_everything_is_told() -> None:
    good = backup(2, proof(2))
    told = figures([good], [attempt(1.9, True, good.id)])
    assert of(told, "last_success_timestamp_seconds") == at(2)
    assert of(told, "last_attempt_timestamp_seconds") == at(1.9)
    assert of(told, "last_attempt_success") == 1
    assert of(told, "last_verified_timestamp_seconds", level="full") == at(2)
    assert of(told, "last_verified_timestamp_seconds", level="restore") is None
    assert (of(told, "duration_seconds"), of(told, "bytes"), of(told, "good_copies")) == (12.5, 200, 1)
    assert (of(told, "expected_interval_seconds"), of(told, "frozen")) == (86400, 0)
    assert (of(told, "source_success", source="posts"), of(told, "source_success", source="files")) == (1, 1)


def test_a_backup_that_never_succeeded_is_absent_and_not_the_year_1970() -> None:
    told = figures([], [attempt(1, False)], "there is no good backup")
    assert of(told, "last_success_timestamp_seconds") is None
    assert of(told, "last_attempt_success") == 0
    assert of(told, "last_attempt_timestamp_seconds") == at(1)
    assert (of(told, "good_copies"), of(told, "frozen")) == (0, 1)
    assert (of(told, "duration_seconds"), of(told, "bytes")) == (None, None)
    assert of(told, "source_success", source="posts") == 0


def test_before_the_first_attempt_only_what_is_known_is_told() -> None:
    told = figures([], [])
    assert {name for name, _ in told} == {
        f"tidegate_backup_{name}" for name in ("good_copies", "expected_interval_seconds", "frozen")
    }


def test_a_failure_keeps_the_last_success_as_it_was() -> None:
    good = backup(30, proof(30))
    told = figures([good], [attempt(30, True, good.id), attempt(6, False, "gone")])
    assert of(told, "last_success_timestamp_seconds") == at(30)
    assert of(told, "last_attempt_success") == 0
    assert of(told, "source_success", source="files") == 0


def test_a_partial_backup_is_no_success_and_says_which_source_failed() -> None:
    good, partial = backup(30, proof(30)), backup(6, proof(6), failed={"files": "gone"}, sources=("posts",))
    told = figures([good, partial], [attempt(30, True, good.id), attempt(6, False, partial.id)])
    assert of(told, "last_success_timestamp_seconds") == at(30)
    assert (of(told, "source_success", source="posts"), of(told, "source_success", source="files")) == (1, 0)
    assert of(told, "good_copies") == 1


def test_a_drill_moves_its_own_time_and_changes_nothing_of_the_last_attempt() -> None:
    good = backup(30, proof(30), proof(2, RESTORE))
    history = [attempt(30, True, good.id), {"event": "verify", "level": RESTORE, "ok": True, "finished": written(NOW)}]
    told = figures([good], history)
    assert of(told, "last_verified_timestamp_seconds", level="restore") == at(2)
    assert of(told, "last_verified_timestamp_seconds", level="full") == at(2)
    assert of(told, "last_attempt_timestamp_seconds") == at(30)


def test_a_backup_found_damaged_counts_no_more_though_it_once_succeeded() -> None:
    older, damaged = backup(40, proof(40)), backup(16, proof(16), proof(1, CHECKSUMS, ok=False))
    told = figures([older, damaged], [attempt(16, True, damaged.id)])
    assert of(told, "last_success_timestamp_seconds") == at(40)
    assert of(told, "good_copies") == 1


def test_a_backup_from_the_future_does_not_look_fresh() -> None:
    good, ahead = backup(30, proof(30)), backup(-10000, proof(-10000))
    assert of(figures([good, ahead], []), "last_success_timestamp_seconds") == at(30)


def test_figures_survive_the_loss_of_the_history() -> None:
    told = figures([backup(2, proof(2))], [])
    assert of(told, "last_success_timestamp_seconds") == at(2)
    assert of(told, "last_attempt_success") is None


@pytest.mark.parametrize("hostile", ['a"b', "a\\b", "a\nb", 'x"} 1\ny{z="', "ünï 🌊", "a,b={}", "\\n", '\\"'])
def test_hostile_names_are_escaped(hostile: str) -> None:
    known = Standing(hostile, "production", 1, 0, frozen=False, last_attempt_ok=False, sources={hostile: True})
    told = read(render(known))
    labels = (("app", hostile), ("environment", "production"), ("source", hostile))
    assert told["tidegate_backup_source_success", labels] == 1


def test_the_file_is_readable_by_all_and_never_half_written(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        settings, local = replace(SETTINGS, home=str(tmp_path)), Store(tmp_path / "backups")
        local.folder.mkdir()
        decision = Decision({}, {}, ())
        write(settings, local, decision, NOW)
        path, done, seen = tmp_path / "metrics" / "blog_backup.prom", threading.Event(), set()

        def watch() -> None:
            while not done.is_set():
                seen.add(path.read_text())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(50):
            write(settings, local, decision, NOW)
        done.set()
        watcher.join()
    finally:
        os.umask(before)
    assert len(seen) == 1
    assert read(seen.pop())
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    assert [one.name for one in path.parent.iterdir()] == ["blog_backup.prom"]
