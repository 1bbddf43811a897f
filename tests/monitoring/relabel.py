"""What Prometheus' relabelling makes of labels, as far as we use it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def relabelled(labels: Mapping[str, str], steps: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """Return labels after all steps; None where the target or the series is dropped."""
    found = dict(labels)
    for step in steps:
        value = ";".join(found.get(name, "") for name in step.get("source_labels", ()))
        match = re.fullmatch(step.get("regex", "(.*)"), value, re.DOTALL)
        if step.get("action") == "labeldrop":
            found = {name: text for name, text in found.items() if not re.fullmatch(step["regex"], name)}
        elif step.get("action") == "keep":
            if not match:
                return None
        elif match:
            text = match.expand(re.sub(r"\$(\d)", r"\\\1", step.get("replacement", "$1")))
            found = {**found, step["target_label"]: text}
    return {name: text for name, text in found.items() if text}
