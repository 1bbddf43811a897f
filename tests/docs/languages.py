"""How a block of code is checked, by its language."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import yaml

from ops.env_file import read_env_file
from ops.errors import ConfigError
from tests.docs.documents import ROOT

PACKAGES = ("ops", "deploy", "backup", "monitoring")
FILES = [ROOT / "tasks.py", *(path for folder in PACKAGES for path in sorted((ROOT / folder).rglob("*.py")))]
SOURCES = "".join(path.read_text() for path in FILES)
_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_FILLED = re.compile(r"\{[^{}]*\}")
LABELS = {"app", "container", "host", "job", "process", "release", "slot"}  # of logs: docs/monitoring-logs.md


def writes(file: str) -> bool:
    """Say whether the code knows a file by its name; names that it puts together by stem and suffix."""
    return file in SOURCES or (
        not file.endswith(("json", "jsonl")) and all(one in SOURCES for one in re.findall(r"\.?[^.]+", file))
    )


def _bash(text: str) -> None:
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def _console(text: str) -> None:
    """Every line that a terminal shows is one that the code can say, or, indented further, one of the app's own."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith(("$ ", "    ")))
    assert [line for line in lines if not _said(_bare(line))] == []


def _bare(line: str) -> str:
    """Return a line without its mark, and a phase without the time it took."""
    return re.sub(r"^  (?:[✓!·] |cause: |next:  )|^✗ |^  |(?<=   )[0-9.]+ s$", "", line).strip()


def _said(line: str) -> bool:
    return line.isdigit() or any(_fits(parts, line) for parts in _messages())


def _fits(parts: list[str], line: str) -> bool:
    """Say whether a line has all these parts, one after the other, from its beginning to its end."""
    at = 0
    for part in parts:
        found = line.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return line.startswith(parts[0]) and line.endswith(parts[-1]) and (len(parts) > 1 or line == parts[0])


def _dotenv(text: str) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        assert read_env_file(Path(file.name))


def _python(text: str) -> None:
    if ">>>" in text:
        failed = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(text, {}, "example", None, 0)).failed
        assert not failed
    else:
        compile(text, "example", "exec")


def _logql(text: str) -> None:
    """Each line is a query of streams by labels that streams have, closed wherever something is opened."""
    for line in text.splitlines():
        selector = re.fullmatch(r'\{(.+?)\}(( (\||\|=|\|~|!=|!~) ([\w.]+( ?[=<>~!]+ ?)?)?("[^"]*"|[\d.]+)?)*)', line)
        assert selector, line
        assert {re.split("[=!]", part)[0].strip() for part in selector[1].split(",")} <= LABELS, line


def _is_toml(text: str) -> bool:
    try:
        return bool(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return False


def _text(text: str) -> None:
    """It is no configuration that could be read, and functions that a drawing names are there."""
    assert not _is_toml(text), "that is toml"
    named = {f"def {function}(" for function in re.findall(r"\b([a-z]\w+)\(", text)}
    assert [one for one in named if one not in SOURCES] == []


WRONG = (AssertionError, SyntaxError, ValueError, yaml.YAMLError, ConfigError)
CHECKS: dict[str, Callable[[str], object]] = {
    "bash": _bash,
    "console": _console,
    "dotenv": _dotenv,
    "json": json.loads,
    "logql": _logql,
    "python": _python,
    "sh": _bash,
    "text": _text,
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}


@cache
def _messages() -> list[list[str]]:
    """Return the lines that the code may say, cut where it fills something in."""
    strings = _STRING.findall(re.sub(r'"\s*\n\s*f?"', "", SOURCES))
    texts = (text for string in strings for text in string.split("\\n"))
    pieces = {text.strip() for text in texts if re.search("[a-z]{3}", _FILLED.sub("", text))}
    cut = [_FILLED.split(text) for text in pieces]
    return [parts for parts in cut if len(parts) == 1 or len(" ".join(parts).split()) > 1]
