"""The program for servers as one file: a zip that python3 runs, the same bytes for the same sources everywhere."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BORROWED = ("engine", "files", "waits")
_ALONE = ("__init__", "install")
_MOMENT = (1980, 1, 1, 0, 0, 0)


@cache
def program() -> bytes:
    """Return the file."""
    sources = {"backup/__init__.py": "", "ops/__init__.py": "", "ops/agent/__init__.py": ""}
    sources |= {f"ops/agent/{name}.py": (ROOT / f"ops/agent/{name}.py").read_text() for name in _BORROWED}
    sources |= {f"backup/agent/{path.name}": path.read_text() for path in _modules()}
    sources["__main__.py"] = _start([path.stem for path in _modules() if path.stem not in _ALONE])
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_STORED) as archive:  # what zlib makes of it differs between machines
        for name, text in sorted(sources.items()):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, text)
    return found.getvalue()


@cache
def digest() -> str:
    """Return the file's SHA-256; its first twelve digits are the version that people see."""
    return hashlib.sha256(program()).hexdigest()


def installer() -> str:
    """Return the text that puts the program in its place."""
    return (ROOT / "backup/agent/install.py").read_text()


def _modules() -> list[Path]:
    return sorted((ROOT / "backup/agent").glob("*.py"))


def _start(modules: list[str]) -> str:
    """Return what starts it: every module is read first, since the file may be replaced while it runs."""
    return f"import sys\nfrom backup.agent import {', '.join(modules)}\nsys.exit(cli.main())\n"
