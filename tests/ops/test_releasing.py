"""A release is made from a tagged clean commit, is the same whoever builds it, and holds what git has and nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ops import releasing
from ops.errors import ConfigError, Failed, Refused
from ops.releasing import Checkout
from tests.release.repository import commit, git, repository

READY = Checkout("1.2.0", (), (), "# Changes\n\n## 1.2.0, 2026-12-01\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path)


@pytest.fixture
def released(root: Path) -> Path:
    """A commit that can be published."""
    releasing.notes("1.2.0", root)
    commit(root)
    git(root, "tag", "v1.2.0")
    return root


def test_nothing_speaks_against_a_clean_tagged_commit_that_the_changelog_tells_of() -> None:
    assert releasing.refusals(READY) == []


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (replace(READY, changed=(" M tasks.py",)), "files differ from the commit: tasks.py"),
        (replace(READY, fragments=("+sharks.added.md",)), "changelog.d has 1 changes"),
        (replace(READY, version="1.2.0.post1+gabc1234"), "the commit has no tag"),
        (replace(READY, version="0"), "the commit has no tag"),
        (replace(READY, changelog="# Changes\n"), "CHANGELOG.md does not tell of 1.2.0"),
        (replace(READY, changelog="\n## 1.2.0, unreleased\n"), "says that 1.2.0 is unreleased"),
    ],
)
def test_whatever_speaks_against_a_release_is_said(seen: Checkout, expected: str) -> None:
    (found,) = releasing.refusals(seen)
    assert expected in found


def test_notes_gather_what_changed_above_what_was_written_by_hand(root: Path) -> None:
    releasing.notes("1.2.0", root)
    text = (root / "CHANGELOG.md").read_text()
    assert text.startswith("# Changes\n\n<!-- new releases go below this line -->\n\n## 1.2.0, 20")
    assert text.endswith("\n\nNew:\n\n- Sharks.\n\nThe first release.\n")
    assert "unreleased" not in text
    assert sorted(path.name for path in (root / "changelog.d").iterdir()) == ["template.md"]


def test_notes_of_a_release_that_is_out_or_cannot_be_are_refused(released: Path) -> None:
    with pytest.raises(Refused, match="is there already"):
        releasing.notes("1.2.0", released)
    with pytest.raises(ConfigError, match="is no version"):
        releasing.notes("v1.3", released)


def test_a_release_is_a_wheel_an_sdist_their_lock_their_bill_and_all_sums(released: Path) -> None:
    built = releasing.make(released, rehearsal=False)
    assert sorted(path.name.removeprefix("tidegate-1.2.0") for path in built.folder.iterdir()) == [
        "-py3-none-any.whl", ".cdx.json", ".requirements.txt", ".tar.gz", "SHA256SUMS",
    ]  # fmt: skip
    assert built.folder == released / "dist/1.2.0"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=built.folder, check=True)
    assert len((built.folder / "SHA256SUMS").read_text().splitlines()) == 4
    with zipfile.ZipFile(built.wheel) as wheel:
        inside = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert sorted(inside) == ["tidegate/_app/ops/version.py", "tidegate/_app/tasks.py"]
    with tarfile.open(built.sdist) as sdist:
        assert not [name for name in sdist.getnames() if ".env" in name or "/dist" in name]
    assert releasing.look(released).changed == ()


def test_the_bill_of_materials_names_the_wheel_and_each_version_of_the_lock(released: Path) -> None:
    built = releasing.make(released, rehearsal=False)
    bill = json.loads((built.folder / "tidegate-1.2.0.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("tidegate", "1.2.0")
    assert root["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(built.wheel.read_bytes()).hexdigest()}]
    assert [(one["purl"], one.get("properties")) for one in bill["components"]] == [
        ("pkg:pypi/colorama@0.4.6", [{"name": "python:marker", "value": "sys_platform == 'win32'"}]),
        ("pkg:pypi/invoke@2.2.1", None),
    ]


def test_the_same_release_made_elsewhere_is_the_same_to_the_byte(released: Path, tmp_path: Path) -> None:
    releasing.make(released, rehearsal=False)
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["git", "clone", "--quiet", released, elsewhere], check=True)
    releasing.make(elsewhere, rehearsal=False)
    assert (elsewhere / "dist/1.2.0/SHA256SUMS").read_text() == (released / "dist/1.2.0/SHA256SUMS").read_text()


def test_what_is_not_tagged_can_be_rehearsed_and_not_released(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert releasing.main([], root) == 3
    assert "the commit has no tag" in capsys.readouterr().err
    assert not (root / "dist").exists()
    assert releasing.main(["--draft"], root) == 0
    said = capsys.readouterr().out
    assert "- Sharks." in said
    assert said.endswith("nothing is published. This was a rehearsal.\n")
    assert (root / "changelog.d/+sharks.added.md").exists()


def test_each_command_says_the_next(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert releasing.main(["--notes", "1.2.0"], root) == 0
    assert "git tag -a v1.2.0" in capsys.readouterr().out
    commit(root)
    git(root, "tag", "v1.2.0")
    assert releasing.main([], root) == 0
    assert capsys.readouterr().out.endswith("nothing is published. Next: push the tag, then upload these files.\n")


def test_a_secret_that_git_ignores_is_found_in_the_wheel(root: Path) -> None:
    project = root / "pyproject.toml"
    project.write_text(project.read_text() + '\n[tool.hatch.build]\nartifacts = ["ops/.env.production"]\n')
    with pytest.raises(Failed, match=r"has tidegate/_app/ops/\.env\.production, which it should not"):
        releasing.make(root, rehearsal=True)


def test_a_file_that_the_wheel_or_the_sdist_lacks_is_found(root: Path) -> None:
    (root / "ops/useful.toml").write_text("")
    project = root / "pyproject.toml"
    project.write_text(project.read_text() + '\n[tool.hatch.build]\nexclude = ["useful.toml"]\n')
    with pytest.raises(Failed, match=r"whl lacks tidegate/_app/ops/useful\.toml; tidegate-.*tar\.gz lacks ops/useful\.toml"):
        releasing.make(root, rehearsal=True)


def test_an_sdist_that_builds_another_wheel_is_found(root: Path) -> None:
    (root / "ops/useful.toml").write_text("")
    project = root / "pyproject.toml"
    project.write_text(project.read_text() + '\n[tool.hatch.build.targets.sdist]\nexclude = ["useful.toml"]\n')
    with pytest.raises(Failed, match="two builds differ"):
        releasing.make(root, rehearsal=True)


def test_what_stops_a_build_is_said(root: Path, tmp_path: Path) -> None:
    (root / "tasks.py").unlink()
    with pytest.raises(Failed, match=r"hatchling failed[\s\S]*tasks\.py"):
        releasing.make(root, rehearsal=True)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / ".git").write_text("gitdir: nowhere")
    with pytest.raises(Refused, match="git does not answer"):
        releasing.look(bare)
