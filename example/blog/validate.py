"""What the API accepts."""

from __future__ import annotations

from collections.abc import Mapping

LIMITS = {"title": 200, "body": 20_000}


class InputError(Exception):
    """The input is refused; `problems` names every reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def new_post(data: object) -> tuple[str, str]:
    """Return the title and body of a valid new post, or raise InputError with all that is wrong."""
    if not isinstance(data, dict):
        raise InputError(["expected an object with title and body"])
    problems = [f"{name}: unknown" for name in map(ascii, sorted(data.keys() - LIMITS)[:10])]
    problems += [f"{name}: {problem}" for name in LIMITS if (problem := _problem(data.get(name), LIMITS[name]))]
    if problems:
        raise InputError(problems)
    return data["title"].strip(), data["body"]


def number(values: Mapping[str, str], name: str, *, default: int, maximum: int) -> int:
    """Return a whole number from 1 to `maximum`, the default when it is absent, or raise InputError."""
    text = values.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= maximum):
        raise InputError([f"{name}: expected a whole number from 1 to {maximum}"])
    return int(text)


def _problem(text: object, limit: int) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return "expected text"
    if len(text) > limit:
        return f"{len(text)} characters, at most {limit}"
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return "contains characters that are not text"
    return None
