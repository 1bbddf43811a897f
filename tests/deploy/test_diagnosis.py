"""Why a container did not become healthy, in words."""

from __future__ import annotations

import pytest

from deploy.diagnosis import likely_cause


@pytest.mark.parametrize(
    ("reason", "last", "port", "listening", "expected"),
    [
        ("died", "exit code 3", 3000, [], "it crashed at start (exit code 3)"),
        (
            "died",
            "exit code 137, out of memory",
            3000,
            [],
            "killed, most likely out of memory: raise `memory`, or find what grew",
        ),
        ("died", "exit code 137", 3000, [], "killed, most likely out of memory: raise `memory`, or find what grew"),
        ("died", "exit code 4", 0, [], "it crashed at start (exit code 4)"),
        ("timeout", "refused", 3000, [3001], "wrong port: nothing listens on 3000, but it does listen on 3001"),
        ("timeout", "refused", 3000, [80, 443], "wrong port: nothing listens on 3000, but it does listen on 80, 443"),
        ("timeout", "refused", 3000, [], "slow start: nothing listens on 3000 yet; raise `health.timeout` if that is normal"),
        (
            "timeout",
            "/health answered 503: no",
            3000,
            [3000],
            "it runs and listens, but its health check does not pass: /health answered 503: no",
        ),
        ("timeout", "running", 0, [], "running"),
    ],
)
def test_the_cause_is_named(reason: str, last: str, port: int, listening: list[int], expected: str) -> None:
    assert likely_cause(reason, last, port, listening) == expected
