from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blog import migrations

from tests.example.databases import Database, PostgresServer, SqliteFile, postgres, store
from tests.example.process import Blog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database that has had no migration; each test that uses it runs on both stores."""
    if request.param == "sqlite":
        return SqliteFile(tmp_path / "blog.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create()


@pytest.fixture
def database(empty: Database) -> Database:
    assert migrations.migrate(store(empty)) == "schema 0 -> 3"
    return empty


@pytest.fixture
def blog(database: Database) -> Iterator[Blog]:
    with Blog(database, BLOG_VERSION="v1", TIDEGATE_RELEASE="7", TIDEGATE_SLOT="green", BLOG_TITLE="Tides") as blog:
        yield blog
