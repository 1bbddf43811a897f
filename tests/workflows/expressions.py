"""The part of GitHub's expressions that our workflows use; whatever else comes up is an error, never a guess."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>\d+)|(?P<name>[A-Za-z_][\w.-]*)|(?P<sign>==|!=|&&|\|\||[!(),]))")
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "null": None}
# Where a name that is not there is an empty value, as on GitHub; elsewhere it is a mistake of ours.
_OPTIONAL = ("inputs", "vars", "secrets", "matrix")


class Unknown(Exception):
    """An expression has something that GitHub may know but this does not."""


@dataclass(frozen=True)
class Known:
    """What an expression may refer to, and how the job stands."""

    contexts: Mapping[str, Any]
    functions: Mapping[str, Callable[..., Any]]


def filled(text: str, known: Known) -> str:
    """Return text with each `${{ … }}` replaced by its value as GitHub writes it."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: written(evaluate(found[1], known)), text, flags=re.DOTALL)


def value(text: Any, known: Known) -> Any:
    """Return the value of a field: of any kind where it is one expression and nothing else."""
    if not isinstance(text, str):
        return text
    whole = re.fullmatch(r"\s*\$\{\{((?:(?!\}\}).)*)\}\}\s*", text, re.DOTALL)
    return evaluate(whole[1], known) if whole else filled(text, known)


def condition(text: str, known: Known) -> bool:
    """Say whether an `if` holds; without a word on failures it means "and nothing failed"."""
    bare = re.sub(r"^\s*\$\{\{(.*)\}\}\s*$", r"\1", text, flags=re.DOTALL)
    asks = re.search(r"\b(success|failure|cancelled|always)\(", bare)
    return truthy(evaluate(bare, known)) and (bool(asks) or bool(known.functions["success"]()))


def evaluate(text: str, known: Known) -> Any:
    """Return an expression's value. Raises Unknown."""
    reader = _Reader(list(_tokens(text)), known)
    found = reader.either()
    if reader.tokens:
        raise Unknown(f"{text.strip()!r}: {reader.tokens[0][1]!r} is too much")
    return found


def truthy(found: Any) -> bool:
    """Say what GitHub takes for true: all but false, 0, '' and null."""
    return found not in (False, 0, "", None)


def written(found: Any) -> str:
    """Return a value as text."""
    if found is None or isinstance(found, bool):
        return {None: "", True: "true", False: "false"}[found]
    return str(found)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position, text = 0, text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found or not found.lastgroup:
            raise Unknown(f"{text!r}: {text[position:]!r}")
        yield found.lastgroup, found[found.lastgroup]
        position = found.end()


@dataclass
class _Reader:
    tokens: list[tuple[str, str]]
    known: Known

    def either(self) -> Any:
        found = self.both()
        while self._take("||"):
            other = self.both()
            found = found if truthy(found) else other
        return found

    def both(self) -> Any:
        found = self.equal()
        while self._take("&&"):
            other = self.equal()
            found = other if truthy(found) else found
        return found

    def equal(self) -> Any:
        found = self.single()
        for sign in ("==", "!="):
            if self._take(sign):
                return _same(found, self.single()) == (sign == "==")
        return found

    def single(self) -> Any:
        if self._take("!"):
            return not truthy(self.single())
        if self._take("("):
            found = self.either()
            self._need(")")
            return found
        kind, word = self._next()
        if kind == "text":
            return word[1:-1].replace("''", "'")
        if kind == "number":
            return int(word)
        if kind == "name":
            return self._call(word) if self._take("(") else self._named(word)
        raise Unknown(f"{word!r} begins nothing")

    def _call(self, name: str) -> Any:
        arguments = []
        while not self._take(")"):
            arguments.append(self.either())
            self._take(",")
        if name == "fromJSON":
            return json.loads(*arguments)
        if name not in self.known.functions:
            raise Unknown(f"the function {name}")
        return self.known.functions[name](*arguments)

    def _named(self, name: str) -> Any:
        if name in _WORDS:
            return _WORDS[name]
        first, *rest = name.split(".")
        if first not in self.known.contexts:
            raise Unknown(f"the context {first}")
        found = self.known.contexts[first]
        for part in rest:
            if part not in found and first not in _OPTIONAL:
                raise Unknown(name)
            found = found.get(part)
        return found

    def _next(self) -> tuple[str, str]:
        if not self.tokens:
            raise Unknown("it ends too early")
        return self.tokens.pop(0)

    def _take(self, sign: str) -> bool:
        if self.tokens and self.tokens[0] == ("sign", sign):
            self.tokens.pop(0)
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise Unknown(f"{sign!r} is missing")


def _same(one: Any, other: Any) -> bool:
    """Compare as GitHub does what can be compared without rules for kinds: texts without case, null as ''."""
    left, right = ("" if value is None else value for value in (one, other))
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()
    if isinstance(left, bool) and isinstance(right, bool):
        return left == right
    if "" in (left, right):
        return not truthy(left) and not truthy(right)
    raise Unknown(f"comparing {one!r} with {other!r}")
