"""A value that is never shown."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from ops.errors import TidegateError

MASK = "********"
SHORTEST = 4  # anything shorter is found everywhere and protects nothing


class Secret:
    """A secret string whose every rendering is a mask; `reveal()` is the only way to the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


class Mask:
    """A context manager that takes the values of secrets out of the errors that pass through it, logs quoted included."""

    def __init__(self, values: Mapping[str, str | Secret]) -> None:
        revealed = {value.reveal() for value in values.values() if isinstance(value, Secret)}
        self._values = sorted((one for one in revealed if len(one) >= SHORTEST), key=len, reverse=True)

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, TidegateError):
            error.what, error.why = self.hide(error.what), self.hide(error.why)
            error.args = (error.what,)

    def hide(self, text: str) -> str:
        """Return the text with a mask in place of every secret of at least `SHORTEST` characters."""
        for value in self._values:
            text = text.replace(value, MASK)
        return text
