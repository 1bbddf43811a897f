"""What the documents tell people to type can be typed."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from invoke.exceptions import ParseError
from invoke.parser import Parser, ParserContext
from invoke.program import Program

import tasks
from tests.docs.documents import DOCUMENTS, ROOT, blocks, name, shell_commands

PROGRAMS = ("inv", "nox", "pip", "pipx", "uvx", "python3", "cd", "alias", "head", "tail", "docker", "echo")
KNOWN = {*PROGRAMS, "~/tidegate/.venv/bin/pip"}
SESSIONS = set(re.findall(r"^@nox\.session.*\ndef (\w+)\(", (ROOT / "noxfile.py").read_text(), re.MULTILINE))

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


@cache
def parser() -> Parser:
    program = Program()
    initial = ParserContext(args=[*program.core_args(), *program.task_args()])
    return Parser(initial=initial, contexts=tasks.namespace.to_contexts())


def assert_parses(words: list[str]) -> None:
    """Fail when there is no such task or option."""
    parser().parse_argv(words[1:])


def session_of(words: list[str]) -> str | None:
    """Return the session that a nox command names."""
    return words[words.index("-s") + 1] if "-s" in words else None


@every_document
def test_every_inv_command_names_a_task_and_options_that_exist(document: Path) -> None:
    for words in shell_commands(document):
        if words[0] == "inv":
            assert_parses(words)


@pytest.mark.parametrize(
    "wrong", ["inv deploy.undo", "inv deploy --no-such-option", "inv deploy.exec -e production", "inv sandbox.up --hosts"]
)
def test_a_wrong_inv_command_would_be_found(wrong: str) -> None:
    with pytest.raises(ParseError):
        assert_parses(wrong.split())


@every_document
def test_every_nox_session_exists(document: Path) -> None:
    named = {session_of(words) for words in shell_commands(document) if "nox" in words[:3]}
    assert named - {None} <= SESSIONS


@every_document
def test_only_known_programs_are_typed(document: Path) -> None:
    assert {words[0] for words in shell_commands(document)} <= KNOWN


@every_document
def test_scripts_stand_only_where_an_integration_test_executes_them(document: Path) -> None:
    scripts = blocks(document, "bash")
    assert not scripts or name(document) == "docs/restore-by-hand.md"
    for script in scripts:
        checked = subprocess.run(["bash", "-n"], input=script.text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, script.where + checked.stderr


@every_document
def test_files_of_the_checkout_that_are_typed_exist(document: Path) -> None:
    typed = [
        word.removeprefix("~/tidegate/") for words in shell_commands(document) for word in words if word.startswith("~/tidegate/")
    ]
    assert [path for path in typed if not path.startswith(".venv") and not (ROOT / path).exists()] == []


def test_the_readme_shows_both_commands_and_the_whole_first_deployment() -> None:
    shown = [" ".join(words) for words in shell_commands(ROOT / "README.md")]
    wanted = ["pip install nox", "nox -s demo", "nox", "inv init", "inv server.trust -e production", "inv server.bootstrap -e production",
              "inv deploy -e production", "inv deploy.rollback -e production"]  # fmt: skip
    assert [command for command in wanted if command not in shown] == []


def test_every_task_is_in_a_document() -> None:
    shown = {words[1] for document in DOCUMENTS for words in shell_commands(document) if words[0] == "inv" and len(words) > 1}
    assert {"deploy" if known == "deploy.run" else known for known in tasks.namespace.task_names} <= shown
