"""Which lock files a folder has, and what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.audit import python_lock
from deploy.audit.locks import find
from ops.errors import ConfigError
from tests.deploy.audit.audit_cases import FIXED, FOR_ANOTHER_SYSTEM, VULNERABLE

PYPROJECT = '[project]\nname = "it"\nversion = "1"\ndependencies = ["requests"]\n'
PACKAGE = json.dumps({"name": "it", "dependencies": {"lodash": "^4"}})


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return [one.path.relative_to(folder).as_posix() for one in find([folder]).locks]


def test_every_lock_of_a_folder_is_found(tmp_path: Path) -> None:
    written(tmp_path, uv_lock="", requirements_lock="", requirements__dev_txt=VULNERABLE, Cargo_lock="", other_txt="")
    (tmp_path / "package-lock.json").write_text("{}")
    assert names(tmp_path) == ["uv.lock", "requirements.lock", "requirements/dev.txt", "Cargo.lock", "package-lock.json"]
    assert [one.kind for one in find([tmp_path]).locks] == ["Python", "Python", "Python", "Rust", "Node"]


def test_a_lock_that_is_found_twice_is_audited_once(tmp_path: Path) -> None:
    written(tmp_path, requirements_lock=FIXED)
    assert len(find([tmp_path, tmp_path, tmp_path / "requirements.lock"]).locks) == 1


def test_requirements_without_hashes_are_taken_for_a_lock_only_where_there_is_no_other(tmp_path: Path) -> None:
    written(tmp_path, requirements_txt="requests")
    assert names(tmp_path) == ["requirements.txt"]
    written(tmp_path, requirements_lock=FIXED)
    assert names(tmp_path) == ["requirements.lock"]


@pytest.mark.parametrize(
    ("name", "lock"), [("requirements.txt", "requirements.lock"), ("requirements/dev.txt", "requirements/dev.lock")]
)
def test_requirements_without_hashes_beside_a_lock_are_said_not_to_be_audited_until_a_lock_is_made_from_them(
    tmp_path: Path, name: str, lock: str
) -> None:
    written(tmp_path, requirements_lock=FIXED, **{name.replace("/", "__").replace(".", "_"): "requests"})
    [gap] = find([tmp_path]).gaps
    assert (gap.what.endswith(name), gap.fix) == (True, f"uv pip compile --generate-hashes {name} -o {lock}")
    (tmp_path / lock).write_text(f"{FIXED}    # via -r {name}\n")
    assert find([tmp_path]).gaps == []


def test_what_a_lock_was_compiled_from_is_read_from_its_comments_alone(tmp_path: Path) -> None:
    lock = f"{FIXED}    # via\n    #   -r requirements.in, -r requirements.txt\n    #   flask\n"
    written(tmp_path, requirements_lock=lock, requirements_txt="requests", requirements__dev_txt="requests")
    assert [Path(one.what).name for one in find([tmp_path]).gaps] == ["dev.txt"]
    written(tmp_path, requirements_lock=f"-r requirements.txt\n{FIXED}")
    assert len(find([tmp_path]).gaps) == 2


@pytest.mark.parametrize(("name", "kind"), [("Cargo.lock", "Rust"), ("package-lock.json", "Node"), ("what-we-ship", "Python")])
def test_a_lock_can_be_named(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text("")
    assert [(one.path, one.kind, one.project) for one in find([tmp_path / name]).locks] == [(tmp_path / name, kind, tmp_path)]


@pytest.mark.parametrize(
    ("name", "command"), [("pnpm-lock.yaml", "pnpm audit"), ("yarn.lock", "yarn npm audit"), ("go.sum", "govulncheck")]
)
def test_a_lock_that_is_not_covered_is_said_with_what_audits_it(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name).write_text("")
    (tmp_path / "package.json").write_text(PACKAGE if name != "go.sum" else "{}")
    for target in (tmp_path, tmp_path / name):
        found = find([target])
        assert (found.locks, [Path(one.what).name for one in found.gaps]) == ([], [name])
        assert found.gaps[0].fix.startswith(command)


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("pyproject.toml", PYPROJECT, "uv pip compile --generate-hashes"),
        ("pyproject.toml", "[tool.poetry.dependencies]\nrequests = '*'", "uv pip compile --generate-hashes"),
        ("Cargo.toml", "[package]", "cargo generate-lockfile"),
        ("package.json", PACKAGE, "npm install --package-lock-only"),
    ],
)
def test_packages_that_no_lock_speaks_for_are_said(tmp_path: Path, name: str, text: str, command: str) -> None:
    (tmp_path / name).write_text(text)
    [gap] = find([tmp_path]).gaps
    assert gap.what.endswith(name)
    assert gap.fix.startswith(command)


def test_a_manifest_without_packages_needs_no_lock(tmp_path: Path) -> None:
    written(tmp_path, pyproject_toml="[tool.ruff]", package_json='{"type": "module"}', requirements_lock=FIXED)
    assert find([tmp_path]).gaps == []


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_manifest_that_cannot_be_read_is_an_error(tmp_path: Path, text: str) -> None:
    written(tmp_path, package_json=text)
    with pytest.raises(ConfigError, match=r"package.json cannot be read"):
        find([tmp_path])


def test_a_folder_without_any_lock_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no lock file in .*\n.*\n.*uv pip compile --generate-hashes"):
        find([tmp_path])
    with pytest.raises(ConfigError, match="there is no "):
        find([tmp_path / "nowhere"])


def pins(tmp_path: Path, text: str, name: str = "requirements.lock") -> list[str]:
    (tmp_path / name).write_text(text)
    return [f"{one.name} {one.version}" for one in python_lock.read(tmp_path / name).pins]


def elsewhere(tmp_path: Path, text: str, name: str = "requirements.lock") -> tuple[str, ...]:
    (tmp_path / name).write_text(text)
    return python_lock.read(tmp_path / name).elsewhere


def test_entries_for_other_systems_are_part_of_a_lock(tmp_path: Path) -> None:
    assert pins(tmp_path, VULNERABLE + FOR_ANOTHER_SYSTEM) == ["requests 2.30.0", "idna 3.6", "idna 3.7"]


def test_names_and_versions_are_compared_as_indexes_do(tmp_path: Path) -> None:
    assert pins(tmp_path, "Flask_SQLAlchemy[async] === 3.0.0.RC1  --hash sha256:aa # why\n") == ["flask-sqlalchemy 3.0.0rc1"]


@pytest.mark.parametrize(
    "line", ["--index-url https://example.com", "-c more.txt", "-e .", "./ours", "it @ file:///it", "-e ours"]
)
def test_options_and_code_of_the_project_are_no_packages(tmp_path: Path, line: str) -> None:
    assert pins(tmp_path, f"{line}\n{FIXED}") == ["requests 2.31.0"]
    assert elsewhere(tmp_path, f"{line}\n{FIXED}") == ()


@pytest.mark.parametrize(
    "line", ["git+https://example.com/it", "it @ https://example.com/it.whl", "-e git+https://example.com/it"]
)
def test_what_comes_from_no_index_is_told(tmp_path: Path, line: str) -> None:
    assert elsewhere(tmp_path, f"{line} --hash=sha256:aa\n{FIXED}")[0].endswith(("example.com/it", "it.whl", "sha256:aa"))


@pytest.mark.parametrize("line", ["./vendor/it-1.0-py3-none-any.whl", "it @ file:///vendor/it-1.0.tar.gz", "file:///it.zip"])
def test_a_built_release_that_lies_in_a_folder_is_told_as_from_elsewhere(tmp_path: Path, line: str) -> None:
    assert elsewhere(tmp_path, f"{line} --hash=sha256:aa\n{FIXED}") == (line,)


def test_a_file_may_end_in_the_middle_of_an_entry(tmp_path: Path) -> None:
    assert pins(tmp_path, "requests==2.31.0 --hash=sha256:aa \\") == ["requests 2.31.0"]


def test_a_lock_without_hashes_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no hashes for idna 3\.7\n.*\n.*--generate-hashes"):
        pins(tmp_path, FIXED + "idna==3.7\n")


@pytest.mark.parametrize(
    "line",
    ["requests>=2", "requests==2.*", "requests", "requests==2,!=3", "requests==?", "-r other.txt", "it==2004d", "it===2004d"],
)
def test_what_is_not_pinned_to_one_release_is_an_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        pins(tmp_path, f"{line} --hash=sha256:aa")


def test_a_lock_that_holds_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no package"):
        pins(tmp_path, "# nothing yet\n")


UV = """
version = 1
[[package]]
name = "requests"
version = "2.30.0"
source = { registry = "https://example.com" }
sdist = { url = "https://example.com/a", hash = "sha256:aa" }
wheels = [{ url = "https://example.com/b", hash = "sha256:bb" }]
[[package]]
name = "ours"
version = "0.1"
source = { editable = "." }
[[package]]
name = "theirs"
version = "0.1"
source = { git = "https://example.com/theirs" }
"""
POETRY = """
[[package]]
name = "requests"
version = "2.30.0"
files = [{file = "a.whl", hash = "sha256:aa"}, {file = "b.tar.gz", hash = "sha256:bb"}]
[package.source]
type = "legacy"
url = "https://example.com/simple"
[[package]]
name = "ours"
version = "0.1"
files = []
[package.source]
type = "directory"
url = "../ours"
[[package]]
name = "theirs"
version = "0.1"
files = []
[package.source]
type = "git"
url = "https://example.com/theirs"
"""
PYLOCK = """
lock-version = "1.0"
[[packages]]
name = "requests"
version = "2.30.0"
sdist = { url = "https://example.com/a", hashes = { sha256 = "aa" } }
wheels = [{ url = "https://example.com/b", hashes = { sha256 = "bb" } }]
[[packages]]
name = "ours"
directory = { path = "." }
[[packages]]
name = "theirs"
vcs = { type = "git", url = "https://example.com/theirs" }
"""


@pytest.mark.parametrize(
    ("name", "text"), [("uv.lock", UV), ("poetry.lock", POETRY), ("pylock.toml", PYLOCK), ("pylock.web.toml", PYLOCK)]
)
def test_locks_of_other_tools_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    held = python_lock.read(tmp_path / name)
    assert [(one.name, one.version, one.hashes) for one in held.pins] == [("requests", "2.30.0", ("sha256:aa", "sha256:bb"))]
    assert [one.split()[0] for one in held.elsewhere] == ["theirs"]


@pytest.mark.parametrize(
    "text", ["[[package]", "[[package]]\nname = 1\nversion = '1'", "package = [1]", "[[package]]\nversion = '1'"]
)
def test_a_lock_that_is_broken_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"uv.lock cannot be read"):
        pins(tmp_path, text, "uv.lock")
