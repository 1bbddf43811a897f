"""The wheel: a clone's layout in a folder of its own, and a program that does what `inv` does in a clone."""

from __future__ import annotations

import ast
import email
import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from backup import package
from deploy.sandbox import Sandbox
from monitoring import images
from ops import releasing, version
from ops.link import packed_agent
from ops.releasing import Built
from tests.release.installed import ROOT, Program, unpack

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made from a git repository")
PACKAGES = ("backup", "deploy", "monitoring", "ops")
READS = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from backup import package
from deploy.sandbox import Sandbox
from monitoring import images
from ops.link import packed_agent
print(json.dumps([package.digest(), packed_agent("s").hex(), Sandbox(Path("/shop")).recipe.image, str(images.load())]))
"""

SAYS = """
import sys
sys.path.insert(0, sys.argv[1])
from ops.console import Console
console = Console()
console.say("next: inv deploy -e shop")
console.table("", ("next",), [("inv server.check",)])
console.confirm("inv sandbox.up?")
console.quote("a log that says inv deploy")
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return releasing.build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def script(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(built.wheel, tmp_path_factory.mktemp("site"))


@pytest.fixture
def tidegate(script: Path, tmp_path: Path) -> Program:
    return Program((str(script),), tmp_path, str(script.parents[1]))


@pytest.fixture
def inv(tmp_path: Path) -> Program:
    return Program((sys.executable, "-m", "invoke", "-r", str(ROOT)), tmp_path)


def test_it_holds_what_git_has_and_nothing_else(built: Built) -> None:
    assert releasing.contents(built) == []


def test_nothing_but_tidegate_can_be_imported_from_it(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
    assert {name.partition("/")[0] for name in names} == {"tidegate", f"tidegate-{version.version()}.dist-info"}
    assert {name for name in names if name.count("/") == 1 and name.startswith("tidegate/")} == {
        "tidegate/__init__.py", "tidegate/__main__.py",
    }  # fmt: skip


@pytest.mark.parametrize(
    "needed",
    ["tasks.py", "docker/sandbox/Dockerfile", "docker/bases/nginx/Dockerfile", "monitoring/compose.yaml", "monitoring/images.toml",
     "monitoring/templates/tidegate.tmpl", "ops.example.toml", "docs/restore-by-hand.md", "example/blog/__main__.py"],
)  # fmt: skip
def test_it_has_the_files_that_are_read_at_work(script: Path, needed: str) -> None:
    assert (script.parents[1] / "tidegate/_app" / needed).read_bytes() == (ROOT / needed).read_bytes()


def test_its_metadata_are_those_of_the_project(built: Built) -> None:
    told = f"tidegate-{version.version()}.dist-info"
    with zipfile.ZipFile(built.wheel) as wheel:
        metadata = email.message_from_bytes(wheel.read(f"{told}/METADATA"))
        scripts = wheel.read(f"{told}/entry_points.txt").decode()
        assert wheel.read(f"{told}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == version.version()
    assert metadata["License-Expression"] == project["license"]
    assert len(metadata.get_all("Requires-Dist", [])) == len(project["dependencies"])
    assert scripts == "[console_scripts]\ntidegate = tidegate:main\n"


def imported(app: Path) -> Iterator[str]:
    """Every package that our code imports, wherever in it."""
    for path in [app / "tasks.py", *(path for folder in PACKAGES for path in (app / folder).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (one.name.partition(".")[0] for one in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield (node.module or "").partition(".")[0]


def test_its_lock_installs_all_that_it_imports(script: Path) -> None:
    ours = {*PACKAGES, "tasks", *sys.stdlib_module_names}
    wanted = set(imported(script.parents[1] / "tidegate/_app")) - ours
    lock = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE))
    known = packages_distributions()
    assert "invoke" in wanted
    assert {
        name: known.get(name) for name in wanted if not lock & {one.lower().replace("_", "-") for one in known.get(name, [])}
    } == {}


def test_its_version_is_the_clones(tidegate: Program, script: Path) -> None:
    app = script.parents[1] / "tidegate/_app"
    module = Program((sys.executable, "-m", "tidegate"), tidegate.folder, tidegate.path)
    assert tidegate("--version").out == module("--version").out == f"Tidegate {version.version()} from {app}\n"


def test_it_lists_the_tasks_of_a_clone(tidegate: Program, inv: Program) -> None:
    assert tidegate("--list").out == inv("--list").out.replace("Available tasks:", "Subcommands:")


def test_help_differs_only_in_the_programs_name(tidegate: Program, inv: Program) -> None:
    assert tidegate("--help", "deploy").out == inv("--help", "deploy").out.replace("Usage: inv[oke]", "Usage: tidegate")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("deploy",), 2, "✗ ops.toml: expected this file to exist\n  next:  tidegate init\n"),
        (("init", "--name", "-"), 2, "tidegate init"),
        (("deploy.undo",), 1, "No idea what 'deploy.undo' is!"),
    ],
)
def test_it_ends_and_explains_itself_as_inv_does(
    tidegate: Program, inv: Program, words: tuple[str, ...], code: int, expected: str
) -> None:
    ours, theirs = tidegate(*words), inv(*words)
    assert ours.code == theirs.code == code
    assert expected in ours.err
    assert ours.err == theirs.err.replace("inv init", "tidegate init")


@pytest.mark.parametrize("options", [("-m",), ("-P", "-m")])
def test_modules_in_the_apps_folder_are_not_taken_for_ours(tidegate: Program, options: tuple[str, ...]) -> None:
    for name in ("docker/__init__.py", "ops/__init__.py", "pydantic.py", "tasks.py"):
        (tidegate.folder / name).parent.mkdir(exist_ok=True)
        (tidegate.folder / name).write_text("raise SystemExit('the wrong one')\n")
    module = Program((sys.executable, *options, "tidegate"), tidegate.folder, tidegate.path)
    assert "next:  tidegate init" in module("config.check").err


def test_what_it_says_names_it_and_what_it_passes_on_stays_as_it_is(script: Path, tmp_path: Path) -> None:
    said = Program((sys.executable, "-c", SAYS, str(script.parents[1] / "tidegate/_app")), tmp_path)()
    lines = [line.strip() for line in said.out.splitlines()]
    assert (said.code, lines[0], lines[-1]) == (0, "next: tidegate deploy -e shop", "a log that says inv deploy")
    assert "tidegate server.check" in lines
    assert lines[-2].startswith("tidegate sandbox.up?")


def test_scripts_are_told_its_own_commands(tidegate: Program) -> None:
    done = tidegate("deploy", "--json")
    assert json.loads(done.out)["next"] == "tidegate init"
    assert json.loads(done.out)["exit_code"] == done.code == 2


def test_a_project_begun_with_it_names_it(tidegate: Program) -> None:
    begun = tidegate("init", "--name", "shop")
    assert begun.out.endswith("written: fill in your servers, then run tidegate config.check\n")
    text = (tidegate.folder / "ops.toml").read_text()
    assert "tidegate sandbox.up" in text
    assert "inv " not in text
    (tidegate.folder / "ops.toml").rename(tidegate.folder / "other.toml")
    (tidegate.folder / "Dockerfile").write_text("FROM scratch\n")
    checked = tidegate("config.check", TIDEGATE_CONFIG="other.toml")
    assert (checked.code, checked.err) == (0, "")
    assert "other.toml is fine" in checked.out


def test_a_server_and_this_machine_get_the_same_from_it_as_from_a_clone(script: Path, tmp_path: Path) -> None:
    app = script.parents[1] / "tidegate/_app"
    read = Program((sys.executable, "-c", READS, str(app)), tmp_path)()
    assert json.loads(read.out) == [
        package.digest(), packed_agent("s").hex(), Sandbox(Path("/shop")).recipe.image, str(images.load()),
    ]  # fmt: skip


def test_a_shell_completes_its_commands(tidegate: Program) -> None:
    assert "complete -F" in tidegate("--print-completion-script", "bash").out
    completed = tidegate("--complete", "--", "tidegate", "sandbox.").out.split()
    assert {"sandbox.up", "sandbox.down"} <= set(completed)
