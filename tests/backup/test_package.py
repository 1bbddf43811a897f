"""The program for servers: one file, the standard library, Python 3.10."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from backup import package
from backup.client import OTHER_PROGRAM

ROOT = Path(__file__).parents[2]
PYTHONS = [sys.executable, "/usr/bin/python3"]
NEWER = {"tomllib", "wsgiref.types", "asyncio.taskgroups"}
NEWER_NAMES = {"UTC", "Self", "StrEnum", "ExceptionGroup", "BaseExceptionGroup", "assert_never", "file_digest", "reveal_type"}


def sources() -> list[tuple[str, str]]:
    with zipfile.ZipFile(io.BytesIO(package.program())) as archive:
        return [(name, archive.read(name).decode()) for name in archive.namelist()]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "backup.pyz"
    path.write_bytes(package.program())
    return path


@pytest.mark.parametrize(("name", "text"), sources(), ids=[name for name, _ in sources()])
def test_every_source_is_python_3_10_and_imports_only_what_is_packed_and_the_standard_library(name: str, text: str) -> None:
    packed = {one.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for one, _ in sources()}
    tree = ast.parse(text, name, feature_version=(3, 10))
    for node in ast.walk(tree):
        modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.partition(".")[0] in sys.stdlib_module_names or module in packed, module
            assert module not in NEWER
        if isinstance(node, ast.ImportFrom):
            assert node.module == "__future__" or not NEWER_NAMES & {one.name for one in node.names}
        if isinstance(node, ast.Attribute):
            assert node.attr not in NEWER_NAMES, f"line {node.lineno}"
        assert not isinstance(node, ast.Name) or node.id not in NEWER_NAMES - {"UTC"}, f"line {node.lineno}"


def test_the_same_sources_make_the_same_bytes_at_any_time() -> None:
    first = package.program()
    package.program.cache_clear()
    assert package.program() == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("python", [one for one in PYTHONS if Path(one).exists()])
def test_it_runs_on_nothing_but_python_and_knows_its_version(python: str, program: Path) -> None:
    done = subprocess.run([python, "-I", "-S", program, "--version"], capture_output=True, text=True, timeout=20)
    assert (done.stdout.strip(), done.stderr) == (package.digest()[:12], "")


def test_another_version_than_expected_ends_at_once(program: Path) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", program, "list", "--app", "blog", "--expect", "0" * 64], timeout=20)
    assert done.returncode == OTHER_PROGRAM


def test_all_of_it_is_read_before_it_begins_since_the_file_may_be_replaced() -> None:
    (start,) = [text for name, text in sources() if name == "__main__.py"]
    modules = {path.stem for path in (ROOT / "backup/agent").glob("*.py")} - {"__init__", "install"}
    assert modules == set(start.split("import ")[2].split("\n")[0].split(", "))
