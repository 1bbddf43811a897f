"""Problems in a configuration: where they are, what was expected and what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from ops.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
Place = Callable[[Path], tuple[str, Path]]

_EXPECTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} in the list",
    "path_type": "a path in quotes",
    "literal_error": "{expected}",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `found` is empty when something is missing."""

    file: str
    key: str
    expected: str
    found: str = ""

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: expected {self.expected}" + (f", found {self.found}" if self.found else "")


class ConfigProblems(ConfigError):
    """Everything that is wrong with a configuration, at once."""

    def __init__(self, problems: Iterable[Problem], fix: str = "") -> None:
        self.problems = tuple(dict.fromkeys(problems))
        count = len(self.problems)
        head = [] if count == 1 else [f"{count} problems in the configuration"]
        super().__init__("\n  ".join([*head, *map(str, self.problems)]), fix=fix)


def key_path(path: Iterable[str | int]) -> str:
    """Write a path into a document as people do: `environments.production.hosts[1].port`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else shown(part))
    return text


def shown(value: object, limit: int | None = 60) -> str:
    """Render a value on one line, shortened, with nothing that a terminal would obey."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list, tuple)):
        return "a table" if isinstance(value, dict) else f"a list of {len(value)}"
    text = str(value)
    text = text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
    return f'"{"".join(map(_escaped, text))}"' if isinstance(value, str) else text


def from_pydantic(errors: Iterable[ErrorDetails], model: type[BaseModel], place: Place, above: Path = ()) -> list[Problem]:
    """Turn pydantic's errors into ours; `place` says in which file and under which key a path was written."""
    errors = list(errors)
    return [_problem(error, model, place, above) for error in errors if not _follows(error, errors)]


def unknown_key(known: Iterable[str], key: str) -> str:
    """Say which keys are known, the likely one first."""
    from difflib import get_close_matches

    names = sorted(known)
    close = get_close_matches(key, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"one of {', '.join(names)}{hint}"


def _problem(error: ErrorDetails, model: type[BaseModel], place: Place, above: Path) -> Problem:
    wrong_key = error["loc"][-1:] == ("[key]",)
    loc = error["loc"][:-1] if wrong_key else error["loc"]
    file, path = place(loc)
    if error["type"] == "missing":
        return Problem(file, key_path(path), "a value, it is required")
    if error["type"] == "extra_forbidden":
        known = unknown_key(_known(model, loc[:-1]), str(loc[-1]))
        return Problem(file, key_path(path), known, f"the unknown key {shown(str(loc[-1]))}")
    return Problem(file, key_path(path), _expected(error), _found(error, above + loc, wrong_key=wrong_key))


def _found(error: ErrorDetails, path: Path, *, wrong_key: bool) -> str:
    if error["input"] is None:  # TOML has no such value: nothing was written
        return ""
    found = f"the key {shown(str(error['input']))}" if wrong_key else shown(error["input"])
    return "a value that is not shown" if _hidden(path) else found


def _follows(error: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """Whether a list is only too short because its items are wrong."""
    loc = error["loc"]
    inside = (other["loc"] for other in errors if other["loc"][: len(loc)] == loc)
    return error["type"] == "too_short" and any(len(other) > len(loc) for other in inside)


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    template = _EXPECTED.get(error["type"])
    return template.format(**context) if template else error["msg"]


def _hidden(path: Path) -> bool:
    """Whether a secret may stand here by mistake, where its name belongs."""
    in_backup = "backup" in path and {"password", "ping", "identity", "recipients", "offsite"} & set(path)
    in_monitoring = "monitoring" in path and {"heartbeat", "webhook", "url", "password", "key", "runbooks"} & set(path)
    in_storage = "object_storage" in path and {"access_key", "secret_key"} & set(path)
    named = "secrets" in path or "urls" in path or path[-2:] == ("tls", "key")
    return named or bool(in_backup or in_monitoring or in_storage)


def _known(model: type[BaseModel], path: Path) -> Iterable[str]:
    current = model
    for part in path:
        inner = current.model_fields.get(str(part))
        current = (_model_in(inner.annotation) if inner else None) or current
    return current.model_fields


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}"
