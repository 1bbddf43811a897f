"""Removing the sandbox while the engine that has its servers does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.sandbox import Sandbox
from ops.errors import Refused


def test_the_keys_stay_while_the_engine_cannot_remove_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    sandbox = Sandbox(tmp_path)
    for path in (sandbox.identity, sandbox.known_hosts, sandbox.environment):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    with pytest.raises(Refused, match="does not answer") as caught:
        sandbox.down(print)
    assert "sandbox.down" in caught.value.fix
    assert [path.read_text() for path in (sandbox.identity, sandbox.known_hosts, sandbox.environment)] == ["precious"] * 3
