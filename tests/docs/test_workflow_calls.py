"""Workflows that the documents show call ours with what these take."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.docs.documents import DOCUMENTS, ROOT, blocks

FILE = re.compile(r"[\w-]+/[\w-]+/(\.github/workflows/[\w-]+\.ya?ml)@[0-9a-f]{40}")
BLOCKS = {block.where: yaml.safe_load(block.text) for document in DOCUMENTS for block in blocks(document, "yaml")}
CALLS = [pytest.param(job, id=f"{where} {name}") for where, shown in BLOCKS.items()
         if isinstance(shown, dict) for name, job in shown.get("jobs", {}).items() if "uses" in job]  # fmt: skip


def taken(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the inputs and secrets that the called workflow of ours takes."""
    called = FILE.fullmatch(job["uses"])
    assert called, f"{job['uses']} is no workflow pinned to a commit"
    triggers: dict[Any, Any] = yaml.safe_load((ROOT / called[1]).read_text())
    return dict(triggers[True]["workflow_call"])  # YAML reads the key `on` as true


def assert_can_be_called(job: dict[str, Any]) -> None:
    all_taken = taken(job)
    for given, takes in (("with", "inputs"), ("secrets", "secrets")):
        known = all_taken.get(takes) or {}
        assert set(job.get(given, {})) <= set(known)
        assert {name for name, one in known.items() if (one or {}).get("required")} <= set(job.get(given, {}))


@pytest.mark.parametrize("job", CALLS)
def test_a_workflow_that_is_shown_can_call_ours(job: dict[str, Any]) -> None:
    assert_can_be_called(job)


@pytest.mark.parametrize("job", CALLS)
def test_an_input_that_is_none_would_be_found(job: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_can_be_called({**job, "with": {**job.get("with", {}), "never-was": 1}})
