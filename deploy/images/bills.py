"""Where the bills of materials of a project's images are: a scan puts them there, a deploy takes them along."""

from __future__ import annotations

from pathlib import Path

KEPT = 20  # images whose bills stay


def path(root: Path, image_id: str) -> Path:
    """Return where the bill of materials of an image is, or would be."""
    return root / ".tidegate" / "images" / f"{image_id.removeprefix('sha256:')}.cdx.json"


def known(root: Path, image_id: str) -> str:
    """Return the bill of materials of an image, nothing when it was never scanned."""
    file = path(root, image_id)
    return file.read_text("utf-8") if image_id and file.is_file() else ""


def keep(root: Path, image_id: str, text: str) -> Path:
    """Write down the bill of materials of an image, all or nothing, and forget the oldest of others."""
    file = path(root, image_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(text, "utf-8")
    draft.replace(file)
    newest = sorted(file.parent.glob("*.cdx.json"), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in newest[KEPT:]:
        old.unlink(missing_ok=True)
    return file


def give(root: Path, image_id: str, folder: Path) -> None:
    """Put the bill of materials of an image that was scanned beside what else another machine gets of it."""
    if text := known(root, image_id):
        (folder / path(root, image_id).name).write_text(text, "utf-8")


def take(root: Path, image_id: str, folder: Path) -> None:
    """Keep the bill of materials that came with this very image, if one did."""
    came = folder / path(root, image_id).name
    if came.is_file():
        keep(root, image_id, came.read_text("utf-8"))
