"""Messages name the command that people here have: `inv` in a clone, `tidegate` where the wheel is installed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from ops.program import CLONE, TASKS, WHEEL, called

ROOT = Path(__file__).parents[2]


def messages() -> Iterator[str]:
    """Every text in our code that names a command of ours, but for docstrings."""
    for folder in ("ops", "deploy", "backup", "monitoring"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from texts(ast.parse(path.read_text()))
    yield from texts(ast.parse((ROOT / "tasks.py").read_text()))


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"\binv [a-z]", node.value):
            yield node.value


def test_every_command_in_a_message_is_renamed() -> None:
    told = list(messages())
    assert len(told) > 100
    assert [text for text in told if "inv …" not in text and re.search(r"\binv [a-z]", called(text, WHEEL))] == []


def test_every_task_is_known_to_be_one() -> None:
    assert {name.partition(".")[0] for name in tasks.namespace.task_names} <= set(TASKS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inv deploy -e shop", "tidegate deploy -e shop"),
        ("`inv sandbox.up`", "`tidegate sandbox.up`"),
        ("mend it, then inv backup.run; inv server.check", "mend it, then tidegate backup.run; tidegate server.check"),
        ("inv deployment", "inv deployment"),
        ("dinv deploy", "dinv deploy"),
        ("/opt/inv deploy, my-inv deploy", "/opt/inv deploy, my-inv deploy"),
        ("inv rm -rf /", "inv rm -rf /"),
        ("", ""),
    ],
)
def test_nothing_but_our_commands_is_renamed(text: str, expected: str) -> None:
    assert called(text, WHEEL) == expected
    assert called(text, CLONE) == called(text) == text
