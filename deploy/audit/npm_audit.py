"""Node packages: npm audit asks the registry about a package-lock.json.

With `offline` in an .npmrc it says "found 0 vulnerabilities" without having asked, and some registries that stand before the
public one answer everything with nothing. So settings that hide are overruled, and it is also asked, under the same settings,
about a release known to be vulnerable.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from deploy import programs
from deploy.audit.model import Advisory, Answer, Lock
from ops.errors import Refused

_OPTIONS = ("--json", "--package-lock-only", "--audit=true", "--offline=false", "--include=dev", "--include=optional", "--include=peer",
            "--loglevel=error")  # fmt: skip
_FIX = "see that the registry can be reached and answers `npm audit`: npm config set registry https://registry.npmjs.org/"
_NAME, _VERSION = "lodash", "4.17.15"
_VULNERABLE = {
    "package.json": {"name": "known", "version": "1.0.0", "dependencies": {_NAME: _VERSION}},
    "package-lock.json": {
        "name": "known", "version": "1.0.0", "lockfileVersion": 3, "requires": True,
        "packages": {"": {"name": "known", "version": "1.0.0", "dependencies": {_NAME: _VERSION}},
                     f"node_modules/{_NAME}": {"version": _VERSION}},
    },
}  # fmt: skip


def ask(lock: Lock) -> Answer:
    """Ask about a package-lock.json. Raises Refused when there is no answer to rely on."""
    program = programs.find("npm")
    folder = lock.path.parent
    answer = read(_run(program, folder), lock)
    with tempfile.TemporaryDirectory(prefix="tidegate-audit-") as place:
        for name, document in _VULNERABLE.items():
            Path(place, name).write_text(json.dumps(document))
        if (folder / ".npmrc").is_file():
            shutil.copy(folder / ".npmrc", place)
        known = read(_run(program, Path(place)), lock)
    if not known.advisories:
        what = f"the npm registry knows nothing of {_NAME} {_VERSION}, which is known to be vulnerable"
        raise Refused(what, why="so its answer about anything else says nothing", fix=_FIX)
    return answer


def _run(program: str, folder: Path) -> CompletedProcess[str]:
    """Audit that very folder: without `--prefix` npm goes up to the nearest package.json, and audits what is there."""
    return programs.run([program, "audit", *_OPTIONS, f"--prefix={folder.absolute()}"], folder)


def read(done: CompletedProcess[str], lock: Lock) -> Answer:
    """Read what npm audit wrote; an error is a document too, and its exit code that of findings."""
    try:
        document: dict[str, Any] = json.loads(done.stdout)
        versions = _versions(lock.path)
        found = tuple(one for told in document["vulnerabilities"].values() for one in _advisories(told, versions))
        packages = document["metadata"]["dependencies"]["total"]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Refused(f"npm audit did not audit {lock}", why=_why(done), fix=_FIX) from None
    return Answer(packages, tuple(dict.fromkeys(found)))


def _why(done: CompletedProcess[str]) -> str:
    try:
        document = json.loads(done.stdout)
        return str(document.get("message") or document["error"]["summary"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return programs.said(done)


def _advisories(told: dict[str, Any], versions: dict[str, str]) -> list[Advisory]:
    """Return the advisories about a package itself; what only depends on a vulnerable one is told there."""
    name = told["name"]
    held = sorted({versions[node] for node in told["nodes"] if node in versions})
    upgrade = told["fixAvailable"]
    by = f"{upgrade['name']} {upgrade['version']}" if isinstance(upgrade, dict) else "a newer release in range" if upgrade else ""
    return [
        Advisory(name, ", ".join(held), one["url"].rstrip("/").rsplit("/", 1)[-1], (), (by,) if by else (), one["title"])
        for one in told["via"]
        if isinstance(one, dict)
    ]


def _versions(path: Path) -> dict[str, str]:
    """Return the version at each place of a lock."""
    packages = json.loads(path.read_text()).get("packages") or {}
    return {place: package.get("version", "") for place, package in packages.items()}
