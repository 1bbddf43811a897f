"""Where each effective value of an environment came from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ops.config_models import Environment
from ops.config_problems import key_path, shown
from ops.durations import duration_text
from ops.env_file import read_env_file
from ops.errors import ConfigError
from ops.secret import MASK
from ops.secrets import env_file

if TYPE_CHECKING:
    from ops.config_load import Project
    from ops.config_merge import Merged

Row = tuple[str, str, str]

_ELSEWHERE = {"name", "project_root", "secrets"}


def explain(project: Project, env_name: str) -> list[Row]:
    """List (key path, shown value, source) of an environment; secrets are masked and no command is run."""
    environment = project.environment(env_name)
    document = project.merged[env_name]
    fields = [name for name in Environment.model_fields if name not in _ELSEWHERE]
    rows = [_row(project.root, document, path, value) for path, value in _leaves(environment, fields)]
    return rows + [_secret_row(project, environment, name) for name in environment.secret_names]


def _leaves(environment: Environment, fields: list[str]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for name in fields:
        yield from _walk(getattr(environment, name), (name,))


def _walk(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), (*path, name))
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))
    elif value is not None or not {"hosts", "sources"} & set(path):  # what a host leaves out is left to ssh
        yield path, value


def _row(root: Path, document: Merged, path: tuple[str | int, ...], value: object) -> Row:
    written = ("domain",) if path == ("domains",) and "domain" in document.table else path
    layer = document.written(written)
    return key_path(path), _text(value, root), layer.section(written) if layer else "default"


def _text(value: object, root: Path) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, float):
        return f'"{duration_text(value)}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item, root) for item in value)}]"
    if isinstance(value, Path):
        return shown(str(value.relative_to(root) if value.is_relative_to(root) else value), limit=None)
    return shown(value, limit=None)


def _secret_row(project: Project, environment: Environment, name: str) -> Row:
    return f"secrets.{name}", MASK, _secret_source(project, environment, name)


def _secret_source(project: Project, environment: Environment, name: str) -> str:
    if name in environment.secrets:
        return f"command {shown(shlex.join(environment.secrets[name].command), limit=None)}"
    if name in project.set_variables:
        return f"environment variable {name}"
    path = env_file(environment)
    try:
        found = bool(read_env_file(path).get(name))
    except ConfigError as error:
        return f"{path.name}, refused: {error.what}"
    return path.name if found else f"missing: neither the environment nor {path.name} has it"
