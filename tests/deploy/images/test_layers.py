"""An image is read as it travels, or as the engine saves it, and is the same."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from deploy.images.layers import Image, Layer, instruction, open_layer, opened_image, pushed
from ops.errors import Failed, Refused
from tests.deploy.images.made import Engine, configuration, digest, tar

if TYPE_CHECKING:
    from docker import APIClient

FIRST, SECOND = tar({"etc/os-release": b"ID=debian\n"}), tar({"app/main.py": b"print()\n" * 1000})
MADE = ("/bin/sh -c #(nop) ADD file:5 in / ", '#CMD ["bash"]', "RUN /bin/sh -c make # buildkit")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def engine(*, reaches_us: bool = True) -> Engine:
    return Engine((FIRST, SECOND), configuration(FIRST, SECOND, made_by=MADE), reaches_us)


def names(layer: Layer) -> list[str]:
    with layer.open() as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        return members.getnames()


def look(source: Engine, root: Path, name: str = "tidegate/shop:1") -> tuple[Image, list[list[str]]]:
    with opened_image(name, root, cast("APIClient", source)) as found:
        return found, [names(layer) for layer in found.layers]


@pytest.mark.parametrize("reaches_us", [True, False])
def test_layers_come_with_what_made_them(tmp_path: Path, reaches_us: bool) -> None:
    found, seen = look(engine(reaches_us=reaches_us), tmp_path)
    assert seen == [["etc/os-release"], ["app/main.py"]]
    assert [layer.instruction for layer in found.layers] == ["ADD file:5 in /", "RUN make"]
    assert (found.name, found.id, found.exact) == ("tidegate/shop:1", "sha256:" + "5" * 64, reaches_us)


def test_sizes_are_those_that_travel_and_else_reckoned(tmp_path: Path) -> None:
    exact, _ = look(engine(), tmp_path)
    assert [layer.size for layer in exact.layers] == [len(gzip.compress(one, mtime=0)) for one in (FIRST, SECOND)]
    reckoned, _ = look(engine(reaches_us=False), tmp_path)
    assert reckoned.compressed == pytest.approx(exact.compressed, abs=100)


def test_a_layer_that_is_there_twice_travels_once() -> None:
    one = Layer("sha256:a", 100, "", lambda: None)  # type: ignore[arg-type, return-value]
    assert Image("a:1", "", {}, (one, one, Layer("sha256:b", 5, "", one.open))).compressed == 105


def test_what_was_pushed_stays_for_the_next_deploy_and_no_name_is_left(tmp_path: Path, cache: Path) -> None:
    source = engine()
    look(source, tmp_path)
    assert source.tagged == []
    blobs = {path.name for path in (cache / "tidegate").rglob("blobs/*")}
    assert {digest(gzip.compress(one, mtime=0)).removeprefix("sha256:") for one in (FIRST, SECOND)} <= blobs


def test_a_name_without_a_tag_is_the_latest(tmp_path: Path) -> None:
    assert look(engine(), tmp_path, "tidegate/shop")[0].name == "tidegate/shop:latest"


def test_an_image_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no image tidegate/other:1 here"):
        look(engine(), tmp_path, "tidegate/other:1")
    with pytest.raises(Refused, match="by its digest"):
        look(engine(), tmp_path, f"tidegate/shop@sha256:{'0' * 64}")


def test_of_an_index_the_image_is_taken_and_not_its_attestation(tmp_path: Path) -> None:
    config = configuration(FIRST)
    (tmp_path / "config").write_text(json.dumps(config))
    layer = {"digest": "layer", "size": 5}
    real = json.dumps({"config": {"digest": "config"}, "layers": [layer]}).encode()
    index = {
        "manifests": [
            {"digest": "attestation", "platform": {"os": "unknown"}},
            {"digest": "real", "platform": {"os": "linux"}},
        ]
    }
    known = {"attestation": ("", b"no"), "real": ("", real)}
    found = pushed("a:1", "id", json.dumps(index).encode(), tmp_path.joinpath, known.get)
    assert [one.size for one in found.layers] == [5]
    with pytest.raises(Failed, match="without an image"):
        pushed("a:1", "id", json.dumps(index).encode(), tmp_path.joinpath, lambda _: None)


def test_layers_are_read_compressed_or_not_and_else_refused(tmp_path: Path) -> None:
    for name, data in {"plain": FIRST, "gzip": gzip.compress(FIRST), "empty": tar({}), "zstd": b"\x28\xb5\x2f\xfd" * 200}.items():
        (tmp_path / name).write_bytes(data)
    for name in ("plain", "gzip"):
        with open_layer(tmp_path / name) as stream:
            assert stream.read() == FIRST
    with open_layer(tmp_path / "empty") as stream:
        assert stream.read(1) == b"\0"
    with pytest.raises(Failed, match="not read here"):
        open_layer(tmp_path / "zstd")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"created_by": "/bin/sh -c apt-get   update"}, "apt-get update"),
        ({"created_by": "RUN |1 VERSION=1 /bin/sh -c make # buildkit"}, "RUN |1 VERSION=1 make"),
        ({"comment": "Imported from -"}, "Imported from -"),
        ({"created_by": "RUN echo \x1b[2J"}, "RUN echo \N{REPLACEMENT CHARACTER}[2J"),
        ({}, ""),
    ],
)
def test_steps_are_told_as_people_wrote_them(said: dict[str, str], shown: str) -> None:
    assert instruction(said) == shown
