"""Commands that the documents show are run: here those that need no server, the others by tests on servers and in workflows."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.config import load
from tests.docs.documents import DOCUMENTS, ROOT, blocks, shell_commands
from tests.docs.test_commands import TASKS, TOLD

NEED_NO_SERVER = {"--list", "init", "config.check", "config.show", "docker.lint"}
NOT_RUN = {
    "backup.elsewhere": "needs a second store: tests/backup/test_retrieve.py has one, and asks the program on the server",
    "backup.fetch": "tests/backup/test_commands.py calls the task, on servers in its own process",
    "backup.rehearse": "tests/integration/test_rehearse.py asks the program on the server",
    "backup.restore-undo": "tests/integration/test_restore.py asks the program on the server",
    "backup.retrieve": "as backup.elsewhere",
    "backup.schedule": "tests/integration/test_schedule.py calls what the task calls",
    "coverage": "tests/deploy/test_app_coverage.py calls what the task calls",
    "monitoring.open": "ends by Ctrl-C only: tests/monitoring/test_opening.py opens pages through a connection",
    "monitoring.upgrade": "tests/integration/test_monitoring_upgrade.py calls what the task calls",
}  # it may only become shorter
COMMANDS = sorted({tuple(words) for document in DOCUMENTS for words in shell_commands(document)
                   if words[0] == "inv" and words[1:] and words[1] in NEED_NO_SERVER})  # fmt: skip
DOCKERFILE = """\
FROM debian:trixie-slim
COPY --chmod=755 serve /serve
USER 10001
HEALTHCHECK CMD ["/serve", "--check"]
CMD ["/serve"]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An app's folder."""
    folder = tmp_path / "shop"
    folder.mkdir()
    return folder


def run(words: tuple[str, ...], folder: Path) -> str:
    """Run an inv command as the README's alias does; returns what it says."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
    done = subprocess.run([sys.executable, "-m", "invoke", "-r", str(ROOT), *words[1:]], cwd=folder, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configuration() -> str:
    """Return the ops.toml that the README shows."""
    return blocks(ROOT / "README.md", "toml")[0].text


def test_the_list_of_tasks_has_every_task(shop: Path) -> None:
    listed = {line.split()[0] for line in run(("inv", "--list"), shop).splitlines() if line.startswith("  ") and line[2] != " "}
    assert {"deploy" if task == "deploy.run" else task for task in listed} == TASKS


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[1] != "init" or "--list" in words], ids=" ".join)
def test_what_needs_no_server_runs_as_it_is_typed(words: tuple[str, ...], shop: Path) -> None:
    (shop / "ops.toml").write_text(configuration())
    (shop / "Dockerfile").write_text(DOCKERFILE)
    (shop / ".dockerignore").write_text(".git\n")
    assert run(words, shop)


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[1] == "init" and "--list" not in words], ids=" ".join)
def test_a_first_configuration_is_written_as_it_is_typed_and_is_fine(words: tuple[str, ...], shop: Path) -> None:
    if "--template" not in words:
        (shop / "Dockerfile").write_text(DOCKERFILE)
    run(words, shop)
    assert "is fine" in run(("inv", "config.check"), shop)
    assert load(shop / "ops.toml", {}).app.name == "shop"


def executed() -> set[str]:
    """Return the tasks that integration tests and the demo type, and those of the workflows, whose jobs tests/workflows runs."""
    files = [*(ROOT / "tests/integration").glob("*.py"), *(ROOT / "deploy").glob("demo*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    typed = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    return TASKS & typed | {
        task for file in (ROOT / ".github/workflows").glob("*.yml") for task in TOLD.findall(file.read_text())
    }


def test_every_task_is_typed_by_a_test_or_there_is_a_reason() -> None:
    assert sorted(TASKS - executed() - NEED_NO_SERVER) == sorted(NOT_RUN)
