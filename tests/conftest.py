"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.pop("COLUMNS", None)  # a worker of pytest-xdist has one, and tables would be folded to it
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # read when it is imported; its image needs a registry

# The files that take longest come first, so that no worker is left with one of them at the end.
LONGEST = (
    "integration/test_monitoring.py", "integration/test_bootstrap.py", "integration/test_services.py", "integration/test_backups.py",
    "integration/test_ten_deploys.py", "integration/test_commands.py", "integration/test_backup_faults.py", "contract/test_server.py",
    "integration/test_postgres_driver.py", "integration/test_mariadb_driver.py", "integration/test_hostile_values.py",
    "integration/test_public_grafana.py", "integration/test_failing_versions.py", "integration/test_restore.py",
    "integration/test_rehearse.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of those files first; all others stay in their order."""
    rank = {name: nth for nth, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(f"{item.path.parent.name}/{item.path.name}", len(LONGEST)))


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


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new folder whose name is short: a unix socket's has 107 characters at most, and some are in folders below."""
    return tmp_path_factory.mktemp("t")
