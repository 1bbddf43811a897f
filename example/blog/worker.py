"""The worker: counts the words of new posts, once a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blog.migrations import MIGRATIONS

if TYPE_CHECKING:
    from blog.store import Store

INTERVAL = 1.0


def run(store: Store) -> None:
    """Work for ever. SIGTERM raises SystemExit here at once; a half-done batch rolls back and is done again."""
    if store.schema() < len(MIGRATIONS):
        raise RuntimeError(f"schema {store.schema()}, this code needs {len(MIGRATIONS)}: run `python -m blog migrate`")
    print("worker: counting words", flush=True)
    while True:
        try:
            while done := store.count_words():
                print(f"worker: counted {done} posts", flush=True)
        except store.Error as error:
            print(f"worker: trying again: {error}", flush=True)
        time.sleep(INTERVAL)
