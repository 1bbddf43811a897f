"""The documents: their blocks of code, commands, headings and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "docker", ".github")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])

_REASON = re.compile(r"<!-- not checked: (\S.*?) -->\s*$")
_TYPED = re.compile(r"(inv|tidegate|nox|pip|pipx|uvx) ")


@dataclass(frozen=True)
class Block:
    """A block of code: where it stands, under which heading, and why nothing can check it, if that is said above it."""

    where: str
    heading: str
    language: str
    text: str
    reason: str


def name(document: Path) -> str:
    """Return a document's path as people write it."""
    return document.relative_to(ROOT).as_posix() if document.is_relative_to(ROOT) else document.name


@cache
def _tokens(document: Path) -> tuple[Token, ...]:
    return tuple(MarkdownIt("commonmark").enable("table").parse(document.read_text()))


@cache
def all_blocks(document: Path) -> tuple[Block, ...]:
    """Return every block of code, also those that are indented."""
    found: list[Block] = []
    heading = above = before = ""
    for token in _tokens(document):
        if token.type in ("fence", "code_block"):
            where = f"{name(document)}:{token.map[0] + 1 if token.map else 0} {token.info}"
            reason = _REASON.search(before)
            found.append(Block(where, heading, token.info.strip(), token.content, reason[1] if reason else ""))
        if above == "h2" and token.type == "inline":
            heading = token.content
        above = token.tag if token.type == "heading_open" else ""
        before = token.content if token.type == "html_block" else ""
    return tuple(found)


def blocks(document: Path, *languages: str) -> list[Block]:
    """Return the blocks of these languages that can be checked."""
    return [block for block in all_blocks(document) if block.language in languages and not block.reason]


def by_heading(document: Path, language: str) -> dict[str, list[str]]:
    """Return the blocks of a language under each heading that has some."""
    found: dict[str, list[str]] = {}
    for block in blocks(document, language):
        found.setdefault(block.heading, []).append(block.text)
    return found


def prose(document: Path) -> str:
    """Return a document without its blocks of code."""
    lines = document.read_text().splitlines()
    for token in _tokens(document):
        if token.type in ("fence", "code_block") and token.map:
            lines[slice(*token.map)] = [""] * (token.map[1] - token.map[0])
    return "\n".join(lines)


def _inside(document: Path) -> Iterator[Token]:
    return (child for token in _tokens(document) if token.type == "inline" for child in token.children or ())


def inline(document: Path) -> list[str]:
    """Return what stands in backticks in the prose."""
    return [token.content for token in _inside(document) if token.type == "code_inline"]


def links(document: Path) -> list[str]:
    """Return the targets of links and images."""
    found = (token.attrGet("href" if token.type == "link_open" else "src") for token in _inside(document))
    return [str(target) for target in found if target]


@cache
def anchors(document: Path) -> frozenset[str]:
    """Return the anchors that a document's headings get."""
    tokens = _tokens(document)
    headings = (after for token, after in pairwise(tokens) if token.type == "heading_open")
    texts = ("".join(child.content for child in heading.children or ()) for heading in headings)
    return frozenset(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts)


def commands(text: str) -> Iterator[list[str]]:
    """Split the lines of a shell block into commands of words, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
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


def typed(document: Path) -> list[str]:
    """Return what is typed after the prompts of the terminals that a document shows."""
    return [line[2:] for block in blocks(document, "console") for line in block.text.splitlines() if line.startswith("$ ")]


def shell_commands(document: Path) -> list[list[str]]:
    """Return every command that a document shows: in shell blocks, after a prompt, and `inv …` or `nox …` in the prose."""
    shown = [block.text for block in blocks(document, "sh")]
    said = [re.sub(r"^(nox\b.*?)( -s)? …$", r"\1", text) for text in inline(document) if _TYPED.match(text)]
    return [words for text in [*shown, *typed(document), *said] if "…" not in text for words in commands(text)]


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of every table's rows, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.match(r"\|\s*-", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
