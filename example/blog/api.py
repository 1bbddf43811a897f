"""The API: posts, and what a deploy and a monitor want to know."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from blog.metrics import Measured, Metrics
from blog.migrations import MIGRATIONS
from blog.validate import InputError, new_post, number

if TYPE_CHECKING:
    from starlette.requests import Request

    from blog.store import Store

MAX_BODY = 64 * 1024
MAX_ID = 2**63 - 1
VERSION = os.environ.get("BLOG_VERSION", "unknown")

logger = logging.getLogger("blog")


def create_app(store: Store) -> Starlette:
    """Return the application that serves this store."""
    metrics = Metrics()
    app = Starlette(
        routes=[
            Route("/", index),
            Route("/health", health),
            Route("/version", version),
            Route("/metrics", show_metrics),
            Route("/posts", list_posts),
            Route("/posts", create_post, methods=["POST"]),
            Route("/posts/{id}", show_post),
        ],
        middleware=[Middleware(Measured, metrics)],
        exception_handlers={
            HTTPException: http_error,
            InputError: invalid,
            store.Error: database_error,
            Exception: internal_error,
        },
    )
    app.state.store, app.state.metrics = store, metrics
    return app


async def index(_request: Request) -> Response:
    """Say what this is and where to go."""
    title = os.environ.get("BLOG_TITLE", "Blog")
    return JSONResponse({"title": title, "version": VERSION, "posts": "/posts", "health": "/health"})


async def health(request: Request) -> Response:
    """Healthy when the database answers with every migration this code needs; more are fine, after a rollback."""
    needed = len(MIGRATIONS)
    store = store_of(request)
    try:
        schema = await asyncio.to_thread(store.schema)
    except store.Error as error:
        return error_response(503, f"the database does not answer: {error}")
    if schema < needed:
        return error_response(503, f"schema {schema}, this code needs {needed}: run `python -m blog migrate`")
    return JSONResponse({"status": "ok", "schema": schema, "needs": needed, "version": VERSION})


async def version(_request: Request) -> Response:
    """Tell the version of the image, and the release and slot it was deployed as."""
    release, slot = os.environ.get("TIDEGATE_RELEASE"), os.environ.get("TIDEGATE_SLOT")
    return JSONResponse({"version": VERSION, "release": release, "slot": slot})


async def show_metrics(request: Request) -> Response:
    """Return the counters in the Prometheus text format."""
    store, metrics = store_of(request), request.app.state.metrics
    gauges = {
        "blog_schema_version": await asyncio.to_thread(store.schema),
        "blog_posts": await asyncio.to_thread(store.count),
    }
    text = metrics.render(gauges, VERSION)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


async def list_posts(request: Request) -> Response:
    """List posts, newest first; page on with `before` set to the last id seen."""
    limit = number(request.query_params, "limit", default=20, maximum=100)
    before = number(request.query_params, "before", default=MAX_ID, maximum=MAX_ID)
    posts = await asyncio.to_thread(store_of(request).newest, limit, before)
    return JSONResponse({"posts": [asdict(post) for post in posts]})


async def show_post(request: Request) -> Response:
    """Return one post."""
    post_id = number(request.path_params, "id", default=0, maximum=MAX_ID)
    post = await asyncio.to_thread(store_of(request).get, post_id)
    if post is None:
        raise HTTPException(404, f"no post {post_id}")
    return JSONResponse(asdict(post))


async def create_post(request: Request) -> Response:
    """Save a post; the 201 goes out only after it is safe on the disk."""
    title, body = new_post(await read_json(request))
    post = await asyncio.to_thread(store_of(request).add, title, body)
    return JSONResponse(asdict(post), 201, headers={"Location": f"/posts/{post.id}"})


async def read_json(request: Request) -> object:
    """Read a body of at most MAX_BODY bytes as JSON."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the body is over {MAX_BODY} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError([f"the body is not JSON: {error}"]) from error


def store_of(request: Request) -> Store:
    """Return the store the application was made with."""
    store: Store = request.app.state.store
    return store


def error_response(status: int, message: str, problems: list[str] | None = None) -> JSONResponse:
    """Return an error as JSON."""
    return JSONResponse({"error": message} | ({"problems": problems} if problems else {}), status)


async def http_error(_request: Request, error: Exception) -> Response:
    """Turn what Starlette or we refused into JSON."""
    assert isinstance(error, HTTPException)
    response = error_response(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def invalid(_request: Request, error: Exception) -> Response:
    """Name everything that is wrong with the input."""
    assert isinstance(error, InputError)
    return error_response(422, "invalid input", error.problems)


async def database_error(_request: Request, error: Exception) -> Response:
    """Say that it was not the client's fault; the reason goes to the log."""
    logger.error("database: %s", error)
    return error_response(503, "the database is not available")


async def internal_error(_request: Request, _error: Exception) -> Response:
    """Keep the details for the log, where uvicorn puts the traceback."""
    return error_response(500, "internal error")
