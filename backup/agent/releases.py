"""What the app's releases say about its data, read from the files that deploys leave; nothing here writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backup.agent.model import Settings
from ops.agent.files import read


def serving(settings: Settings) -> Mapping[str, Any]:
    """Return the manifest of the release that nginx's file names; empty where nothing serves."""
    live = Path(settings.home) / "edge" / "apps" / f"{settings.app}.conf"
    head = _document(_first_line(live).partition("{")[1] + _first_line(live).partition("{")[2])
    return _manifests(settings).get(str(head.get("release")), {})


def restore_points(settings: Settings) -> dict[str, str]:
    """Return which backup each kept release was preceded by: backup id → release."""
    return {str(one["backup"]): id for id, one in _manifests(settings).items() if one.get("backup")}


def _manifests(settings: Settings) -> dict[str, Mapping[str, Any]]:
    folder = settings.folder / "releases"
    files = [*folder.glob("*.staged"), *folder.glob("*.json")]
    return {file.stem: known for file in files if (known := _document(read(str(file)) or ""))}  # a deploy may rename them now


def _first_line(path: Path) -> str:
    return (read(str(path)) or "").partition("\n")[0]


def _document(text: str) -> Mapping[str, Any]:
    """Read a JSON object; what is damaged says nothing."""
    try:
        known = json.loads(text)
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}
