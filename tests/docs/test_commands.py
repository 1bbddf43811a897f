"""What the documents tell people to type can be typed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from invoke.exceptions import ParseError
from invoke.parser import Parser, ParserContext
from invoke.program import Program

import tasks
from tests.docs.documents import DOCUMENTS, ROOT, blocks, inline, name, shell_commands
from tests.docs.languages import FILES

HERE = {"alias", "cd", "docker", "echo", "inv", "nox", "pip", "pipx", "python3", "tidegate", "uvx", "~/tidegate/.venv/bin/pip"}
ON_SERVERS = {"cat", "curl", "df", "dmesg", "docker", "du", "echo", "free", "grep", "head", "journalctl", "last", "ls", "mount", "ps",
              "python3", "rm", "sort", "systemctl", "tail", "timedatectl", "uptime"}  # fmt: skip
RUN_OTHERS = {"sudo", "xargs"}
TASKS = {"deploy" if known == "deploy.run" else known for known in tasks.namespace.task_names}
TOLD = re.compile(rf"\binv ([a-z]+\.[a-z]+(?:-[a-z]+)*|{'|'.join(task for task in TASKS if '.' not in task)})\b(?![.…])")
MESSAGES = [path for path in [*FILES, *ROOT.glob("*.toml"), *(ROOT / "monitoring").rglob("*.y*ml")] if "inv " in path.read_text()]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


@cache
def contexts() -> dict[str, ParserContext]:
    """Return every task as Invoke's parser sees it."""
    return {name: one for one in tasks.namespace.to_contexts() for name in (one.name, *one.aliases) if name}


def assert_parses(words: list[str]) -> None:
    """Fail when there is no such task or option."""
    program = Program()
    initial = ParserContext(args=[*program.core_args(), *program.task_args()])
    named = [contexts()[word] for word in words if word in contexts()]  # a parser copies all that it knows at every parse
    Parser(initial=initial, contexts=named).parse_argv(words[1:])


def programs(words: list[str]) -> set[str]:
    """Return the program that a command starts, and the one that this starts in turn."""
    if words[0] not in RUN_OTHERS:
        return {words[0]}
    return programs([word for word in words[1:] if not word.startswith("-")])


@every_document
def test_every_inv_command_names_a_task_and_options_that_exist(document: Path) -> None:
    for words in shell_commands(document):
        is_named_only = words[1:] in [[task] for task in TASKS] and " ".join(words) in inline(document)
        if words[0] in ("inv", "tidegate") and not is_named_only:
            assert_parses(words)


@pytest.mark.parametrize(
    "wrong", ["inv deploy.undo", "inv deploy --no-such-option", "inv deploy.exec -e production", "inv sandbox.up --hosts"]
)
def test_a_wrong_inv_command_would_be_found(wrong: str) -> None:
    with pytest.raises(ParseError):
        assert_parses(wrong.split())


@every_document
def test_commands_that_are_cut_short_begin_with_a_task_or_a_group_of_tasks(document: Path) -> None:
    cut = [text.split()[1] for text in inline(document) if re.match(r"(inv|tidegate) .*…", text)]
    groups = {"…", *(f"{group}.…" for group in tasks.namespace.collections)}
    assert set(cut) <= TASKS | groups


@pytest.mark.parametrize("path", MESSAGES, ids=name)
def test_commands_that_messages_and_comments_tell_to_type_exist(path: Path) -> None:
    assert set(TOLD.findall(path.read_text())) <= TASKS


@every_document
def test_commands_in_drawings_exist(document: Path) -> None:
    assert {task for block in blocks(document, "text") for task in TOLD.findall(block.text)} <= TASKS


@every_document
def test_only_known_programs_are_typed(document: Path) -> None:
    typed = {program for words in shell_commands(document) for program in programs(words)}
    assert typed <= HERE | ON_SERVERS


@every_document
def test_python_that_is_typed_compiles(document: Path) -> None:
    for words in shell_commands(document):
        if words[:2] == ["python3", "-c"]:
            compile(words[2], name(document), "exec")


@every_document
def test_alerts_that_are_silenced_exist(document: Path) -> None:
    alerts = {page.stem for page in (ROOT / "docs/runbooks").glob("*.md")} | {"NAME"}
    assert {words[words.index("--alert") + 1] for words in shell_commands(document) if "--alert" in words} <= alerts


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
    assert sorted(TASKS - shown) == []
