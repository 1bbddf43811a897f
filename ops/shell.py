"""Command lines built from arguments: quoted for the shell, masked for people.

`Host.run` takes only `Command`, never a `str`, so that the type checker forbids the unsafe way.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from ops.secret import MASK, Secret

Argument = str | int | Secret

_SYNTAX = re.compile(r"\w+\+?=.*|if|then|else|elif|fi|do|done|case|esac|while|until|for|in|function|select|time|coproc")


@dataclass(frozen=True)
class Command:
    """A POSIX shell command line, in the form to run and in the form to show."""

    _line: str
    shown: str

    def reveal(self) -> str:
        """Return the line to execute; may contain secrets, so it is never printed."""
        return self._line

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Command({self.shown!r})"


def sh(*arguments: Argument) -> Command:
    """Build one command; every argument reaches the program literally. Raises ValueError on NUL or no arguments.

    >>> sh("echo", "$HOME; rm -rf /", Secret("hunter2"))
    Command("echo '$HOME; rm -rf /' ********")
    """
    if not arguments:
        raise ValueError("a command needs at least a program")
    return Command(
        _literal_program(" ".join(_quote(_plain(argument)) for argument in arguments)),
        " ".join(MASK if isinstance(argument, Secret) else _quote(str(argument)) for argument in arguments),
    )


def pipe(*commands: Command) -> Command:
    """Join commands with pipes; fails when any of them fails (`sh` has no pipefail, so bash runs it)."""
    return _bash("set -o pipefail; ", " | ", commands)


def chain(*commands: Command) -> Command:
    """Run commands one after the other, stopping at the first that fails."""
    return _bash("", " && ", commands)


def as_root(command: Command) -> Command:
    """Run the whole command as root through a password-less sudo, unless already root."""
    return Command(
        f'if [ "$(id -u)" = 0 ]; then {command.reveal()}; else sudo -n -- bash -c {_quote(command.reveal())}; fi',
        f"sudo {command.shown}",
    )


def _bash(prefix: str, joint: str, commands: tuple[Command, ...]) -> Command:
    line = prefix + joint.join(command.reveal() for command in commands)
    shown = joint.join(command.shown for command in commands)
    return Command(f"bash -c {_quote(line)}", shown)


def _literal_program(line: str) -> str:
    """Quote a first word that a shell would read as an assignment (A=B) or a keyword (time, if …)."""
    word, space, rest = line.partition(" ")
    return f"'{word}'{space}{rest}" if _SYNTAX.fullmatch(word) else line


def _plain(argument: Argument) -> str:
    return argument.reveal() if isinstance(argument, Secret) else str(argument)


def _quote(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL byte cannot be part of a command")
    return shlex.quote(text)
