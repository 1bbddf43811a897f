"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.pop("COLUMNS", None)  # a worker of pytest-xdist has one, and tables would be folded to it
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # read when it is imported; its image needs a registry


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what deploys remember between commands out of the user's own cache folder."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
