"""An app of one file, for the Python template."""

from __future__ import annotations

import os
import signal
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def answer(_: object) -> PlainTextResponse:
    return PlainTextResponse(f"Hello of {os.getuid()}\n")


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # also as PID 1, where the default is to ignore it
uvicorn.run(Starlette(routes=[Route("/", answer), Route("/health", answer)]), host="0.0.0.0", port=int(os.environ["PORT"]))
