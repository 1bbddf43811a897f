"""How large an image travels, layer by layer, and whether that is within its budget. Pure but for `budget_of`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.images.layers import Image
from deploy.images.secret_rules import masked
from ops.errors import ConfigError

FILE = "budgets.toml"
MEGABYTE = 1_000_000
_KEY = "compressed_mb"
_BUNDLED = "example"  # the app of this repository has its budget under this name


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
    """Return the budget that a file beside a Dockerfile gives an app, in bytes; None without one. Raises ConfigError."""
    file = dockerfile.with_name(FILE)
    if not file.is_file():
        return None
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError("the budgets cannot be read", where=str(file), why=str(error), fix="put it right") from None
    named = (budget(document, app), budget(document), budget(document, _BUNDLED))
    return next((one for one in named if one is not None), None)


def budget(document: Mapping[str, Any], *table: str) -> int | None:
    """Return the budget under a table's name (none: at the top), in bytes. Raises ConfigError for what is no size."""
    found: Any = document
    for part in table:
        found = found.get(part) if isinstance(found, Mapping) else None
    value = found.get(_KEY) if isinstance(found, Mapping) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        where = ".".join((*table, _KEY))
        raise ConfigError(f"{where} = {value!r} is no size", where=FILE, fix=f"{_KEY} = 60 is 60 MB as they travel")
    return round(value * MEGABYTE)


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:.1f}"
