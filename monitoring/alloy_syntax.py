"""Alloy's configuration language, written as `alloy fmt` writes it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ref:
    """An expression that is no literal: what another component exports."""

    text: str


@dataclass(frozen=True)
class Block:
    """A block: its name with the label, attributes, and the blocks inside it."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()


def text(blocks: Iterable[Block]) -> str:
    """Return a file of blocks."""
    return "\n".join("\n".join(_block(block, "")) + "\n" for block in blocks)


def _block(block: Block, indent: str) -> Iterator[str]:
    inner = indent + "\t"
    if not block.attributes and not block.blocks:
        yield f"{indent}{block.name} {{ }}"
        return
    yield f"{indent}{block.name} {{"
    yield from _attributes(block.attributes, inner, "")
    for index, child in enumerate(block.blocks):
        yield from [""] if index or block.attributes else []
        yield from _block(child, inner)
    yield f"{indent}}}"


def _attributes(attributes: Mapping[str, Any], indent: str, end: str) -> Iterator[str]:
    """Yield assignments, their signs below each other as far as the next value of several lines."""
    together: list[str] = []
    for name, value in attributes.items():
        together.append(name)
        if "\n" in _value(value, indent):
            yield from _aligned(together, attributes, indent, end)
            together = []
    yield from _aligned(together, attributes, indent, end)


def _aligned(names: list[str], attributes: Mapping[str, Any], indent: str, end: str) -> Iterator[str]:
    width = max(map(len, names), default=0)
    for name in names:
        yield f"{indent}{name:{width}} = {_value(attributes[name], indent)}{end}"


def _value(value: Any, indent: str) -> str:
    if isinstance(value, Ref):
        return value.text
    if isinstance(value, Mapping):
        return "\n".join(["{", *_attributes(value, indent + "\t", ","), f"{indent}}}"])
    if isinstance(value, list):
        return f"[{', '.join(_value(one, indent) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)
