"""Known vulnerabilities of an image, as trivy or grype tell them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from deploy import programs
from deploy.audit.ignores import Ignore
from deploy.audit.model import Advisory
from ops.build_client import build_environment
from ops.errors import Refused

INSTALL = (
    "https://trivy.dev or https://github.com/anchore/grype says how to install it; --without-vulnerabilities leaves this out"
)
_PATIENCE = 900.0  # seconds; the first run fetches a database
_SETTINGS = ("TRIVY_", "GRYPE_")
_PASSED_ON = {  # where the database is and how to get there; whatever else they can be told may hide findings
    "TRIVY_CACHE_DIR", "TRIVY_CACERT", "TRIVY_DB_REPOSITORY", "TRIVY_JAVA_DB_REPOSITORY", "TRIVY_INSECURE", "TRIVY_USERNAME",
    "TRIVY_PASSWORD", "TRIVY_REGISTRY_TOKEN", "TRIVY_SKIP_DB_UPDATE", "TRIVY_SKIP_JAVA_DB_UPDATE", "TRIVY_TIMEOUT",
    "GRYPE_DB_CACHE_DIR", "GRYPE_DB_CA_CERT", "GRYPE_DB_UPDATE_URL", "GRYPE_DB_AUTO_UPDATE", "GRYPE_CHECK_FOR_APP_UPDATE",
}  # fmt: skip


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
    return next(filter(programs.which, COMMANDS), None)


def ask(image: str) -> list[Vulnerability]:
    """Ask the scanner that is installed. Raises Refused when there is none, or it cannot tell."""
    if program := scanner():
        return vulnerabilities(program, image)
    raise Refused(f"what is known against {image} was not looked for: neither trivy nor grype is installed", fix=INSTALL)


def vulnerabilities(program: str, image: str) -> list[Vulnerability]:
    """Return what a scanner knows against an image of this engine. Raises Refused when it cannot tell: that is not clean."""
    command, parse = COMMANDS[program]
    argv = [programs.which(program) or program, *(word.format(image=image) for word in command)]
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-scan-") as folder:  # so that no .trivyignore or trivy.yaml has a say
            Path(folder, _NOTHING).write_text("{}\n")
            done = subprocess.run(argv, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True,
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


def _environment() -> dict[str, str]:
    known = build_environment()
    return {name: value for name, value in known.items() if not name.startswith(_SETTINGS) or name in _PASSED_ON}


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
    said = next((mark for mark in ignores if mark.covers(one.advisory)), None)
    return Vulnerability(one.advisory, one.severity, said.reason, said.expires) if said else one


def _sorted(found: Iterable[Vulnerability]) -> list[Vulnerability]:
    """Return each once, the worst first."""
    return sorted(set(found), key=lambda one: (_rank(one.severity), one.advisory.package, one.advisory.id))


def _rank(severity: str) -> int:
    known = ("critical", "high", "medium", "low", "negligible")
    return known.index(severity) if severity in known else len(known)


_NOTHING = "nothing.yaml"  # settings that say nothing, read in place of those of the home folder
COMMANDS: Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], list[Vulnerability]]]] = {
    "trivy": (
        ("image", "--image-src", "docker", "--no-progress", "--scanners", "vuln", "--format", "json", "{image}"), parse_trivy,
    ),
    "grype": (("docker:{image}", "--config", _NOTHING, "-o", "json"), parse_grype),
}  # fmt: skip
