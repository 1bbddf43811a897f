"""The HTTP server, configured to start fast and to stop without dropping a request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from uvicorn import Config, Server

from blog.api import create_app

if TYPE_CHECKING:
    from blog.store import Store


def run(store: Store, port: int) -> None:
    """Serve until SIGTERM: stop accepting, close idle connections, finish open requests, exit."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    config = Config(
        create_app(store),
        host="0.0.0.0",
        port=port,
        loop="asyncio",  # uvloop, httptools: measured, no faster start, and 5 MB more to ship
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # /metrics counts requests; the proxy in front logs them
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than the proxy's 60 s, so that it is never us who close under a request
        timeout_graceful_shutdown=8,  # shorter than the 10 s until SIGKILL
    )
    Server(config).run()
