"""The benchmark's pure parts: medians, ratios, targets, tables, and the rows that are saved."""

from __future__ import annotations

from itertools import islice

import pytest

from backup.bench import PAGE
from backup.bench_lab import ROW, rows
from backup.bench_report import BEGIN, COLUMNS, END, PHASE_COLUMNS, Figure, Run, Saves, figures, page, phase_row, replaced, row

RUN = Run(seconds=6.0, began=0.5, saved=4.0, cpu=0.2, children=3.0, toolbox=1.8, server=5.0, memory=30.0, bytes=85_000_000)


def saves(*runs: Run, by_hand: tuple[float, ...] = (), source: str = "PostgreSQL", megabytes: float = 350) -> Saves:
    return Saves(source, megabytes, list(runs), {"hand": list(by_hand)} if by_hand else {})


def test_a_ratio_is_the_median_of_neighbours_so_that_slow_moments_do_not_count() -> None:
    one = saves(Run(5.0, saved=4.4), Run(50.0, saved=44.0), Run(5.0, saved=4.4), by_hand=(4.0, 40.0, 4.0))
    assert one.ratio("saved", "hand") == pytest.approx(1.1)
    assert one.middle("saved") == 4.4


def test_the_seconds_of_a_run_add_up() -> None:
    assert RUN.began + RUN.saving + RUN.proof == RUN.seconds
    assert dict(zip(PHASE_COLUMNS, phase_row(saves(RUN)), strict=True))["all"] == "6.00"


def test_the_share_counts_everything_from_the_tables_to_the_file() -> None:
    assert RUN.share == pytest.approx(2.0)


def test_targets_are_for_ratios_where_there_is_a_baseline_and_for_values_where_there_is_none() -> None:
    known = {one.what.partition(": ")[2]: one for one in figures([saves(RUN, by_hand=(3.5,))])}
    assert {what: one.met for what, one in known.items()} == {
        "save, against hand": False, "prove and publish, against save": True, "the program's peak memory": True,
        "the program's own CPU, of the pipeline's": True,
    }  # fmt: skip
    cells = dict(zip(COLUMNS, row(known["save, against hand"]), strict=True))
    shown = [cells[name] for name in ("baseline", "Tidegate", "ratio", "target", "")]
    assert shown == ["3.50", "4.00", "1.14", "≤ 1.10", "✗"]


def test_memory_that_grows_with_the_data_misses_its_target() -> None:
    large = saves(Run(60.0, saved=40.0, memory=35.0), megabytes=2048)
    other = saves(Run(9.0, saved=5.0, memory=90.0), source="SQLite")
    (flat,) = [one for one in figures([saves(RUN), other, large]) if "against 350 MB" in one.what]
    assert (flat.what, flat.met) == ("PostgreSQL: peak memory at 2048 MB, against 350 MB", False)
    assert flat.ratio == pytest.approx(35 / 30)


def test_what_has_no_target_is_neither_met_nor_missed() -> None:
    assert row(Figure("start", 0.2, "s"))[2:] == ("", "0.20", "", "", "")


def test_only_what_is_between_the_marks_is_replaced() -> None:
    document = f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nother {END}\n"
    generated = page({"machine": r"2 cores \1"}, [saves(RUN)], [Figure("a | b", 1.0, "s")])
    assert replaced(document, generated) == f"# Title\n\n{BEGIN}\n\n{generated}\n\n{END}\n\nother {END}\n"
    assert "| a &#124; b |" in generated
    with pytest.raises(ValueError, match="once"):
        replaced("no marks", generated)


def test_the_page_has_the_place_for_the_figures() -> None:
    assert "the figures" in replaced(PAGE.read_text(), "the figures")


def test_the_rows_are_the_same_every_time_and_as_many_as_the_size_asks_for() -> None:
    assert list(islice(rows(1), 50)) == list(islice(rows(2), 50))
    assert sum(1 for _ in rows(1)) == 1_000_000 // ROW
