"""A Dockerfile as its instructions: what lint and the report on base images need of it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

_HEREDOC = re.compile(r"(?:^|\s)\d*<<-?[\"']?([A-Za-z_]\w*)[\"']?")  # neither `1 << 3` nor `<<< text`
_FROM = {"COPY": re.compile(r"--from=(\S+)"), "RUN": re.compile(r"--mount=(?:\S*,)?from=([^,\s]+)")}
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?[-+]([^}]*))?\}|(\w+))")


@dataclass(frozen=True)
class Instruction:
    """One instruction: the line it begins on, its word in capitals, the rest on one line, and the comments right above."""

    line: int
    word: str
    rest: str
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """What begins with a FROM: the image it names with arguments filled in, its own name, its instructions, the comments above."""

    line: int
    base: str
    name: str
    instructions: tuple[Instruction, ...]
    comments: tuple[str, ...] = ()


def instructions(text: str) -> list[Instruction]:
    """Return a Dockerfile's instructions, continued lines joined, heredocs left out."""
    found: list[Instruction] = []
    comments: list[str] = []
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        if line.lstrip().startswith("#"):
            comments.append(line.strip().lstrip("# "))
        elif not line.strip():
            comments.clear()
        else:
            whole = _continued(line, lines)
            _skip_heredocs(whole, lines)
            word, _, rest = whole.strip().partition(" ")
            found.append(Instruction(number, word.upper(), " ".join(rest.split()), tuple(comments)))
            comments.clear()
    return found


def _continued(line: str, lines: Iterator[tuple[int, str]]) -> str:
    whole = line
    while whole.rstrip().endswith("\\"):
        more = next((text for _, text in lines if text.strip() and not text.lstrip().startswith("#")), "")
        whole = f"{whole.rstrip()[:-1]} {more}"
    return whole


def _skip_heredocs(whole: str, lines: Iterator[tuple[int, str]]) -> None:
    if whole.split(None, 1)[0].upper() in ("RUN", "COPY", "ADD"):
        for end in _HEREDOC.findall(whole):
            next((True for _, text in lines if text.strip() == end), None)


def stages(text: str) -> list[Stage]:
    """Return a Dockerfile's stages."""
    found: list[Stage] = []
    arguments: dict[str, str] = {}
    for one in instructions(text):
        if one.word == "ARG" and not found:
            arguments |= {name: filled(value, arguments) for name, value in assignments(one)}
        elif one.word == "FROM":
            words = [word for word in one.rest.split() if not word.startswith("--")]
            name = words[2] if len(words) == 3 and words[1].upper() == "AS" else ""
            base = filled(words[0].strip("\"'"), arguments) if words else ""
            found.append(Stage(one.line, base, name, (), one.comments))
        elif found:
            last = found[-1]
            found[-1] = replace(last, instructions=(*last.instructions, one))
    return found


def lineage(all_stages: list[Stage]) -> list[Instruction]:
    """Return the instructions that the image of the last stage is made by, those of stages it builds on first."""
    found: list[Instruction] = []
    wanted = all_stages[-1].name if all_stages else ""
    for number in range(len(all_stages) - 1, -1, -1):
        stage = all_stages[number]
        if number == len(all_stages) - 1 or wanted in (stage.name, str(number)):
            found = [*stage.instructions, *found]
            wanted = stage.base
    return found


def bases(text: str) -> list[tuple[int, str]]:
    """Return the line and the name of each image that a Dockerfile takes from outside, once: FROM, COPY --from."""
    found: dict[str, int] = {}
    inside: set[str] = {"scratch", ""}
    for number, stage in enumerate(stages(text)):
        taken = [(stage.line, stage.base)]
        taken += [
            (one.line, name) for one in stage.instructions if one.word in _FROM for name in _FROM[one.word].findall(one.rest)
        ]
        for line, name in taken:
            if name.lower() not in inside:
                found.setdefault(name, line)
        inside |= {stage.name.lower(), str(number)}
    return [(line, name) for name, line in found.items()]


def assignments(one: Instruction) -> Iterator[tuple[str, str]]:
    """Yield names and values of an ARG, ENV or LABEL; a value that is not given is empty."""
    if one.word == "ENV" and "=" not in one.rest.partition(" ")[0]:
        name, _, value = one.rest.partition(" ")
        yield name, value
        return
    try:
        words = shlex.split(one.rest)
    except ValueError:
        words = one.rest.split()
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def filled(text: str, values: dict[str, str]) -> str:
    """Return a text with its variables replaced by the values known, else by their defaults; others stay."""
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[3]) or found[2] or found[0], text)
