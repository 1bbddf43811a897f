"""The command line: `python -m blog` serves, `python -m blog migrate` and `python -m blog worker` do what they say."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

DATABASE = Path(os.environ.get("DATABASE", "/app/data/blog.db"))


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 not a command."""
    commands: dict[str, Callable[[], None]] = {"serve": serve, "migrate": migrate, "worker": worker}
    name = arguments[0] if arguments else "serve"
    if name not in commands or len(arguments) > 1:
        print(f"usage: python -m blog [{'|'.join(commands)}]", file=sys.stderr)
        return 2
    try:
        commands[name]()
    except (sqlite3.Error, RuntimeError) as error:
        print(f"blog {name}: {DATABASE}: {error}", file=sys.stderr)
        return 1
    return 0


def serve() -> None:
    """Answer HTTP on every address until SIGTERM, then finish the open requests."""
    exit_cleanly_on_sigterm()
    from blog import server  # each command imports only what it needs: start-up time is deploy time
    from blog.store import Store

    server.run(Store(DATABASE), port=int(os.environ.get("PORT", "3000")))


def migrate() -> None:
    """Bring the database to this code's schema."""
    from blog import migrations

    print(migrations.migrate(DATABASE))


def worker() -> None:
    """Count the words of new posts until SIGTERM."""
    exit_cleanly_on_sigterm()
    from blog import worker
    from blog.store import Store

    worker.run(Store(DATABASE))


def exit_cleanly_on_sigterm() -> None:
    """Make SIGTERM exit 0, also for PID 1 of a container, where the default is to ignore it."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
