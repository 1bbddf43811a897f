"""Our Dockerfiles beside naive ones, really built."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import bench_images
from deploy.bench_images import SUBJECTS, Subject, main

pytestmark = pytest.mark.integration


@pytest.fixture
def tiny(tmp_path: Path) -> Subject:
    """A page of documentation, in an image of it alone and in one with some ballast."""
    for name, text in {
        "tiny/index.html": "high water", "ours/Dockerfile": "FROM scratch\nCOPY index.html /\n",
        "naive/Dockerfile": "FROM debian:trixie-slim AS unused\nFROM scratch\nCOPY . /\nCOPY index.html /again\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return Subject("tiny", tmp_path / "tiny", tmp_path / "ours/Dockerfile", tmp_path / "naive/Dockerfile", "index.html")


def test_both_are_built_changed_and_looked_into(
    tiny: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "images.md"
    document.write_text(f"{bench_images.BEGIN}<!-- end -->")
    monkeypatch.setattr(bench_images, "PAGE", document)
    assert main(["--repetitions", "1"], [tiny]) == 0
    assert "building tiny" in capsys.readouterr().out
    assert document.read_text().count("| tiny |") == 2


def test_a_dockerfile_that_does_not_build_ends_it(tiny: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.ours.write_text("FROM scratch\nCOPY nothing /\n")
    assert main(["tiny"], [tiny]) == 1
    assert "building tidegate-bench-images:tiny failed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_is_as_small_as_it_has_to_be() -> None:
    assert main(["example", "--repetitions", "1"], SUBJECTS) == 0
