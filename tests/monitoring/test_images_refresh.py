"""The digests of the lock file are asked for and written without any server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from monitoring import images
from ops.errors import Refused

NEW = "sha256:" + "fedcba9876543210" * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(images.LOCK, tmp_path / "images.toml"))


def test_what_the_registries_have_is_written_and_named(file: Path) -> None:
    known = {one.name: one.digest for one in images.load(file).values()}
    assert images.refresh((known | {images.load(file)["loki"].name: NEW}).__getitem__, file) == ["loki"]
    assert images.load(file)["loki"].digest == NEW


def test_where_nothing_has_changed_nothing_is_written(file: Path) -> None:
    known = {one.name: one.digest for one in images.load(file).values()}
    before = file.stat()
    assert images.refresh(known.__getitem__, file) == []
    assert file.stat().st_ino == before.st_ino


def test_when_one_registry_does_not_answer_nothing_is_written(file: Path) -> None:
    def ask(name: str) -> str:
        if "loki" in name:
            raise Refused(f"the registry does not tell what {name} is")
        return NEW

    with pytest.raises(Refused):
        images.refresh(ask, file)
    assert file.read_text() == images.LOCK.read_text()
