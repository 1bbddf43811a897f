"""The command line: `python -m blog` serves, `python -m blog migrate` and `python -m blog worker` do what they say."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from blog.store import Store, open_store


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 not a command or not a database."""
    commands: dict[str, Callable[[Store], None]] = {"serve": serve, "migrate": migrate, "worker": worker}
    name = arguments[0] if arguments else "serve"
    if name not in commands or len(arguments) > 1:
        print(f"usage: python -m blog [{'|'.join(commands)}]", file=sys.stderr)
        return 2
    if name != "migrate":  # half a migration is not a success
        exit_cleanly_on_sigterm()
    try:
        store = open_store(os.environ)
    except ValueError as error:
        print(f"blog {name}: {error}", file=sys.stderr)
        return 2
    try:
        commands[name](store)
    except (store.Error, RuntimeError) as error:
        print(f"blog {name}: {store.where}: {error}", file=sys.stderr)
        return 1
    return 0


def serve(store: Store) -> None:
    """Answer HTTP on every address until SIGTERM, then finish the open requests."""
    from blog import server  # each command imports only what it needs: start-up time is deploy time

    server.run(store, port=int(os.environ.get("PORT", "3000")))


def migrate(store: Store) -> None:
    """Bring the database to this code's schema."""
    from blog import migrations

    print(migrations.migrate(store))


def worker(store: Store) -> None:
    """Count the words of new posts until SIGTERM."""
    from blog import worker

    worker.run(store)


def exit_cleanly_on_sigterm() -> None:
    """Make SIGTERM exit 0, also for PID 1 of a container, where the default is to ignore it."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
