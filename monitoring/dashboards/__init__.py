"""Grafana's dashboards: what each shows is in its module, drawn by Grafana's own SDK."""

from __future__ import annotations

import json
from collections.abc import Collection

from monitoring.dashboards import app, backups, containers, host, logs, overview, stack
from monitoring.dashboards.panels import Board
from monitoring.files import File

BOARDS: tuple[Board, ...] = (overview.BOARD, app.BOARD, host.BOARD, containers.BOARD, logs.BOARD, backups.BOARD, stack.BOARD)


def render(runbooks: str | None = None, without: Collection[str] = ()) -> list[File]:
    """Return the dashboards as files, less what needs parts that are not there.

    `runbooks` is the address below which NAME.md is about the alert NAME. Besides the parts of the stack, `without` can hold
    "app" (it tells no figures of its own) and "postgres" (there is no such database).
    """
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    from monitoring.dashboards.build import document

    kept = [board for whole in BOARDS if (board := whole.without(frozenset(without))).rows]
    titles = {board.name: board.title for board in kept}
    documents = {board.name: document(board, runbooks, titles) for board in kept}
    return [
        File(f"grafana/dashboards/{name}.json", json.dumps(one, cls=JSONEncoder, indent=1, sort_keys=True) + "\n")
        for name, one in documents.items()
    ]
