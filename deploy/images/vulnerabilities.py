"""Known vulnerabilities of an image, as trivy or grype tell them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from deploy.audit.ignores import Ignore
from deploy.audit.model import Advisory
from ops.build_client import build_environment
from ops.errors import Refused

INSTALL = (
    "https://trivy.dev or https://github.com/anchore/grype says how to install it; --without-vulnerabilities leaves this out"
)
_PATIENCE = 900.0  # seconds; the first run fetches a database


@dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability in an image: what is known of it, how severe that is, and why it is ignored, if it is."""

    advisory: Advisory
    severity: str
    ignored: str = ""
    until: date | None = None

    @property
    def mendable(self) -> bool:
        """Tell whether an update mends it; of one without there is nothing to do but know it."""
        return bool(self.advisory.fixed)

    @property
    def open(self) -> bool:
        """Tell whether it speaks against the image."""
        return self.mendable and not self.ignored

    def document(self) -> dict[str, Any]:
        """Return it for scripts."""
        known = self.advisory
        return {"id": known.id, "aliases": list(known.aliases), "package": known.package, "version": known.version,
                "fixed": list(known.fixed), "severity": self.severity, "summary": known.summary, "ignored": self.ignored,
                "until": self.until and self.until.isoformat()}  # fmt: skip


def scanner() -> str | None:
    """Return the scanner that is installed."""
    return next(filter(shutil.which, COMMANDS), None)


def vulnerabilities(program: str, image: str) -> list[Vulnerability]:
    """Return what a scanner knows against an image of this engine. Raises Refused when it cannot tell: that is not clean."""
    command, parse = COMMANDS[program]
    argv = [program, *(word.format(image=image) for word in command)]
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-scan-") as folder:  # so that no .trivyignore or .grype.yaml has a say
            done = subprocess.run(argv, cwd=folder, env=build_environment(), stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, errors="replace", check=False, timeout=_PATIENCE)  # fmt: skip
        if done.returncode == 0:
            return parse(json.loads(done.stdout))
        why = "\n         ".join(done.stderr.strip().splitlines()[-5:])
    except subprocess.TimeoutExpired:
        why = f"it did not end within {_PATIENCE:.0f} s"
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"its answer is not what it documents: {error!r}"
    fix = "let it reach its database, or fetch that before; then run this again"
    raise Refused(f"{program} cannot tell what is known against {image}", why=why, fix=fix)


def parse_trivy(document: Mapping[str, Any]) -> list[Vulnerability]:
    """Read what `trivy image --format json` says; its document has results only where there is something to tell."""
    if "SchemaVersion" not in document:
        raise KeyError("SchemaVersion")
    found = (one for result in document.get("Results") or () for one in result.get("Vulnerabilities") or ())
    return _sorted(
        Vulnerability(
            Advisory(one["PkgName"], one["InstalledVersion"], one["VulnerabilityID"], tuple(one.get("VendorIDs") or ()),
                     tuple(filter(None, one.get("FixedVersion", "").split(", "))), one.get("Title", "")),
            one.get("Severity", "UNKNOWN").lower(),
        )
        for one in found
    )  # fmt: skip


def parse_grype(document: Mapping[str, Any]) -> list[Vulnerability]:
    """Read what `grype -o json` says."""
    return _sorted(
        Vulnerability(
            Advisory(one["artifact"]["name"], one["artifact"]["version"], one["vulnerability"]["id"],
                     tuple(other["id"] for other in one.get("relatedVulnerabilities") or ()),
                     tuple((one["vulnerability"].get("fix") or {}).get("versions") or ()), one["vulnerability"].get("description", "")),
            one["vulnerability"].get("severity", "Unknown").lower(),
        )
        for one in document["matches"]
    )  # fmt: skip


def apply(found: Iterable[Vulnerability], ignores: Sequence[Ignore]) -> list[Vulnerability]:
    """Mark what somebody decided to live with for a while."""
    return [_judged(one, ignores) for one in found]


def _judged(one: Vulnerability, ignores: Sequence[Ignore]) -> Vulnerability:
    known = one.advisory
    said = next((mark for mark in ignores if mark.id in known.names and mark.package in (None, known.package)), None)
    return Vulnerability(known, one.severity, said.reason, said.expires) if said else one


def _sorted(found: Iterable[Vulnerability]) -> list[Vulnerability]:
    """Return each once, the worst first."""
    return sorted(set(found), key=lambda one: (_rank(one.severity), one.advisory.package, one.advisory.id))


def _rank(severity: str) -> int:
    known = ("critical", "high", "medium", "low", "negligible")
    return known.index(severity) if severity in known else len(known)


COMMANDS: Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], list[Vulnerability]]]] = {
    "trivy": (("image", "--no-progress", "--scanners", "vuln", "--format", "json", "{image}"), parse_trivy),
    "grype": (("docker:{image}", "-o", "json"), parse_grype),
}
