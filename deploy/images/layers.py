"""An image as it travels: its configuration and its layers, read where they are, never unpacked to disk."""

from __future__ import annotations

import gzip
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from deploy.registry import CHUNK
from deploy.session import cache_folder, reserve
from deploy.ship import Shipper
from ops.errors import Failed, Refused

if TYPE_CHECKING:
    from docker import APIClient

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Layer:
    """One layer: what made it, its bytes as they travel, and how to read it."""

    digest: str
    size: int
    instruction: str
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Image:
    """An image; `exact` tells whether the sizes are those that travel, and not what we reckon they would be."""

    name: str
    id: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    exact: bool = True

    @property
    def compressed(self) -> int:
        """Return the bytes that travel to a server with nothing: each distinct layer once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


@contextmanager
def opened_image(name: str, root: Path, engine: APIClient) -> Iterator[Image]:
    """Lend an image of this engine: through our registry, as a deploy would ship it, else as the engine saves it.

    Layers that our registry has received are kept in a project's cache: the next deploy need not push them. Raises Refused.
    """
    name = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    if "@" in name:
        raise Refused(f"{name} is named by its digest", fix="give it a tag (docker tag), and name that")
    id = image_id(engine, name)
    state = cache_folder(root)
    door = reserve(state)
    with door.listener, Shipper(door, state, lambda: engine) as shipper:
        if offer := shipper.offer(name):
            known = shipper.registry.get(offer.path, offer.digest)
            assert known, "it was just pushed"
            yield pushed(name, id, known[1], shipper.blobs.path, partial(shipper.registry.get, offer.path))
        else:
            with tempfile.TemporaryFile() as file:
                file.writelines(engine.get_image(name))
                file.seek(0)
                yield saved(name, id, file)


def image_id(engine: APIClient, name: str) -> str:
    """Return the id of an image of this engine. Raises Refused."""
    from ops.engine import NotFound

    try:
        return str(engine.inspect_image(name)["Id"])
    except NotFound:
        raise Refused(f"there is no image {name} here", fix="inv docker.build, or docker pull it") from None


def pushed(
    name: str, id: str, manifest: bytes, blob: Callable[[str], Path], get: Callable[[str], tuple[str, bytes] | None]
) -> Image:
    """Return an image that was pushed to our registry; of several platforms the one that is no attestation."""
    found = json.loads(manifest)
    if "manifests" in found:
        real = (one["digest"] for one in found["manifests"] if one.get("platform", {}).get("os") != "unknown")
        inner = next(filter(None, map(get, real)), None)
        if inner is None:
            raise Failed(f"{name} was pushed without an image in it", fix="build it again")
        found = json.loads(inner[1])
    config = json.loads(blob(found["config"]["digest"]).read_bytes())
    made = instructions(config)
    layers = (
        Layer(one["digest"], one["size"], made.get(nth, ""), partial(open_layer, blob(one["digest"])))
        for nth, one in enumerate(found["layers"])
    )
    return Image(name, id, config, tuple(layers))


def saved(name: str, id: str, file: IO[bytes]) -> Image:
    """Return an image out of what `docker save` wrote; its layers travel compressed, so what that makes of them is reckoned."""
    members = tarfile.open(fileobj=file)  # noqa: SIM115  # it is as open as the file that was given

    def read(path: str) -> bytes:
        return _member(members, path).read()

    listed = json.loads(read("manifest.json"))[0]
    config = json.loads(read(listed["Config"]))
    made = instructions(config)
    layers = (
        Layer(digest, _deflated(_member(members, path)), made.get(nth, ""), partial(_member, members, path))
        for nth, (path, digest) in enumerate(zip(listed["Layers"], config["rootfs"]["diff_ids"], strict=True))
    )
    return Image(name, id, config, tuple(layers), exact=False)


def instructions(config: Mapping[str, Any]) -> dict[int, str]:
    """Return what made each layer, by its number, out of an image's history."""
    history: Sequence[Mapping[str, Any]] = config.get("history") or ()
    return dict(enumerate(instruction(one) for one in history if not one.get("empty_layer")))


def instruction(entry: Mapping[str, Any]) -> str:
    """Return a step of an image's history as a person would write it."""
    said = " ".join(str(entry.get("created_by") or entry.get("comment") or "").split())
    said = said.removesuffix("# buildkit").rstrip().replace("/bin/sh -c #(nop) ", "").removeprefix("/bin/sh -c ")
    said = said.replace("/bin/sh -c ", "", 1) if said.startswith("RUN ") else said
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in said)


def open_layer(path: Path) -> IO[bytes]:
    """Open a layer's tar, compressed or not. Raises Failed when it is neither that nor gzip."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.open(path))
    if len(head) == 512 and head[257:262] not in (b"ustar", bytes(5)):
        raise Failed("a layer is compressed in a way that is not read here", where=path.name, fix="push it with gzip")
    return path.open("rb")


def _member(members: tarfile.TarFile, path: str) -> IO[bytes]:
    found = members.extractfile(path)
    assert found, "what a manifest names is a file"
    return cast("IO[bytes]", gzip.GzipFile(fileobj=found)) if _is_gzip(found) else found


def _is_gzip(file: IO[bytes]) -> bool:
    head = file.read(len(_GZIP))
    file.seek(0)
    return head == _GZIP


def _deflated(file: IO[bytes]) -> int:
    press = zlib.compressobj(level=5)
    return sum(len(press.compress(part)) for part in _parts(file)) + len(press.flush())


def _parts(file: IO[bytes]) -> Iterable[bytes]:
    return iter(partial(file.read, CHUNK), b"")
