"""Images made in memory: layers of files, a configuration, and an engine that hands them out."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, cast

from deploy.images.layers import Image, Layer

LINK = object()


def tar(files: Mapping[str, object]) -> bytes:
    """Return a layer: names to contents; None is a folder, LINK a link."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as members:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                members.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = (tarfile.SYMTYPE, "elsewhere") if content is LINK else (tarfile.DIRTYPE, "")
                members.addfile(member)
    return made.getvalue()


def digest(data: bytes) -> str:
    """Return a digest as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration(*layers: bytes, made_by: tuple[str, ...] = (), **config: object) -> dict[str, Any]:
    """Return an image's configuration: a step for each layer, and steps without one that begin with `#`."""
    steps = made_by or tuple(f"COPY {number} /" for number, _ in enumerate(layers, 1))
    history = [{"created_by": step.lstrip("#"), "empty_layer": step.startswith("#")} for step in steps]
    return {"created": "2026-01-02T03:04:05.678Z", "config": config, "history": history,
            "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]}}  # fmt: skip


def image(*layers: Mapping[str, object], made_by: tuple[str, ...] = (), **config: object) -> Image:
    """Return an image of layers."""
    tars = [tar(one) for one in layers]
    told = configuration(*tars, made_by=made_by, **config)
    steps = [step for step in made_by if not step.startswith("#")] or [f"COPY {number} /" for number, _ in enumerate(tars, 1)]
    opened = (Layer(digest(one), len(one), made, partial(_open, one)) for one, made in zip(tars, steps, strict=True))
    return Image("tidegate/shop:1.4.0", "sha256:" + "5" * 64, told, tuple(opened))


def _open(data: bytes) -> IO[bytes]:
    return cast("IO[bytes]", io.BytesIO(data))


@dataclass
class Engine:
    """An engine with one image: it pushes it over HTTP as engines do, or cannot reach us, and saves it."""

    layers: tuple[bytes, ...]
    config: dict[str, Any]
    reaches_us: bool = True
    tagged: list[str] = field(default_factory=list)

    def inspect_image(self, name: str) -> dict[str, Any]:
        """Tell of the image."""
        from ops.engine import NotFound

        if not name.startswith("tidegate/shop:"):
            raise NotFound(f"No such image: {name}")
        return {"Id": "sha256:" + "5" * 64}

    def tag(self, image: str, repository: str, version: str) -> None:
        """Give it another name."""
        self.tagged.append(f"{repository}:{version}")

    def remove_image(self, name: str) -> None:
        """Take that away."""
        self.tagged.remove(name)

    def push(self, repository: str, version: str, **_: object) -> Iterator[dict[str, str]]:
        """Upload layers, configuration and manifest."""
        if not self.reaches_us:
            yield {"error": "connection refused"}
            return
        place, path = repository.split("/", 1)
        line = http.client.HTTPConnection(place, timeout=5)
        sizes = [self._upload(line, path, gzip.compress(one, mtime=0)) for one in self.layers]
        about = self._upload(line, path, json.dumps(self.config).encode())
        body = json.dumps({"schemaVersion": 2, "config": about, "layers": sizes}).encode()
        self._ask(line, "PUT", f"/v2/{path}/manifests/{version}", body)
        line.close()
        yield {"status": "pushed"}

    def _upload(self, line: http.client.HTTPConnection, name: str, data: bytes) -> dict[str, Any]:
        there = self._ask(line, "POST", f"/v2/{name}/blobs/uploads/").headers["Location"]
        self._ask(line, "PUT", f"{there}?digest={digest(data)}", data)
        return {"digest": digest(data), "size": len(data)}

    @staticmethod
    def _ask(line: http.client.HTTPConnection, method: str, path: str, body: bytes = b"") -> http.client.HTTPResponse:
        line.request(method, path, body)
        answer = line.getresponse()
        answer.read()
        assert answer.status < 300
        return answer

    def get_image(self, name: str) -> Iterator[bytes]:
        """Save it."""
        files: dict[str, object] = {f"{number}/layer.tar": one for number, one in enumerate(self.layers)}
        listed = [{"Config": "config.json", "Layers": list(files)}]
        files |= {"config.json": json.dumps(self.config).encode(), "manifest.json": json.dumps(listed).encode()}
        whole = tar(files)
        yield from (whole[:100], whole[100:])
