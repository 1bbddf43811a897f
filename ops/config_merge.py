"""Layers of configuration merged into one document that remembers where each value was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Table = dict[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Layer:
    """A table, the file it stands in and the path under which it stands there."""

    file: str
    prefix: Path
    table: Table
    generated: bool = False

    def section(self, path: Path) -> str:
        """Name the file and the table in it where a value at `path` was written."""
        if self.generated:
            return self.file
        inner = path[:1] if isinstance(self.table.get(str(path[0])), dict) else ()
        return f"{self.file} [{'.'.join(map(str, self.prefix + inner))}]"


@dataclass
class Merged:
    """The merged table and, for each path in it, the layer that wrote it last."""

    table: Table = field(default_factory=dict)
    origins: dict[Path, Layer] = field(default_factory=dict)

    def origin(self, path: Path) -> Layer:
        """Return the layer that wrote the value at a path, or the nearest table above it."""
        lengths = (length for length in range(len(path), 0, -1) if path[:length] in self.origins)
        return self.origins[path[: next(lengths, 0)]]

    def written(self, path: Path) -> Layer | None:
        """Return the layer that wrote the value at a path itself or as part of a list; none for a default."""
        for length in range(len(path), 0, -1):
            layer = self.origins.get(path[:length])
            if layer is not None:
                return layer if length == len(path) or isinstance(_at(self.table, path[:length]), list) else None
        return None


def merge(layers: list[Layer]) -> Merged:
    """Merge layers, later ones over earlier ones: tables key by key, everything else replaced."""
    merged = Merged()
    for layer in layers:
        merged.table = _over(merged.table, layer.table)
        for path, value in _walk(layer.table):
            _forget(merged, path, value)
            merged.origins[path] = layer
    return merged


def _over(below: object, above: object) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _over(below.get(key), value) for key, value in above.items()}


def _forget(merged: Merged, path: Path, value: Any) -> None:
    """Drop what was written below a path that something other than a table now replaces."""
    if not isinstance(value, dict):
        for old in [old for old in merged.origins if old[: len(path)] == path]:
            del merged.origins[old]


def _walk(table: Table, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    yield prefix, table
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _walk(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def _at(table: Any, path: Path) -> Any:
    for part in path:
        table = table[part]
    return table
