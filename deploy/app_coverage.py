"""How much of an app's code its own tests run, by the tools of its language."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.programs import which
from ops.errors import ConfigError, Failed, Refused

_MEANS = {"run": {5: "no test ran"}, "report": {2: "less of it ran than --fail-under asks"}}


def measure(folder: Path, floor: float, tests: Sequence[str] = ()) -> None:
    """Run an app's tests and report its coverage in percent. Raises Failed when one fails, or the floor is not reached."""
    for command in commands(folder, floor, tests):
        done = subprocess.run(command, cwd=folder, check=False).returncode
        if done:
            why = next((codes[done] for word, codes in _MEANS.items() if word in command and done in codes), "")
            raise Failed(f"{' '.join(command)} ended with exit code {done}", where=str(folder), why=why)


def commands(folder: Path, floor: float, tests: Sequence[str] = ()) -> list[list[str]]:
    """Return what to run. Raises Refused when its tools are missing, ConfigError for an app of a language not known here."""
    if (folder / "Cargo.toml").is_file():
        return [_rust(f"{floor:g}")]
    if (folder / "pyproject.toml").is_file() or any("node_modules" not in one.parts for one in folder.rglob("*.py")):
        return _python(folder, f"{floor:g}", tests)
    raise ConfigError(f"{folder} is no app whose coverage can be measured here", why="it has no Cargo.toml and no Python",
                      fix="name the folder of its sources: context in [app]")  # fmt: skip


def _rust(floor: str) -> list[str]:
    cargo = which("cargo") or "cargo"
    if which("cargo-llvm-cov"):
        return [cargo, "llvm-cov", "--fail-under-lines", floor]
    if which("cargo-tarpaulin"):
        return [cargo, "tarpaulin", "--fail-under", floor]
    raise Refused("neither cargo-llvm-cov nor cargo-tarpaulin is installed", fix="cargo install cargo-llvm-cov --locked")


def _python(folder: Path, floor: str, tests: Sequence[str]) -> list[list[str]]:
    """Measure with the app's own environment, where it has one."""
    own = folder / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    missing = subprocess.run([python, "-c", "import coverage, pytest"], capture_output=True, text=True, check=False)
    if missing.returncode:
        raise Refused(f"{python} lacks coverage or pytest", fix=f"{python} -m pip install coverage pytest")
    places = [str(Path(one).absolute()) for one in tests]
    measured = [python, "-m", "coverage", "run", "--branch", "--source", ".", "-m", "pytest", *places]
    return [measured, [python, "-m", "coverage", "report", "--fail-under", floor]]
