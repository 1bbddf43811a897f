"""The tree of errors; each kind has the exit code that `inv` returns.

TidegateError
├── Failed           1  failed and undone: the old version serves
├── ConfigError      2  configuration or usage
├── Refused          3  refused before any change
│   └── Unreachable  3  a server cannot be reached or trusted
├── Locked           4  another deploy holds the lock
├── NeedsPerson      5  the undo did not complete; says exactly what is where
├── Partial          6  some sources of a backup were saved and some were not
└── Defect          70  a mistake in Tidegate itself, not while anything was being changed
"""

from __future__ import annotations


class TidegateError(Exception):
    """An error to show a person: where it happened, why, and the next command to run."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [head]
        lines += [f"  cause: {self.why}"] if self.why else []
        lines += [f"  next:  {self.fix}"] if self.fix else []
        return "\n".join(lines)


class Failed(TidegateError):
    """Work failed and was undone; what served before serves on."""

    exit_code = 1


class ConfigError(TidegateError):
    """The configuration or the command line is wrong; nothing was touched."""

    exit_code = 2


class Refused(TidegateError):
    """A precondition does not hold; nothing was changed."""

    exit_code = 3


class Unreachable(Refused):
    """A server cannot be reached, or its host key is not trusted."""


class Locked(TidegateError):
    """Another operation holds the lock on a server."""

    exit_code = 4


class NeedsPerson(TidegateError):
    """The undo could not complete; the message says what is where."""

    exit_code = 5


class Partial(TidegateError):
    """Part of the work is done, and the rest is not; the message says which."""

    exit_code = 6


class Defect(TidegateError):
    """Something nobody thought of; a deploy under way would have been undone and told as Failed."""

    exit_code = 70
