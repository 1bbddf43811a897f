"""The program `tidegate`, as it runs in a clone; tests/release has it installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ops import entry, version


def run(*words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.entry", *words]
    return subprocess.run(command, cwd=version.ROOT, env={**os.environ, **extra}, capture_output=True, text=True, check=False)


def test_it_says_its_version_and_where_it_is() -> None:
    assert run("--version").stdout == f"Tidegate {version.version()} from {version.ROOT}\n"


def test_an_error_ends_it_with_its_exit_code_and_in_a_clone_names_inv(tmp_path: Path) -> None:
    done = run("deploy", TIDEGATE_CONFIG=str(tmp_path / "ops.toml"))
    assert done.returncode == 2
    assert done.stderr.startswith("✗ ops.toml: expected this file to exist\n  next:  inv init\n")


def test_who_interrupts_it_while_it_loads_sees_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    loading = ModuleType("tasks")
    monkeypatch.setattr(loading, "__getattr__", interrupted, raising=False)
    monkeypatch.setitem(sys.modules, "tasks", loading)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
