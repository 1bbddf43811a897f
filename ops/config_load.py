"""Validating a configuration and handing it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ops.config_merge import Merged, Table, merge
from ops.config_models import App, Environment, Notifications, SecretSource
from ops.config_monitoring import Monitoring
from ops.config_problems import ConfigProblems, from_pydantic, shown
from ops.config_read import Reader
from ops.errors import ConfigError

DEFAULT_ENVIRONMENT = "sandbox"

_M = TypeVar("_M", bound=BaseModel)
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Project:
    """A loaded ops.toml: the app as [app] describes it, and every environment with its overrides merged in."""

    path: Path
    app: App
    merged: Mapping[str, Merged] = field(repr=False)
    set_variables: frozenset[str] = field(repr=False)
    _environments: Mapping[str, Environment] = field(repr=False)

    @property
    def root(self) -> Path:
        """The folder of ops.toml."""
        return self.path.parent

    @property
    def environments(self) -> tuple[str, ...]:
        """The names of all environments."""
        return tuple(self._environments)

    def environment(self, name: str = DEFAULT_ENVIRONMENT) -> Environment:
        """Return an environment; an unknown name raises ConfigError with the known ones."""
        if name in self._environments:
            return self._environments[name]
        known = f"known are {', '.join(self._environments)}" if self._environments else "there is none yet"
        fix = "inv sandbox.up" if name == DEFAULT_ENVIRONMENT else "name one of them with -e, or add a table for it"
        raise ConfigError(f"no environment is called {shown(name)}", where=self.path.name, why=known, fix=fix)


def load(path: Path, environ: Mapping[str, str]) -> Project:
    """Read and validate a configuration; raises ConfigError listing every problem in it."""
    path = path.absolute()
    reader = Reader(path)
    loader = _Loader(reader, environ.get("HOME") or "~")
    app = loader.shared(reader.sections)
    merged = {name: merge(layers) for name, layers in reader.environment_layers().items()}
    environments = {name: loader.environment(name, document) for name, document in merged.items()}
    if reader.problems or app is None:
        raise ConfigProblems(reader.problems)
    ready = {name: environment for name, environment in environments.items() if environment}
    set_variables = frozenset(name for name, value in environ.items() if value)
    return Project(path, app, merged, set_variables, ready)


class _Loader:
    """Validates the parts of a configuration; adds to the reader's problems."""

    def __init__(self, reader: Reader, home: str) -> None:
        self._file = reader.path.name
        self._problems = reader.problems
        self._context = {"root": reader.path.parent, "home": home}
        self._root = reader.path.parent
        self._missing: set[_Path] = set()

    def shared(self, sections: Mapping[str, Table]) -> App | None:
        """Validate what all environments share, so that it is right even where nothing uses it."""
        self._section(Notifications, sections["notifications"], ("notifications",))
        self._section(Monitoring, sections["monitoring"], ("monitoring",))
        for name, source in sections["secrets"].items():
            self._section(SecretSource, source, ("secrets", name))
        return self._section(App, sections["app"], ("app",))

    def environment(self, name: str, document: Merged) -> Environment | None:
        """Validate one merged environment; None when it is wrong, or a sandbox that is not up."""
        table = document.table | {"name": name, "project_root": self._root}
        if "domain" in table:
            table["domains"] = [table.pop("domain")]
        try:
            return Environment.model_validate(_without_empty_app(table), context=self._context)
        except ValidationError as error:
            errors = [one for one in error.errors(include_url=False) if not self._known(name, one)]
        place = _Place(name, document)
        self._problems += from_pydantic(errors, Environment, place)
        return None

    def _section(self, model: type[_M], value: object, prefix: tuple[str, ...]) -> _M | None:
        try:
            return model.model_validate(value, context=self._context)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        self._missing |= {prefix + one["loc"] for one in errors if one["type"] == "missing"}
        self._problems += from_pydantic(errors, model, lambda path: (self._file, prefix + path), prefix)
        return None

    def _known(self, name: str, error: Mapping[str, Any]) -> bool:
        """Whether something missing was reported for [app] already, or comes with the sandbox."""
        to_come = name == DEFAULT_ENVIRONMENT and error["loc"] in (("hosts",), ("domains",))
        return error["type"] == "missing" and (to_come or error["loc"] in self._missing)


@dataclass(frozen=True)
class _Place:
    """Finds where a value of a merged environment was written."""

    name: str
    document: Merged

    def __call__(self, path: _Path) -> tuple[str, _Path]:
        if path[:1] == ("name",):
            path = ()
        if path[:1] == ("domains",) and "domains" not in self.document.table:
            path = ("domain",)
        layer = self.document.origin(path)
        return layer.file, layer.prefix + path


def _without_empty_app(table: Table) -> Table:
    return table if "app" in table else table | {"app": {}}
