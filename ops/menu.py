"""What every task of the menu needs: the console, the configuration, the words of its options."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Exit

from ops.program import called

if TYPE_CHECKING:
    from ops.config import Environment, Project
    from ops.console import Console

CONFIG = Path(os.environ.get("TIDEGATE_CONFIG", "ops.toml"))

ENV = {"env": "the environment in ops.toml (default: sandbox)"}
JSON = {"json": "print one JSON document for scripts"}
YES = {"yes": "do not ask"}
DRY = {"dry-run": "show the plan with its reasons and change nothing"}
VERBOSE = {"verbose": "show every step and the build's output"}


@contextmanager
def opened(*, json: bool = False, yes: bool = False) -> Iterator[Console]:
    """Hand out the console, and turn errors into their exit codes; the only place that does."""
    from ops.console import Console
    from ops.errors import TidegateError
    from ops.given_ssh import given_ssh
    from ops.secrets import given_secrets

    console = Console(as_json=json, assume_yes=yes)
    try:
        with _defects_told(), given_ssh(os.environ), given_secrets(os.environ) as console.environ:
            yield console
    except TidegateError as error:
        told = {"error": error.what, "where": error.where, "cause": error.why, "next": called(error.fix)}
        console.document(told | {"exit_code": error.exit_code})
        raise Exit(f"✗ {error}", error.exit_code) from None
    except KeyboardInterrupt:
        raise Exit("interrupted", 1) from None


@contextmanager
def _defects_told() -> Iterator[None]:
    """Turn what nobody thought of into an error of its own kind; TIDEGATE_DEBUG=1 shows where it came from."""
    from ops.errors import Defect, TidegateError

    try:
        yield
    except (TidegateError, Exit):
        raise
    except Exception as error:
        if os.environ.get("TIDEGATE_DEBUG"):
            raise
        raise Defect(f"{type(error).__name__}: {error}", why="a mistake in Tidegate, or in how it is installed",
                     fix="TIDEGATE_DEBUG=1 with the same command shows where; please report it") from error  # fmt: skip


def project() -> Project:
    """Load ops.toml. Raises ConfigError."""
    from ops.config import load

    return load(CONFIG.absolute(), os.environ)


def environment_of(name: str) -> Environment:
    """Return an environment of ops.toml. Raises ConfigError."""
    return project().environment(name)


def collection(name: str, *tasks: Any, default: Any = None, **named: Any) -> Collection:
    """Return tasks under a name; `default` is what the bare name stands for."""
    found = Collection(name)
    for one in tasks:
        found.add_task(one)
    for alias, one in named.items():
        found.add_task(one, name=alias, default=one is default)
    return found
