"""Private files of KEY=VALUE lines."""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

from ops.errors import ConfigError

_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<key>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*
    (?:'(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<plain>[^'"\s\#][^\n]*?|))
    [ \t]*(?:(?<=\s)\#[^\n]*)?(?:\n|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read_env_file(path: Path) -> dict[str, str]:
    """Read KEY=VALUE lines; {} without the file, ConfigError when others may read it or a line is unclear."""
    try:
        data = _read_private(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError("cannot be read", where=path.name, why=error.strerror or type(error).__name__) from None
    try:
        return _parse(data.decode("utf-8-sig").replace("\r\n", "\n"), path.name)
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", where=path.name, fix="save it as UTF-8") from None


def read_env_text(text: str, where: str) -> dict[str, str]:
    """Read the KEY=VALUE lines of a text that came some other way than in a file. Raises ConfigError."""
    return _parse(text.replace("\r\n", "\n"), where)


def _read_private(path: Path) -> bytes:
    """Check the very descriptor that is read, opened so that a FIFO does not block us."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("expected a regular file", where=path.name)
        _check_private(path, status)
        return file.read()


def _check_private(path: Path, status: os.stat_result) -> None:
    us, mode = os.geteuid(), stat.S_IMODE(status.st_mode)
    if status.st_uid != us:
        fix = f"chown {us} {shlex.quote(str(path))}"
        raise ConfigError(f"belongs to user {status.st_uid}, not to you ({us})", where=path.name, fix=fix)
    if mode & 0o177:
        fix = f"chmod 600 {shlex.quote(str(path))}"
        raise ConfigError(f"expected mode 0600, found {mode:04o}", where=path.name, why="it holds secrets", fix=fix)


def _parse(text: str, file: str) -> dict[str, str]:
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        blank = _BLANK.match(text, position)
        match = blank or _LINE.match(text, position)
        where = f"{file}: line {text.count(chr(10), 0, position) + 1}"
        if match is None:
            raise ConfigError("expected KEY=VALUE, KEY='VALUE' or KEY=\"VALUE\"", where=where)
        if not blank:
            _add(values, match, where)
        position = match.end()
    return values


def _add(values: dict[str, str], match: re.Match[str], where: str) -> None:
    key, double = match["key"], match["double"]
    if key in values:
        raise ConfigError(f"{key} is set twice", where=where, fix="keep one of the two lines")
    values[key] = (match["single"] or match["plain"] or "") if double is None else _unescaped(double)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text, flags=re.DOTALL)
