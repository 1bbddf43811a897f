"""The documents: their blocks of code, commands, headings and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Snippet:
    """Text from a document, with where it stands."""

    where: str
    text: str


def name(document: Path) -> str:
    """Return a document's path as people write it."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[Snippet]:
    """Return the fenced blocks of a language."""
    found = [match[2] for match in _BLOCK.finditer(document.read_text()) if match[1] == language]
    return [Snippet(f"{name(document)} {language} {nth}", text) for nth, text in enumerate(found, 1)]


def by_heading(document: Path, language: str) -> dict[str, list[str]]:
    """Return the fenced blocks of a language under each heading that has some."""
    parts = re.split(r"^## (.+)$", document.read_text(), flags=re.MULTILINE)[1:]
    found = {
        heading: [match[2] for match in _BLOCK.finditer(text) if match[1] == language]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {heading: texts for heading, texts in found.items() if texts}


def prose(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return _BLOCK.sub("", document.read_text())


def inline(document: Path) -> list[str]:
    """Return what stands in backticks in the prose."""
    return _INLINE.findall(prose(document))


def links(document: Path) -> list[str]:
    """Return the targets of the links in the prose."""
    return _LINK.findall(prose(document))


def anchors(document: Path) -> set[str]:
    """Return the anchors that a document's headings get."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """Split the lines of a shell block into commands of words, without comments."""
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word and set(word) <= set("&;|"):
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def shell_commands(document: Path) -> list[list[str]]:
    """Return every command that a document shows: in shell blocks, after a prompt, and `inv …` or `nox …` in the prose."""
    shown = [words for block in blocks(document, "sh") for words in commands(block.text)]
    typed = [line[2:] for block in blocks(document, "text") for line in block.text.splitlines() if line.startswith("$ ")]
    said = [text for text in inline(document) if re.match(r"(inv|nox|pip|pipx|uvx) ", text) and "…" not in text]
    return shown + [words for line in [*typed, *said] for words in commands(line)]


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of every table's rows, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.match(r"\|\s*-", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
