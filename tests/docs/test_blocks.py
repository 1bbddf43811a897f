"""Every block of code in the documents is of a language, and is checked by what it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, all_blocks, blocks, name
from tests.docs.languages import CHECKS, WRONG

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)
SCRIPTED = "docs/restore-by-hand.md"
IGNORED = (
    "SC2009",  # ps is asked for states
    "SC2016",  # single quotes are meant: another shell, or SQL, reads what is in them
    "SC2034",  # a later block uses the variable
    "SC2139",  # an alias is for the home folder as it is
    "SC2164",  # somebody types it, and sees where they are
)


def shellcheck(scripts: Iterable[tuple[str, str]], folder: Path) -> list[str]:
    """Return what shellcheck has to say of scripts."""
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert program, "shellcheck is not there: run this with `nox -s docs`"
    files = {}
    for nth, (where, text) in enumerate(scripts):
        files[str(nth)] = where
        (folder / str(nth)).write_text(text)
    command = [program, "--shell=bash", "--format=json", f"--exclude={','.join(IGNORED)}", *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return [f"{files[one['file']]} line {one['line']}: SC{one['code']} {one['message']}" for one in json.loads(done.stdout)]


@every_document
def test_every_block_is_of_a_known_language_and_passes_its_check(document: Path) -> None:
    for block in all_blocks(document):
        if block.reason:
            continue
        assert block.language in CHECKS, f"{block.where}: say in languages.py how it is checked, or above it why it cannot be"
        try:
            CHECKS[block.language](block.text)
        except WRONG as error:
            pytest.fail(f"{block.where}: {error}")


@pytest.mark.parametrize(
    ("language", "wrong"),
    [
        ("bash", "if true; then\n"),
        ("console", "$ inv deploy\n  users at h: 65 requests were not failed\n"),
        ("dotenv", "PASSWORD: water\n"),
        ("json", "{'a': 1}"),
        ("logql", '{application="shop"}'),
        ("logql", '{app="shop"'),
        ("logql", '{app="shop"} || level'),
        ("python", "print 1"),
        ("python", ">>> 1 + 1\n3\n"),
        ("sh", 'inv deploy "'),
        ("text", "plan_no_deploy(env)"),
        ("text", "a = 1\n"),
        ("toml", "a = \n"),
        ("yaml", "a: b: c"),
    ],
)
def test_a_wrong_block_would_be_found(language: str, wrong: str) -> None:
    with pytest.raises(WRONG):
        CHECKS[language](wrong)


def test_shellcheck_finds_nothing_in_what_is_typed(tmp_path: Path) -> None:
    single = [(block.where, block.text) for document in DOCUMENTS for block in blocks(document, "sh")]
    together = "\n".join(block.text for document in DOCUMENTS if name(document) == SCRIPTED for block in blocks(document, "bash"))
    assert shellcheck([*single, (SCRIPTED, together)], tmp_path) == []


def test_shellcheck_would_find_a_mistake(tmp_path: Path) -> None:
    assert "SC2086" in shellcheck([("README.md", "rm -rf $1/x")], tmp_path)[0]


@every_document
def test_scripts_stand_only_where_an_integration_test_executes_them(document: Path) -> None:
    assert name(document) == SCRIPTED or not blocks(document, "bash")


def test_a_block_is_left_unchecked_only_with_a_reason_above_it(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("<!-- not checked: a drawing -->\n\n```art\n/|\\\n```\n\n<!-- not checked: -->\n```art\n/|\\\n```\n")
    assert [block.reason for block in all_blocks(document)] == ["a drawing", ""]
