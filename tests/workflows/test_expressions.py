"""The runner's expressions mean what GitHub's documentation says, and what it does not know it does not guess."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workflows.expressions import Known, Unknown, condition, evaluate, filled, value

CONTEXTS: dict[str, Any] = {
    "inputs": {"environment": "staging", "approved": False, "run": ""},
    "vars": {},
    "github": {"sha": "abc", "ref": "refs/heads/main"},
    "steps": {"list": {"outputs": {"matrix": '[{"session": "lint", "python": null}]'}}},
    "matrix": {"session": "tests-3.12", "python": "3.12"},
}


def known(*, failed: bool = False) -> Known:
    functions = {"success": lambda: not failed, "failure": lambda: failed, "cancelled": lambda: False, "always": lambda: True}
    return Known(CONTEXTS, functions)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("inputs.environment", "staging"),
        ("inputs.environment || vars.STAGING", "staging"),
        ("vars.STAGING", None),
        ("vars.STAGING != ''", False),
        ("inputs.nothing == ''", True),
        ("inputs.approved || ''", ""),
        ("inputs.approved && '--yes' || 'no'", "no"),
        ("'it''s'", "it's"),
        ("'STAGING' == inputs.environment", True),
        ("true && !false", True),
        ("!(true || false)", False),
        ("false || true && false", False),
        ("12", 12),
        ("null", None),
        ("matrix.python || '3.11'", "3.12"),
        ("fromJSON(steps.list.outputs.matrix)", [{"session": "lint", "python": None}]),
        ("true == false", False),
        ("inputs.approved == ''", True),
    ],
)
def test_an_expression_has_the_value_that_github_gives_it(text: str, wanted: object) -> None:
    assert evaluate(text, known()) == wanted


@pytest.mark.parametrize(
    "text",
    ["github.nothing", "nowhere.x", "hashFiles('x')", "1 < 2", "inputs.a inputs.b", "(true", "", "!", "1 == 'x'", "== 1", "a[0]"],
)
def test_what_it_does_not_know_is_an_error(text: str) -> None:
    with pytest.raises(Unknown):
        evaluate(text, known())


def test_text_is_filled_and_an_expression_alone_keeps_its_kind() -> None:
    assert filled("deploy-${{ inputs.environment }}-${{ inputs.approved }}-${{ vars.X }}", known()) == "deploy-staging-false-"
    assert value("${{ fromJSON('[1]') }}", known()) == [1]
    assert value("a ${{ 1 }} ${{ 2 }}", known()) == "a 1 2"
    assert value(5, known()) == 5


@pytest.mark.parametrize(
    ("text", "failed", "wanted"),
    [("true", False, True), ("true", True, False), ("${{ !cancelled() }}", True, True), ("failure()", True, True),
     ("failure()", False, False), ("inputs.run != ''", False, False), ("always()", True, True)],
)  # fmt: skip
def test_an_if_means_and_nothing_failed_unless_it_says_otherwise(text: str, failed: bool, wanted: bool) -> None:
    assert condition(text, known(failed=failed)) is wanted
