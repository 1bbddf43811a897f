"""Prometheus' own tool, of the very version that will run, checks the rules and runs their tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from monitoring.images import image
from ops.bases import ensure_base
from ops.this_machine import local_client

pytestmark = pytest.mark.integration
RULES = Path(__file__).parents[2] / "monitoring" / "rules"


@cache
def prometheus() -> str:
    """Return the name of the image, once it is here."""
    reference = image("prometheus")
    ensure_base(reference, print)
    return reference.partition("@")[0]


def promtool(*arguments: str) -> str:
    """Run it; what it says when it fails is in the exception."""
    said: bytes = local_client().containers.run(
        prometheus(), list(arguments), entrypoint=["/bin/promtool"], user="0", network_mode="none", working_dir="/rules",
        volumes={str(RULES): {"bind": "/rules", "mode": "ro"}}, remove=True, stdout=True, stderr=True,
    )  # fmt: skip
    return said.decode()


def paths(pattern: str) -> list[str]:
    return [path.relative_to(RULES).as_posix() for path in sorted(RULES.glob(pattern))]


def test_no_rule_has_anything_to_complain_of() -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", *paths("*.yml"))
    assert said.count("SUCCESS") == len(paths("*.yml"))


def test_every_rule_fires_keeps_quiet_and_resolves_as_its_tests_say() -> None:
    said = promtool("test", "rules", *paths("tests/*.yml"))
    assert said.count("SUCCESS") == len(paths("tests/*.yml"))
