"""What a release brings with it, as a CycloneDX bill of materials: the wheel and the versions its lock installs; pure."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)(?:\s*;\s*([^\\\n]+?))?\s*\\?$", re.MULTILINE)


def bill(version: str, wheel: Path, lock: str, moment: int) -> str:
    """Return the document; the same release gives the same bytes."""
    root = _component("tidegate", version, ComponentType.APPLICATION)
    root.hashes = {HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(wheel.read_bytes()).hexdigest())}
    parts = [_component(name, pinned, ComponentType.LIBRARY, marker) for name, pinned, marker in _PIN.findall(lock)]
    made = Bom(components=parts, serial_number=uuid5(NAMESPACE_URL, str(root.purl)))
    made.metadata.timestamp = datetime.fromtimestamp(moment, UTC)
    made.metadata.component = root
    made.register_dependency(root, parts)
    return JsonV1Dot6(made).output_as_string(indent=1) + "\n"


def _component(name: str, version: str, kind: ComponentType, marker: str = "") -> Component:
    purl = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
    where = [Property(name="python:marker", value=marker)] if marker else []
    return Component(name=name, version=version, type=kind, purl=purl, bom_ref=str(purl), properties=where)
