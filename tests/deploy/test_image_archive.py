"""What one job built is what another loads, or it is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import pytest

from deploy.image_archive import ABOUT, IMAGE, Archived, load, read, run_of, save, tell_job
from deploy.model import ImageRef
from ops.config import App
from ops.engine import NotFound
from ops.errors import Failed, Refused
from ops.names import LABEL_CONTENT

if TYPE_CHECKING:
    from docker import APIClient

APPS = [App(name="shop", port=3000)]
REF = ImageRef("tidegate/shop:1.4.0", "1.4.0", "f00d", 7)
RUN = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/shop", "GITHUB_RUN_ID": "42"}


class Engine:
    """An engine that takes the first name and the content that an archive's manifest has."""

    def __init__(self, **images: str) -> None:
        self.images = images

    def get_image(self, name: str, chunk_size: int) -> Iterator[bytes]:
        data = archive([name], self.images[name])
        yield from (data[:5], data[5:])

    def load_image(self, file: IO[bytes]) -> Iterator[dict[str, str]]:
        with tarfile.open(fileobj=file) as tar:
            ((told),) = json.load(cast("IO[bytes]", tar.extractfile("manifest.json")))
        if told["Config"] == "broken":
            yield {"errorDetail": "…", "error": "invalid tar header"}
            return
        self.images[told["RepoTags"][0] if told["RepoTags"] else ""] = told["Config"]
        yield {"stream": "Loaded"}

    def inspect_image(self, name: str) -> dict[str, object]:
        if name not in self.images:
            raise NotFound("No such image")
        return {"Config": {"Labels": {LABEL_CONTENT: self.images[name]} if self.images[name] else None}}


def archive(names: list[str], content: str, **more: object) -> bytes:
    """Return an archive with a manifest, and other files beside it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, told in {"manifest.json": [{"Config": content, "RepoTags": names}], **more}.items():
            file = tarfile.TarInfo(name)
            text = json.dumps(told).encode()
            file.size = len(text)
            tar.addfile(file, io.BytesIO(text))
    return data.getvalue()


def engine(**images: str) -> APIClient:
    return cast("APIClient", Engine(**images))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(REF, tmp_path / "image", engine(**{REF.name: "f00d"}), "https://github.com/me/shop/actions/runs/42")
    return tmp_path / "image"


def test_what_was_saved_is_loaded_with_the_run_that_built_it(folder: Path) -> None:
    other = Engine()
    assert load(folder, cast("APIClient", other), APPS) == Archived(
        "tidegate/shop:1.4.0", "1.4.0", "f00d", "https://github.com/me/shop/actions/runs/42"
    )
    assert other.images == {REF.name: "f00d"}


def test_an_image_of_other_content_is_refused(folder: Path) -> None:
    (folder / IMAGE).write_bytes(archive([REF.name], "beef"))
    with pytest.raises(Refused, match="was not built from what"):
        load(folder, engine(), APPS)


def test_an_image_without_labels_is_refused(folder: Path) -> None:
    (folder / IMAGE).write_bytes(archive([REF.name], ""))
    with pytest.raises(Refused, match="was not built from what"):
        load(folder, engine(), APPS)


def test_an_archive_that_names_nothing_fails(folder: Path) -> None:
    (folder / IMAGE).write_bytes(archive([], "f00d"))
    with pytest.raises(Failed, match=r"holds no tidegate/shop:1\.4\.0"):
        load(folder, engine(), APPS)


def test_an_archive_without_its_image_is_refused(folder: Path) -> None:
    (folder / IMAGE).unlink()
    with pytest.raises(Refused, match=r"there is no image\.tar"):
        load(folder, engine(), APPS)


def test_an_archive_that_the_engine_does_not_take_fails_with_its_words(folder: Path) -> None:
    (folder / IMAGE).write_bytes(archive([REF.name], "broken"))
    with pytest.raises(Failed, match="does not take the archive") as caught:
        load(folder, engine(**{REF.name: "f00d"}), APPS)
    assert caught.value.why == "invalid tar header"


FULL = {"io.containerd.image.name": "docker.io/library/nginx:1"}
MORE = [archive(["nginx:1"], "f00d"), archive([REF.name, "nginx:1"], "f00d"),
        archive([REF.name], "f00d", **{"./index.json": {"manifests": [{}, {"annotations": FULL}]}}),
        archive([REF.name], "f00d", repositories={"nginx": {"1": "f00d"}})]  # fmt: skip


@pytest.mark.parametrize("data", MORE)
def test_an_archive_that_would_name_anything_else_is_refused_before_the_engine_sees_it(data: bytes, folder: Path) -> None:
    (folder / IMAGE).write_bytes(data)
    other = Engine()
    with pytest.raises(Refused, match="holds more than tidegate/shop") as caught:
        load(folder, cast("APIClient", other), APPS)
    assert "nginx:1" in caught.value.why
    assert other.images == {}


@pytest.mark.parametrize("data", [b"", b"no archive", archive([REF.name], "f00d", **{"index.json": []})])
def test_what_is_no_archive_of_an_image_fails(data: bytes, folder: Path) -> None:
    (folder / IMAGE).write_bytes(data)
    with pytest.raises(Failed, match="no archive of an image"):
        load(folder, engine(), APPS)


def test_an_image_of_another_app_is_refused(folder: Path) -> None:
    with pytest.raises(Refused, match="is no image of this app") as caught:
        load(folder, engine(), [App(name="other", port=3000), App(name="shop", image="registry.example/shop", port=3000)])
    assert caught.value.why == "that is registry.example/shop:1.4.0 or tidegate/other:1.4.0"


def test_a_name_is_the_same_with_its_registry_and_without(tmp_path: Path) -> None:
    full = ImageRef("docker.io/me/shop:1", "1", "f00d", 7)
    save(full, tmp_path, engine(**{full.name: "f00d"}))
    (tmp_path / IMAGE).write_bytes(archive(["me/shop:1"], "f00d"))
    assert (
        load(tmp_path, engine(**{full.name: "f00d"}), [App(name="shop", image="docker.io/me/shop", port=3000)]).name == full.name
    )


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
