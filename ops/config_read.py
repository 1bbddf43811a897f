"""Reading ops.toml and the generated environments beside it into layers, not yet validated."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from pathlib import Path

from ops.config_merge import Layer, Table
from ops.config_models import Environment
from ops.config_problems import ConfigProblems, Problem, key_path, shown, unknown_key

GENERATED = Path(".tidegate/environments")

_SECTIONS = ("app", "environments", "notifications", "monitoring", "secrets")
_KEYS = frozenset(Environment.model_fields) - {"name", "project_root"} | {"domain"}
_Choices = Iterable[tuple[tuple[str, ...], tuple[str, ...]]]
_CHOICES: _Choices = ((("domain",), ("domains",)),)
_APP_CHOICES: _Choices = ((("image",), ("context", "dockerfile")),)


def read_toml(path: Path, file: str, fix: str = "") -> Table:
    """Parse one file; raises ConfigProblems when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        problem, fix = Problem(file, "", "this file to exist"), "inv init"
    except OSError as error:
        problem = Problem(file, "", "a readable file", error.strerror or "an error")
    except UnicodeDecodeError as error:
        problem = Problem(file, f"line {_line(error.object, error.start)}", "UTF-8 text", "other bytes")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problem = _syntax_problem(file, str(error))
    raise ConfigProblems([problem], fix)


class Reader:
    """The raw configuration of a project, and the problems of its structure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        document = read_toml(path, path.name)
        self._unknown(path.name, (), document, _SECTIONS)
        self.sections = {key: self._table(path.name, (key,), document.get(key, {})) for key in _SECTIONS}
        self._exclusive(path.name, ("app",), self.sections["app"], _APP_CHOICES)
        self._own = self._environments(path.name, self.sections["environments"])
        self._generated = self._read_generated()

    def environment_layers(self) -> dict[str, list[Layer]]:
        """Return for each environment the layers to merge, in the order of `Environment`'s keys."""
        names = dict.fromkeys([*self._own, *self._generated])
        return {name: self._layers(name) for name in names}

    def _layers(self, name: str) -> list[Layer]:
        shared = {key: self.sections[key] for key in ("app", "notifications", "monitoring", "secrets") if self.sections[key]}
        own, generated = self._own.get(name), self._generated.get(name)
        layers = [Layer(self.path.name, (), shared), *([generated] if generated else []), *([own] if own else [])]
        if generated and "hosts" in generated.table:
            hosts = {"hosts": generated.table["hosts"]}
            layers.append(Layer(generated.file, generated.prefix, hosts, generated=True))
        return _without_alternatives(layers)

    def _read_generated(self) -> dict[str, Layer]:
        found: dict[str, Layer] = {}
        for path in sorted((self.path.parent / GENERATED).glob("*.toml")):
            file = str(path.relative_to(self.path.parent))
            document = read_toml(path, file, f"this file is generated: rm {file}")
            self._unknown(file, (), document, ("environments",))
            tables = self._table(file, ("environments",), document.get("environments", {}))
            found |= self._environments(file, tables, generated=True)
        return found

    def _environments(self, file: str, tables: Table, *, generated: bool = False) -> dict[str, Layer]:
        found = {}
        for name, value in tables.items():
            path = ("environments", name)
            table = self._table(file, path, value)
            self._unknown(file, path, table, _KEYS)
            self._exclusive(file, path, table, _CHOICES)
            app = table.get("app")
            self._exclusive(file, (*path, "app"), app if isinstance(app, dict) else {}, _APP_CHOICES)
            known = {key: item for key, item in table.items() if key in _KEYS}
            found[name] = Layer(file, path, known, generated=generated)
        return found

    def _table(self, file: str, path: tuple[str, ...], value: object) -> Table:
        if isinstance(value, dict):
            return value
        found = "a value that is not shown" if "secrets" in path else shown(value)
        self.problems.append(Problem(file, key_path(path), "a table", found))
        return {}

    def _unknown(self, file: str, path: tuple[str, ...], table: Table, known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                found = f"the unknown key {shown(key)}"
                self.problems.append(Problem(file, key_path((*path, key)), unknown_key(known, key), found))

    def _exclusive(self, file: str, path: tuple[str, ...], table: Table, choices: _Choices) -> None:
        for first, second in choices:
            both = [key for key in second if key in table]
            if both and (one := next((key for key in first if key in table), None)):
                expected = f"either {one} or {' and '.join(second)}"
                self.problems.append(Problem(file, key_path((*path, one)), expected, f"{both[0]} as well"))


def _without_alternatives(layers: list[Layer]) -> list[Layer]:
    """Let a later layer's choice (say, an image) displace an earlier layer's alternative (a context)."""
    kept: list[Layer] = []
    for index, layer in enumerate(layers):
        table = layer.table
        for above in layers[index + 1 :]:
            table = _displaced(table, above.table, _CHOICES)
            lower, upper = table.get("app"), above.table.get("app")
            if isinstance(lower, dict) and isinstance(upper, dict):
                table = table | {"app": _displaced(lower, upper, _APP_CHOICES)}
        kept.append(Layer(layer.file, layer.prefix, table, layer.generated))
    return kept


def _displaced(lower: Table, upper: Table, choices: _Choices) -> Table:
    gone: set[str] = set()
    for first, second in choices:
        gone |= set(second) if upper.keys() & set(first) else set()
        gone |= set(first) if upper.keys() & set(second) else set()
    return {key: value for key, value in lower.items() if key not in gone}


def _syntax_problem(file: str, message: str) -> Problem:
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    where = f"line {match[2]}, column {match[3]}" if match and match[2] else "its end"
    return Problem(file, where, "valid TOML", shown(match[1] if match else message).strip('"'))


def _line(data: bytes, offset: int) -> int:
    return data[:offset].count(b"\n") + 1
