"""Our Dockerfiles beside naive ones: what is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.bench_images import BEGIN, PAGE, SUBJECTS, Measured, missed, page, rows, write
from deploy.bench_report import END

OURS, NAIVE = Measured(20_000_000, (0.3, 0.9, 0.4), 20), Measured(150_000_000, (9.0, 8.0, 10.0), 300)


def test_every_image_is_told_twice_and_by_the_median_of_its_rebuilds() -> None:
    assert rows({"example": (OURS, NAIVE)}) == [
        ("example", "naive", "150.0", "", "9.00", "300"),
        ("example", "ours", "20.0", "7.5 ×", "0.40", "20"),
    ]


@pytest.mark.parametrize(
    ("ours", "naive", "said"),
    [
        (20_000_000, 60_000_000, []),
        (60_000_000, 180_000_000, []),
        (61_000_000, 200_000_000, ["the example travels in 61.0 MB, more than 60"]),
        (20_000_000, 50_000_000, ["that is only 2.5 times smaller than the naive one"]),
    ],
)
def test_the_example_has_targets(ours: int, naive: int, said: list[str]) -> None:
    assert missed({"example": (Measured(ours, (1.0,), 1), Measured(naive, (1.0,), 1))}) == said
    assert missed({"node": (Measured(ours, (1.0,), 1), Measured(naive, (1.0,), 1))}) == []


def test_the_measured_part_is_put_between_its_marks(tmp_path: Path) -> None:
    document = tmp_path / "images.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(document, page({"example": (OURS, NAIVE)}, 3, "2026-01-02"))
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\nMeasured by `nox -s bench_images`, 2026-01-02; rebuilds")
    assert text.endswith(f"| example | ours | 20.0 | 7.5 × | 0.40 | 20 |\n\n{END}\nafter\n")


def test_everything_that_is_compared_is_there_and_shown_where_it_says() -> None:
    assert all(path.exists() for one in SUBJECTS for path in (one.ours, one.naive, one.context / one.code))
    assert BEGIN in PAGE.read_text()
