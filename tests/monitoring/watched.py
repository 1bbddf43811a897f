"""Environments to be watched, as their ops.toml would say."""

from __future__ import annotations

from typing import Any

from ops.config import Environment

HOST = "deploy@203.0.113.10"
ONE = {"address": "203.0.113.10", "user": "deploy", "private": "10.0.0.1"}
TWO = {"address": "203.0.113.11", "user": "deploy", "port": 2222, "private": "fd00::2"}
AWAY = {"address": "198.51.100.7", "private": "10.0.0.9"}
DATABASE = {"kind": "postgres", "container": "blog-services-db", "user": "blog", "database": "posts", "password": "DB_PASSWORD"}


def environment(*hosts: Any, app: Any = None, monitoring: Any = None, **more: Any) -> Environment:
    """Return an environment of the app blog."""
    known = {"name": "production", "hosts": hosts or (HOST,), "domains": ("blog.example.com",), "monitoring": monitoring or {}}
    return Environment.model_validate({**known, "app": {"name": "blog", "port": 3000, **(app or {})}, **more})


def with_database(**source: Any) -> dict[str, Any]:
    """Return an app whose database runs beside it."""
    return {"backup": {"sources": {"main": {**DATABASE, **source}}}}
