"""How large an image travels, layer by layer, and whether that is within its budget. Pure but for `budget_of`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from deploy.images.layers import Image
from deploy.images.secret_rules import masked
from ops.config_problems import ConfigProblems, Problem, from_pydantic, unknown_key
from ops.config_types import Model
from ops.errors import ConfigError

FILE = "budgets.toml"
MEGABYTE = 1_000_000
_OURS = Path(__file__).resolve().parents[2] / "docker/Dockerfile"  # the example's: its table has that name, whatever the app's is
_EXAMPLE = ("example",)


def _megabytes(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError("a number of MB above 0")
    return float(value)


class Budget(Model):
    """A table of budgets.toml."""

    compressed_mb: Annotated[float, BeforeValidator(_megabytes)]


@dataclass(frozen=True)
class Size:
    """The bytes of an image on their way, those of each layer with what made it, and the most they may be."""

    image: str
    compressed: int
    layers: tuple[tuple[int, str], ...]
    exact: bool = True
    budget: int | None = None

    @property
    def over(self) -> bool:
        """Tell whether it is larger than it may be."""
        return self.budget is not None and self.compressed > self.budget

    @property
    def advice(self) -> str:
        """Name the largest layer and what makes such a layer smaller."""
        size, made = max(self.layers, default=(0, ""))
        if made.startswith("RUN"):
            what = "install less (--no-install-recommends), leave no caches, or build in a stage of its own"
        elif made.startswith(("COPY", "ADD")) and not made.startswith("ADD file:"):
            what = "copy less: name what runs, write a .dockerignore"
        else:
            what = "it is of the base: take a smaller one, or copy what runs out of a build stage"
        return f"the largest layer, {_mb(size)} MB, is {made[:60] or 'one without a history'}: {what}"

    def document(self) -> dict[str, Any]:
        """Return it for scripts."""
        layers = [{"bytes": size, "instruction": made} for size, made in self.layers]
        return {"image": self.image, "compressed_bytes": self.compressed, "budget_bytes": self.budget, "over": self.over,
                "exact": self.exact, "layers": layers, "advice": self.advice if self.over else ""}  # fmt: skip


def size(image: Image, budget: int | None = None) -> Size:
    """Return how large an image travels, beside its budget in bytes."""
    layers = tuple((one.size, masked(one.instruction)) for one in image.layers)
    return Size(image.name, image.compressed, layers, image.exact, budget)


def budget_of(dockerfile: Path, app: str) -> int | None:
    """Return the budget that a file beside a Dockerfile gives an app, in bytes; None without a file. Raises ConfigError."""
    file = dockerfile.with_name(FILE)
    if not file.is_file():
        return None
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError("the budgets cannot be read", where=str(file), why=str(error), fix="put it right") from None
    known = budgets(document, str(file))
    tables = ((app,), (), *([_EXAMPLE] if dockerfile.resolve() == _OURS else []))
    found = next((known[one] for one in tables if one in known), None)
    if found is None:
        names = (".".join(one) for one in known)
        raise ConfigProblems(
            [Problem(str(file), app, "a table with its budget, or compressed_mb above all", unknown_key(names, app))]
        )
    return found


def budgets(document: Mapping[str, Any], file: str = FILE) -> dict[tuple[str, ...], int]:
    """Return every budget, in bytes, under the table that it stands in (at the top: none). Raises ConfigError."""
    found: dict[tuple[str, ...], int] = {}
    problems: list[Problem] = []
    for path, table in _tables(document):
        try:
            found[path] = round(Budget.model_validate(table).compressed_mb * MEGABYTE)
        except ValidationError as error:
            problems += _problems(error, file, path)
    if problems:
        raise ConfigProblems(problems, fix="compressed_mb = 60 is 60 MB as they travel")
    return found


def _problems(error: ValidationError, file: str, path: tuple[str, ...]) -> list[Problem]:
    return from_pydantic(error.errors(include_url=False), Budget, lambda key: (file, (*path, *key)))


def _tables(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every table that has keys of its own, or nothing at all."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    own = {key: value for key, value in table.items() if key not in inner}
    if own or not inner:
        yield path, own
    for key, value in inner.items():
        yield from _tables(value, (*path, key))


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:.1f}"
