from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example.process import Blog, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "blog.db"
    assert run(path, "migrate") == (0, "schema 0 -> 3\n")
    return path


@pytest.fixture
def blog(database: Path) -> Iterator[Blog]:
    with Blog(database, BLOG_VERSION="v1", TIDEGATE_RELEASE="7", TIDEGATE_SLOT="green", BLOG_TITLE="Tides") as blog:
        yield blog
