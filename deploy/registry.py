"""The registry protocol spoken by our own process, on loopback, for as long as a deploy ships an image.

The local engine pushes only layers we have not seen, servers pull only layers they lack, and every blob is checked
against its digest by both sides. OCI Distribution Specification 1.1: blobs, uploads, manifests; nothing else is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_UPLOAD = re.compile(r"^/v2/(?P<name>.+)/blobs/uploads/(?P<id>[0-9a-f]*)$")
_BLOB = re.compile(r"^/v2/(?P<name>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})$")
_MANIFEST = re.compile(r"^/v2/(?P<name>.+)/manifests/(?P<reference>[A-Za-z0-9_.:-]+)$")
CHUNK = 1024 * 1024
ABANDONED = 86400.0


class Blobs:
    """Content-addressed files in a folder; a blob is there only when its digest was checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a blob is or would be."""
        return self.folder / digest.removeprefix("sha256:")

    def new(self) -> tuple[str, Path]:
        """Return the id and the file of a new upload."""
        id = secrets.token_hex(16)
        return id, self.upload(id)

    def upload(self, id: str) -> Path:
        """Return the file of an upload."""
        return self.folder / f"upload-{id}"

    def finish(self, id: str, digest: str) -> bool:
        """Keep an upload as a blob if it is what its digest says."""
        file = self.upload(id)
        with file.open("rb") as content:
            genuine = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}" == digest
        if genuine:
            file.replace(self.path(digest))
            self._checked.add(digest)
        else:
            file.unlink()
        return genuine

    def genuine(self, digest: str) -> bool:
        """Tell whether a blob is there and undamaged, looking once; a damaged one is removed, to be pushed again."""
        path = self.path(digest)
        if digest in self._checked or not path.exists():
            return path.exists()
        with path.open("rb") as content:
            found = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
        if found != digest:
            path.unlink(missing_ok=True)
            return False
        self._checked.add(digest)
        return True

    def prune(self, limit: int) -> None:
        """Remove uploads abandoned a day ago, and the longest unused blobs until `limit` bytes are left."""
        known = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in self.folder.iterdir() if file.is_file())
        for used, _, file in known:
            if file.name.startswith("upload-") and used < time.time() - ABANDONED:
                file.unlink(missing_ok=True)
        blobs = [(size, file) for _, size, file in known if not file.name.startswith("upload-")]
        total = sum(size for size, _ in blobs)
        for size, file in blobs:
            if total > limit:
                total -= size
                file.unlink(missing_ok=True)


class Registry:
    """A registry for one repository under an unguessable name, on a listening loopback socket; a context manager."""

    def __init__(self, blobs: Blobs, token: str, listener: socket.socket) -> None:
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.token = token
        self.sent = 0
        self.takes_writes = False
        self.port = int(listener.getsockname()[1])
        handler = type("Handler", (_Handler,), {"registry": self, "blobs": blobs})
        self._server = _Server(self.port, handler, listener)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def allows(self, name: str) -> bool:
        """Tell whether a repository name carries the token."""
        return secrets.compare_digest(name.partition("/")[0].encode(), self.token.encode())

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Take pushes for as long as the block runs; servers that pull later can change nothing."""
        self.takes_writes = True
        try:
            yield
        finally:
            self.takes_writes = False

    def put(self, name: str, reference: str, kind: str, body: bytes) -> str:
        """Keep a manifest under its tag and its digest; return the digest."""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self._manifests[name, digest] = self._manifests[name, reference] = (kind, body)
        return digest

    def get(self, name: str, reference: str) -> tuple[str, bytes] | None:
        """Return a manifest's media type and bytes."""
        return self._manifests.get((name, reference))

    def digest(self, name: str, reference: str) -> str | None:
        """Return the digest of a manifest that was pushed, None when there is none."""
        found = self.get(name, reference)
        return f"sha256:{hashlib.sha256(found[1]).hexdigest()}" if found else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler], listener: socket.socket) -> None:
        super().__init__(("127.0.0.1", port), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    blobs: Blobs
    protocol_version = "HTTP/1.1"
    # Headers and body are separate writes: without this, Nagle's algorithm holds the body back for 40 ms.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the caller reports progress."""

    def do_HEAD(self) -> None:
        self._read(body=False)

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/v2":
            self._answer(200, b"{}", {"Docker-Distribution-API-Version": "registry/2.0"})
        else:
            self._read(body=True)

    def _read(self, *, body: bool) -> None:
        if (found := _BLOB.match(self.path)) and self.registry.allows(found["name"]):
            self._send_blob(found["digest"], body=body)
        elif (found := _MANIFEST.match(self.path)) and self.registry.allows(found["name"]):
            self._send_manifest(found["name"], found["reference"], body=body)
        else:
            self._answer(404)

    def _send_blob(self, digest: str, *, body: bool) -> None:
        path = self.blobs.path(digest)
        if not self.blobs.genuine(digest):
            return self._answer(404)
        size = path.stat().st_size
        os.utime(path)
        self.send_response(200)
        for key, value in {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if body:
            self.registry.sent += size
            with path.open("rb") as file:
                shutil.copyfileobj(file, self.wfile, CHUNK)

    def _send_manifest(self, name: str, reference: str, *, body: bool) -> None:
        if (found := self.registry.get(name, reference)) is None:
            return self._answer(404)
        kind, content = found
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._answer(200, content, {"Content-Type": kind, "Docker-Content-Digest": digest}, body=body)

    def _may_write(self, name: str) -> bool:
        return self.registry.takes_writes and self.registry.allows(name)

    def do_POST(self) -> None:
        found = _UPLOAD.match(self.path.partition("?")[0])
        if not found or not self._may_write(found["name"]):
            return self._answer(404)
        id, file = self.blobs.new()
        file.touch(mode=0o600)
        self._answer(202, headers={"Location": f"/v2/{found['name']}/blobs/uploads/{id}", "Range": "0-0"})

    def do_PATCH(self) -> None:
        if (found := self._upload()) is None:
            return self._answer(404)
        self._receive(self.blobs.upload(found["id"]))
        size = self.blobs.upload(found["id"]).stat().st_size
        self._answer(202, headers={"Location": self.path.partition("?")[0], "Range": f"0-{max(0, size - 1)}"})

    def do_PUT(self) -> None:
        if manifest := _MANIFEST.match(self.path):
            return self._keep_manifest(manifest["name"], manifest["reference"])
        digest = re.search(r"[?&]digest=(sha256(?::|%3A)[0-9a-f]{64})", self.path)
        if (found := self._upload()) is None or digest is None:
            return self._answer(404)
        self._receive(self.blobs.upload(found["id"]))
        wanted = digest[1].replace("%3A", ":")
        if not self.blobs.finish(found["id"], wanted):
            return self._answer(400, json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode())
        self._answer(201, headers={"Location": f"/v2/{found['name']}/blobs/{wanted}", "Docker-Content-Digest": wanted})

    def _keep_manifest(self, name: str, reference: str) -> None:
        if not self._may_write(name):
            return self._answer(404)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        digest = self.registry.put(name, reference, self.headers.get("Content-Type", ""), body)
        self._answer(201, headers={"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest})

    def _upload(self) -> re.Match[str] | None:
        found = _UPLOAD.match(self.path.partition("?")[0])
        known = found and self._may_write(found["name"]) and self.blobs.upload(found["id"]).exists()
        return found if known else None

    def _receive(self, file: Path) -> None:
        with file.open("ab") as target:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    target.write(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
            else:
                target.write(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None, *, body: bool = True) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        if status >= 400 and self.command not in ("GET", "HEAD"):  # its body was not read and would be taken for a request
            self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self.wfile.write(content)
