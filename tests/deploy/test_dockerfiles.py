"""What all Dockerfiles of docker/ have in common, as far as their text tells."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from deploy.bench_images import SUBJECTS
from deploy.image import bases_named
from deploy.images import lint
from deploy.images.size import budgets
from ops.templates import templates

DOCKER = Path(__file__).resolve().parents[2] / "docker"
TEMPLATES = sorted((DOCKER / "templates").glob("*/Dockerfile"))
OURS = [DOCKER / "Dockerfile", *TEMPLATES]
BUDGETS = budgets(tomllib.loads((DOCKER / "budgets.toml").read_text()))


def names(file: Path) -> str:
    return file.parent.name


@pytest.mark.parametrize("file", OURS, ids=names)
def test_nothing_in_it_hurts_a_deploy(file: Path) -> None:
    assert lint.lint(file, lint.setting_of(file, file.parent, health=False)) == []


@pytest.mark.parametrize("file", OURS, ids=names)
def test_it_builds_where_no_registry_is_in_reach_and_ends_with_nothing_but_what_it_copies(file: Path) -> None:
    assert len(bases_named(file)) == 1
    assert "RUN" not in file.read_text().partition("FROM scratch\n")[2]


@pytest.mark.parametrize("file", OURS, ids=names)
def test_the_builder_gets_what_is_named_and_nothing_else(file: Path) -> None:
    lines = Path(f"{file}.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert all(line.startswith(("!", "**/")) for line in lines[2:])


def test_each_has_a_budget_and_something_to_be_compared_with() -> None:
    known = ["example", *templates()]
    assert sorted(one.name for one in SUBJECTS) == sorted(known)
    assert BUDGETS.keys() == {("example",) if name == "example" else ("templates", name) for name in known}


def test_what_python_images_begin_with_is_the_same_to_the_letter_so_that_it_is_built_once() -> None:
    files = (DOCKER / "Dockerfile", DOCKER / "templates/python/Dockerfile", DOCKER.parent / "tests/apps/Dockerfile")
    firsts = [file.read_text().partition(" AS python\n")[2].partition("\nRUN groupadd")[0].partition("\n\n")[0] for file in files]
    assert len(set(firsts)) == 1
    assert "compileall" in firsts[0]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("app.3f9a1c7e.js", True),
        ("index-B7f3Kq2x.css", True),
        ("app-5KZ3TQ2X.js", True),
        ("index.html", False),
        ("terms-of-service.html", False),
        ("my-stylesheet.css", False),
        ("jquery.validate.js", False),
        ("jquery-bootstrap5.css", False),
        ("report-20260101.pdf", False),
    ],
)
def test_only_names_with_a_digest_in_them_are_kept_by_browsers(name: str, kept: bool) -> None:
    (digest,) = re.findall(r'"~(.*)" "public', (DOCKER / "templates/static/nginx.conf").read_text())
    assert bool(re.search(digest, f"/assets/{name}")) is kept
