"""The benchmark's pure parts: medians, targets, tables, and taking a saved image's layers out."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib

import pytest

from deploy.bench import FULL, PAGE, QUICK
from deploy.bench_lab import Run, Setting, configuration, toml
from deploy.bench_report import (
    BEGIN,
    COLUMNS,
    END,
    PHASE_COLUMNS,
    Baseline,
    Measured,
    markdown,
    page,
    phase_row,
    replaced,
    row,
    targets,
)
from deploy.bench_ship import common, strip

ONE = Setting("full", "loopback", 1)
FOUR = Setting("full", "loopback", 4)
BASELINES = {"loopback": Baseline(ssh=0.2, start=0.5), "slow": Baseline(ssh=0.7, start=1.0)}


def a_run(seconds: float, **known: object) -> Run:
    return Run(**{"seconds": seconds, "received": 731_000, "connections": 1, "phases": {"switch": 0.2, "drain": 1.0}, **known})  # type: ignore[arg-type]


def test_a_measurement_is_told_by_its_median_and_its_ratio_to_the_same_by_hand() -> None:
    cells = dict(zip(COLUMNS, row(Measured("changed", ONE, [a_run(2.0), a_run(9.0), a_run(2.5)]), BASELINES), strict=True))
    assert (cells["seconds"], cells["from, to"], cells["× by hand"], cells["kB received"]) == ("2.50", "2.00, 9.00", "5.0", "731")


def test_phases_and_the_rest_add_up_to_the_whole() -> None:
    cells = dict(zip(PHASE_COLUMNS, phase_row(Measured("changed", ONE, [a_run(3.0)])), strict=True))
    assert (cells["switch"], cells["drain"], cells["ship"], cells["rest"]) == ("0.20", "1.00", "", "1.80")


def test_a_phase_that_is_new_is_shown_in_the_figures() -> None:
    assert Measured("changed", ONE, [a_run(3.0, phases={"dance": 0.5})]).phases() == {"dance": 0.5}


def test_targets_count_everything_and_say_what_is_met() -> None:
    found = [Measured("changed", ONE, [a_run(3.9)]), Measured("changed", FOUR, [a_run(6.0)]),
             Measured("crash", ONE, [a_run(4.0, after_crash=2.5)])]  # fmt: skip
    told = {what: (value, met) for what, _, value, met in targets(found)}
    assert told["deploy of a changed layer, s, loopback, full"] == ("3.90", "✗")
    assert told["4 servers against 1, full"] == ("1.54 ×", "✗")
    assert told["refused after the crash, s, loopback, full"] == ("2.50", "✗")
    assert not any("slow" in what for what in told), "what was not measured is not told"


def test_the_page_keeps_what_people_wrote_around_the_tables() -> None:
    once = replaced("# Benchmarks\n\nWords.\n", "one")
    assert replaced(once + "\nMore words.\n", "two") == f"# Benchmarks\n\nWords.\n\n{BEGIN}\n\ntwo\n\n{END}\n\nMore words.\n"


def test_the_page_says_which_figures_are_of_another_run() -> None:
    shipping = {"loopback": {"registry": [Run(0.2, received=721_000)]}}
    text = page({"date": "today"}, [Measured("changed", ONE, [a_run(3.0)])], BASELINES, shipping)
    assert text.index("Not from this run") > text.index("## Kamal 2.11") > text.index("## Ways of shipping")
    assert "| our registry protocol: push the new layers, pull the missing ones | loopback | 0.20 | 721 |" in text


def test_a_table_survives_what_would_end_a_cell() -> None:
    assert markdown(("a", "b"), [("1 | 2", "3")]) == "| a | b |\n| --- | --- |\n| 1 / 2 | 3 |"


@pytest.mark.parametrize(("worker", "migration"), [(True, True), (False, False), (False, True)])
def test_the_variants_differ_from_the_bundled_example_only_in_what_they_leave_out(*, worker: bool, migration: bool) -> None:
    app = tomllib.loads(configuration("bench", with_worker=worker, with_migration=migration))["app"]
    assert ("processes" in app, "migrate" in app) == (worker, migration)
    assert (app["name"], app["health"]["path"], app["volumes"]) == ("bench", "/health", {"blog-data": "/app/data"})


def test_toml_is_written_so_that_it_reads_the_same() -> None:
    value = {"a b": [1, 'x"y\n'], "c": {"d": True}}
    assert tomllib.loads(f"it = {toml(value)}")["it"] == value


def test_images_share_layers_from_the_base_up() -> None:
    assert [common(["a", "b", "c"], theirs) for theirs in (["a", "b"], ["a", "x", "c"], ["b"], [], ["a", "b", "c", "d"])] == [
        2,
        1,
        0,
        0,
        3,
    ]


def test_a_stripped_image_keeps_everything_but_the_layers_that_are_there() -> None:
    layers = ["one/layer.tar", "two/layer.tar"]
    files = {"manifest.json": json.dumps([{"Config": "c.json", "Layers": layers}]), "c.json": "{}", **dict.fromkeys(layers, "x")}
    whole, rest = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    whole.seek(0)
    strip(whole, rest, 1)
    rest.seek(0)
    with tarfile.open(fileobj=rest) as archive:
        assert archive.getnames() == ["manifest.json", "c.json", "two/layer.tar"]


def test_the_short_form_is_a_part_of_what_the_long_one_measures_on_fewer_servers() -> None:
    assert max(setting.hosts for setting, _ in QUICK) == 2
    assert {setting for setting, _ in QUICK if setting.hosts == 1} <= {setting for setting, _ in FULL}
    assert max(setting.hosts for setting, _ in FULL) == 4


def test_the_page_is_there_to_be_completed() -> None:
    assert PAGE.read_text().startswith("# Benchmarks\n")
