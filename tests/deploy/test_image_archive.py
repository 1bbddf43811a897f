"""What one job built is what another loads, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import pytest

from deploy.image_archive import ABOUT, IMAGE, Archived, load, read, run_of, save, tell_job
from deploy.model import ImageRef
from ops.engine import NotFound
from ops.errors import Failed, Refused
from ops.names import LABEL_CONTENT

if TYPE_CHECKING:
    from docker import APIClient

REF = ImageRef("tidegate/shop:1.4.0", "1.4.0", "f00d", 7)
RUN = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/shop", "GITHUB_RUN_ID": "42"}


class Engine:
    """An engine whose archives are `name content`."""

    def __init__(self, **images: str) -> None:
        self.images = images

    def get_image(self, name: str, chunk_size: int) -> Iterator[bytes]:
        text = f"{name} {self.images[name]}".encode()
        yield from (text[:5], text[5:])

    def load_image(self, file: IO[bytes]) -> Iterator[dict[str, str]]:
        name, _, content = file.read().decode().partition(" ")
        if name == "broken":
            yield {"errorDetail": "…", "error": "invalid tar header"}
            return
        self.images[name] = content
        yield {"stream": "Loaded"}

    def inspect_image(self, name: str) -> dict[str, object]:
        if name not in self.images:
            raise NotFound("No such image")
        return {"Config": {"Labels": {LABEL_CONTENT: self.images[name]} if self.images[name] else None}}


def engine(**images: str) -> APIClient:
    return cast("APIClient", Engine(**images))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(REF, tmp_path / "image", engine(**{REF.name: "f00d"}), "https://github.com/me/shop/actions/runs/42")
    return tmp_path / "image"


def test_what_was_saved_is_loaded_with_the_run_that_built_it(folder: Path) -> None:
    other = Engine()
    assert load(folder, cast("APIClient", other)) == Archived(
        "tidegate/shop:1.4.0", "1.4.0", "f00d", "https://github.com/me/shop/actions/runs/42"
    )
    assert other.images == {REF.name: "f00d"}


def test_an_image_of_other_content_is_refused(folder: Path) -> None:
    (folder / IMAGE).write_bytes(f"{REF.name} beef".encode())
    with pytest.raises(Refused, match="was not built from what"):
        load(folder, engine())


def test_an_image_without_labels_is_refused(folder: Path) -> None:
    (folder / IMAGE).write_bytes(f"{REF.name} ".encode())
    with pytest.raises(Refused, match="was not built from what"):
        load(folder, engine())


def test_an_archive_of_another_name_fails(folder: Path) -> None:
    (folder / IMAGE).write_bytes(b"evil:1 f00d")
    with pytest.raises(Failed, match=r"holds no tidegate/shop:1\.4\.0"):
        load(folder, engine())


def test_an_archive_without_its_image_is_refused(folder: Path) -> None:
    (folder / IMAGE).unlink()
    with pytest.raises(Refused, match=r"there is no image\.tar"):
        load(folder, engine())


def test_an_archive_that_the_engine_does_not_take_fails_with_its_words(folder: Path) -> None:
    (folder / IMAGE).write_bytes(b"broken")
    with pytest.raises(Failed, match="does not take the archive") as caught:
        load(folder, engine(**{REF.name: "f00d"}))
    assert caught.value.why == "invalid tar header"


def test_no_image_at_all_says_which_run_to_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no image") as caught:
        read(tmp_path)
    assert "name the run that built it" in caught.value.fix


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a", "version": "1", "content": 3}',
                                  json.dumps({"name": "a", "version": "1\nx=y", "content": "f"}),
                                  json.dumps({"name": "a", "version": "1", "content": "f", "more": ""})])  # fmt: skip
def test_what_says_nothing_of_an_image_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / ABOUT).write_text(text)
    with pytest.raises(Refused, match="says nothing of an image"):
        read(tmp_path)


def test_the_version_becomes_an_output_of_the_step(tmp_path: Path) -> None:
    file = tmp_path / "output"
    file.write_text("a=b\n")
    tell_job(Archived("n", "1.4.0", "f"), {"GITHUB_OUTPUT": str(file)})
    assert file.read_text() == "a=b\nversion=1.4.0\n"


def test_outside_of_ci_there_is_no_output_and_no_run() -> None:
    tell_job(Archived("n", "1.4.0", "f"), {})
    assert run_of({}) == ""
    assert run_of(RUN) == "https://github.com/me/shop/actions/runs/42"
