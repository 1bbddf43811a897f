"""The tests can be collected on a machine that has no Docker engine yet."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.docs.documents import ROOT


def test_tests_that_need_an_engine_are_collected_without_one() -> None:
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.integration" in path.read_text()]
    nowhere = os.environ | {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *map(str, files)],
        cwd=ROOT, env=nowhere, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert len(files) > 30
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
