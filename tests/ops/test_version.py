"""The version is what git's tags say, and something usable where there are none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

from ops import version
from tests.release.repository import commit, git, repository


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("v1.2.3-0-gabc1234", "1.2.3"),
        ("v1.2.3rc1-0-gabc1234", "1.2.3rc1"),
        ("v1.2.3-4-gabc1234", "1.2.3.post4+gabc1234"),
        ("v1.2.3-0-gabc1234-dirty", "1.2.3.post0+gabc1234.dirty"),
        ("abc1234", "0+gabc1234"),
        ("abc1234-dirty", "0+gabc1234.dirty"),
        ("", ""),
        ("fatal: not a git repository", ""),
    ],
)
def test_a_description_by_git_becomes_a_version(described: str, expected: str) -> None:
    assert version.from_git(described) == expected
    assert not expected or str(Version(expected)) == expected


def test_a_tagged_commit_is_the_release_and_what_follows_it_is_later(tmp_path: Path) -> None:
    root = repository(tmp_path)
    untagged = version.version(root)
    git(root, "tag", "-a", "v1.2.0", "-m", "1.2.0")
    git(root, "tag", "unrelated")
    assert version.version(root) == "1.2.0"
    (root / "README.md").write_text("changed")
    dirty = version.version(root)
    commit(root)
    after = version.version(root)
    assert after == f"1.2.0.post1+g{git(root, 'rev-parse', '--short=7', 'HEAD')}"
    assert Version(untagged) < Version("1.2.0") < Version(dirty) < Version(after) < Version("1.2.1")


def test_a_clone_without_tags_has_a_version_that_names_its_commit(tmp_path: Path) -> None:
    root = repository(tmp_path / "origin")
    git(root, "tag", "v1.2.0")
    subprocess.run(["git", "clone", "--quiet", "--no-tags", root, tmp_path / "clone"], check=True)
    assert version.version(tmp_path / "clone") == f"0+g{git(root, 'rev-parse', '--short=7', 'HEAD')}"


def test_a_folder_without_git_is_what_its_sdist_says_or_unknown_and_never_the_repository_around_it(tmp_path: Path) -> None:
    root = repository(tmp_path)
    git(root, "tag", "v9.9.9")
    unpacked = root / "unpacked"
    unpacked.mkdir()
    assert version.version(unpacked) == version.UNKNOWN
    (unpacked / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: tidegate\nVersion: 1.2.0\n\nVersion: none\n")
    assert version.version(unpacked) == "1.2.0"


def test_without_git_the_version_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert version.version(root) == version.UNKNOWN


def test_a_wheel_has_the_version_it_was_built_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "tidegate-7.8.9.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.4\nName: tidegate\nVersion: 7.8.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(version, "PACKAGED", True)
    assert version.version() == "7.8.9"


def test_a_hook_of_another_repository_that_runs_us_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = repository(tmp_path / "ours"), repository(tmp_path / "other")
    git(root, "tag", "v1.2.0")
    git(other, "tag", "v6.6.6")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert version.version(root) == "1.2.0"


def test_a_tag_with_a_hyphen_names_no_release(tmp_path: Path) -> None:
    root = repository(tmp_path)
    git(root, "tag", "v1.2.0")
    (root / "README.md").write_text("changed")
    commit(root)
    git(root, "tag", "v1.3.0-rc1")
    assert version.version(root) == f"1.2.0.post1+g{git(root, 'rev-parse', '--short=7', 'HEAD')}"
