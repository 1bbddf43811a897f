"""Nox sessions are what the documents say."""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, ROOT, name, shell_commands

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


@dataclass(frozen=True)
class Session:
    """A session of the noxfile."""

    name: str
    default: bool
    tags: tuple[str, ...]


def session(function: ast.FunctionDef) -> Session | None:
    """Return what a function's decorator makes of it."""
    for decorator in function.decorator_list:
        if ast.unparse(decorator).startswith("nox.session"):
            given = decorator.keywords if isinstance(decorator, ast.Call) else []
            said = {one.arg: ast.literal_eval(one.value) for one in given if one.arg in ("name", "default", "tags")}
            return Session(said.get("name", function.name), said.get("default", True), tuple(said.get("tags", ())))
    return None


TREE = ast.parse((ROOT / "noxfile.py").read_text())
SESSIONS = [found for node in TREE.body if isinstance(node, ast.FunctionDef) for found in [session(node)] if found]


def nox_parser() -> argparse.ArgumentParser:
    """Return what of nox's command line the documents use."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-s", "--sessions", nargs="+", default=[])
    parser.add_argument("-t", "--tags", nargs="+", default=[])
    parser.add_argument("-l", "--list", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


def called(words: list[str]) -> argparse.Namespace:
    """Parse a nox command; what follows `--` is for the session."""
    ours = words[words.index("nox") + 1 :]
    return nox_parser().parse_args(ours[: ours.index("--")] if "--" in ours else ours)


def assert_runs(words: list[str]) -> None:
    """Fail when there is no such session or tag."""
    asked = called(words)
    assert {one.partition("-3.")[0] for one in asked.sessions} <= {one.name for one in SESSIONS}
    assert set(asked.tags) <= {tag for one in SESSIONS for tag in one.tags}


@every_document
def test_every_nox_command_names_sessions_and_tags_that_exist(document: Path) -> None:
    for words in shell_commands(document):
        if "nox" in words[:3] and words[0] != "pip":
            assert_runs(words)


@pytest.mark.parametrize("wrong", ["nox -s everything", "nox -t everything", "nox --everything", "uvx nox -s tests-2.7"])
def test_a_wrong_nox_command_would_be_found(wrong: str) -> None:
    with pytest.raises((AssertionError, argparse.ArgumentError, SystemExit)):
        assert_runs(wrong.split())


def test_every_session_is_called_by_a_document() -> None:
    shown = [words for document in DOCUMENTS for words in shell_commands(document) if "nox" in words[:3] and words[0] != "pip"]
    assert {one.name for one in SESSIONS if not one.default} <= {known for words in shown for known in called(words).sessions}


def test_contributing_names_every_session_that_runs_by_default() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    told = text.partition("# what CI runs: ")[2].partition("\n")[0].split(", ")
    assert told == [one.name for one in SESSIONS if one.default]
