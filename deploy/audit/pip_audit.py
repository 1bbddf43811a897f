"""Python packages: pip-audit, run as a program, asks an OSV service about every pin.

It leaves out entries whose marker is not true here, refuses two versions of a package, exits 1 for findings and for errors alike,
and takes an empty answer for a clean one. So it is given the pins without markers, a file for each further version; what it
says counts only if it answers for every pin; and a service that nobody vouches for is asked about a release known to be
vulnerable as well.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy import programs
from deploy.audit.model import Advisory, Answer, Pin, listed
from ops.errors import Refused

SERVICE = "https://api.osv.dev/v1/query"
TIMEOUT = 15
VULNERABLE = Pin("jinja2", "2.10", ("sha256:f84be1bb0040caca4cea721fcbbbbd61f9be9464ca236387158b0feea01914a4",))
_OPTIONS = (
    "--progress-spinner",
    "off",
    "--format",
    "json",
    "--require-hashes",
    "--disable-pip",
    "--vulnerability-service",
    "osv",
)
_FIX = "see that the service can be reached, or name another (--osv-url), or a folder of advisories (--offline)"
_EXPECTED = "only enforces hash presence"  # its warning that hashes are not compared with an index: installing does that


def ask(pins: Iterable[Pin], url: str, *, vouched: bool = False) -> Answer:
    """Ask about releases; `vouched` says that the service is known to know. Raises Refused when it did not answer for all."""
    wanted = {_release(pin): pin for pin in pins}
    asked = wanted if vouched else {**wanted, _release(VULNERABLE): VULNERABLE}
    advisories: list[Advisory] = []
    warnings: list[str] = []
    for part in _rounds(asked.values()):
        answer = _run(part, url)
        advisories += answer.advisories
        warnings += answer.warnings
    if not vouched and not any(_about(one) == _release(VULNERABLE) for one in advisories):
        what = f"{url} knows nothing of {VULNERABLE.name} {VULNERABLE.version}, which is known to be vulnerable"
        raise Refused(what, why="so it is no vulnerability service, or one without Python's advisories", fix=_FIX)
    found = tuple(one for one in advisories if _about(one) in wanted)
    return Answer(len(wanted), found, tuple(dict.fromkeys(warnings)))


def about(answer: Answer, pins: Iterable[Pin]) -> list[Advisory]:
    """Return what an answer says about the pins of one lock."""
    ours = {_release(pin) for pin in pins}
    return [one for one in answer.advisories if _about(one) in ours]


def _release(pin: Pin) -> tuple[str, str]:
    """What advisories know a release by: of a build of its own, such as 2.1+cpu, the release that it was built from."""
    return pin.name, Version(pin.version).public


def _about(advisory: Advisory) -> tuple[str, str]:
    return advisory.package, advisory.version


def _rounds(pins: Iterable[Pin]) -> Iterator[list[Pin]]:
    """Split pins so that each part has a package once."""
    left = list(pins)
    while left:
        part = {pin.name: pin for pin in reversed(left)}
        yield list(part.values())
        left = [pin for pin in left if part[pin.name] is not pin]


def _run(pins: list[Pin], url: str) -> Answer:
    program = programs.find("pip-audit")
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} if url.startswith("http://127.0.0.1:") else {}
    environment = {"PIP_AUDIT_LOGLEVEL": "INFO", **direct}
    with tempfile.TemporaryDirectory(prefix="tidegate-audit-") as folder:
        file = Path(folder, "pins.txt")
        file.write_text("".join(_line(pin) for pin in pins))
        where = ("--osv-url", url, "--timeout", str(TIMEOUT), "--cache-dir", folder, "--requirement", str(file))
        return _read(programs.run([program, *_OPTIONS, *where], Path(folder), **environment), pins, url)


def _line(pin: Pin) -> str:
    name, version = _release(pin)
    return f"{name}=={version}" + "".join(f" --hash={one}" for one in pin.hashes) + "\n"


def _read(done: CompletedProcess[str], pins: list[Pin], url: str) -> Answer:
    """Read pip-audit's document; without one, or without an answer for every pin, nothing was learned."""
    try:
        entries: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        why = programs.said(done)
        raise Refused(f"{url} did not say which releases are vulnerable", why=f"pip-audit: {why}", fix=_FIX) from None
    answered = {(canonicalize_name(one["name"]), one["version"]) for one in entries if "vulns" in one}
    if missing := [f"{pin.name} {pin.version}" for pin in pins if _release(pin) not in answered]:
        raise Refused(f"pip-audit left out {listed(missing)}", fix="pipx upgrade pip-audit, and please report it")
    found = tuple(_advisory(entry, one) for entry in entries for one in entry.get("vulns", ()))
    said = [line for line in done.stderr.splitlines() if line.startswith("WARNING") and _EXPECTED not in line]
    return Answer(len(pins), found, tuple(said))


def _advisory(entry: dict[str, Any], told: dict[str, Any]) -> Advisory:
    fixed = tuple(one for one in told["fix_versions"] if Version(one) > Version(entry["version"]))
    return Advisory(canonicalize_name(entry["name"]), entry["version"], told["id"], tuple(sorted(told["aliases"])), fixed,
                    told["description"])  # fmt: skip
