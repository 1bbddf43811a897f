"""The tests can be collected on a machine that has no Docker engine yet."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.docs.documents import ROOT


def test_every_test_is_collected_without_an_engine() -> None:
    nowhere = os.environ | {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT, env=nowhere, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
