"""The registry protocol as an engine speaks it, over real HTTP."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.registry import Blobs, Registry

TOKEN = "5ec0de"
NAME = f"{TOKEN}/tidegate/blog"
LAYER = b"a layer" * 1000
MANIFEST = json.dumps({"schemaVersion": 2}).encode()
KIND = "application/vnd.oci.image.manifest.v1+json"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def registry(blobs: Blobs) -> Iterator[Registry]:
    with socket.create_server(("127.0.0.1", 0)) as listener, Registry(blobs, TOKEN, listener) as running, running.writable():
        yield running


@pytest.fixture
def line(registry: Registry) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=5)
    yield connection
    connection.close()


def ask(
    line: http.client.HTTPConnection, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    line.request(method, path, body, dict(headers or {}), encode_chunked="Transfer-Encoding" in (headers or {}))  # type: ignore[arg-type]
    answer = line.getresponse()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()


def push(line: http.client.HTTPConnection, content: bytes, claimed: str | None = None) -> int:
    """Upload as Docker does: POST, one chunked PATCH, PUT with the digest."""
    status, headers, _ = ask(line, "POST", f"/v2/{NAME}/blobs/uploads/")
    assert status == 202
    chunks = (content[at : at + 1000] for at in range(0, len(content), 1000))
    status, headers, _ = ask(line, "PATCH", headers["location"], chunks, {"Transfer-Encoding": "chunked"})
    assert (status, headers["range"]) == (202, f"0-{len(content) - 1}")
    return ask(line, "PUT", f"{headers['location']}?digest={claimed or digest(content)}")[0]


def test_an_engine_finds_a_registry_there(line: http.client.HTTPConnection) -> None:
    status, headers, _ = ask(line, "GET", "/v2/")
    assert (status, headers["docker-distribution-api-version"]) == (200, "registry/2.0")


def test_what_is_pushed_is_pulled(line: http.client.HTTPConnection, registry: Registry) -> None:
    path = f"/v2/{NAME}/blobs/{digest(LAYER)}"
    assert ask(line, "HEAD", path)[0] == 404
    assert push(line, LAYER) == 201
    status, headers, body = ask(line, "HEAD", path)
    assert (status, headers["content-length"], headers["docker-content-digest"], body) == (
        200,
        str(len(LAYER)),
        digest(LAYER),
        b"",
    )
    assert ask(line, "GET", path)[2] == LAYER
    assert registry.sent == len(LAYER)


def test_a_manifest_is_found_by_its_tag_and_by_its_digest(line: http.client.HTTPConnection) -> None:
    status, headers, _ = ask(line, "PUT", f"/v2/{NAME}/manifests/v1", MANIFEST, {"Content-Type": KIND})
    assert (status, headers["docker-content-digest"]) == (201, digest(MANIFEST))
    for reference in ("v1", digest(MANIFEST)):
        status, headers, body = ask(line, "GET", f"/v2/{NAME}/manifests/{reference}")
        assert (status, headers["content-type"], headers["docker-content-digest"], body) == (
            200,
            KIND,
            digest(MANIFEST),
            MANIFEST,
        )
        assert ask(line, "HEAD", f"/v2/{NAME}/manifests/{reference}")[0] == 200
    assert ask(line, "GET", f"/v2/{NAME}/manifests/v2")[0] == 404


def test_a_whole_blob_in_the_put_and_an_escaped_digest_are_fine(line: http.client.HTTPConnection, blobs: Blobs) -> None:
    location = ask(line, "POST", f"/v2/{NAME}/blobs/uploads/?mount=sha256:0&from=other")[1]["location"]
    assert ask(line, "PUT", f"{location}?digest={digest(LAYER).replace(':', '%3A')}", LAYER)[0] == 201
    assert blobs.path(digest(LAYER)).read_bytes() == LAYER


def test_a_blob_that_is_not_what_its_digest_says_is_refused_and_forgotten(line: http.client.HTTPConnection, blobs: Blobs) -> None:
    assert push(line, LAYER, claimed=digest(b"another")) == 400
    assert list(blobs.folder.iterdir()) == []
    assert push(line, LAYER) == 201


def test_the_empty_blob_is_a_blob(line: http.client.HTTPConnection) -> None:
    location = ask(line, "POST", f"/v2/{NAME}/blobs/uploads/")[1]["location"]
    assert ask(line, "PUT", f"{location}?digest={digest(b'')}", b"")[0] == 201
    assert ask(line, "GET", f"/v2/{NAME}/blobs/{digest(b'')}")[2] == b""


@pytest.mark.parametrize(
    "name", ["tidegate/blog", "wrong/tidegate/blog", f"x/{TOKEN}/blog", f"{TOKEN}x/blog", "%35ec0de/blog", "é/blog"]
)
def test_without_the_token_there_is_nothing(line: http.client.HTTPConnection, registry: Registry, name: str) -> None:
    assert push(line, LAYER) == 201
    registry.put(NAME, "v1", KIND, MANIFEST)
    prefix = f"/v2/{name}".encode("latin-1").decode("latin-1")
    asked = [("GET", f"blobs/{digest(LAYER)}"), ("HEAD", f"blobs/{digest(LAYER)}"), ("GET", "manifests/v1"), ("POST", "blobs/uploads/"),
             ("PUT", "manifests/v1"), ("PATCH", "blobs/uploads/00"), ("PUT", f"blobs/uploads/00?digest={digest(LAYER)}")]  # fmt: skip
    for method, path in asked:
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=5)
        connection._encode_request = lambda request: request.encode("latin-1")  # type: ignore[attr-defined]
        assert ask(connection, method, f"{prefix}/{path}", b"{}")[0] == 404
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/{NAME}/blobs/sha256:../../etc/passwd",
        f"/v2/{NAME}/blobs/../../../../etc/passwd",
        f"/v2/{NAME}/blobs/sha256:{'0' * 63}/",
        f"/v2/{NAME}/blobs/uploads/..%2f..%2fetc",
        f"/v2/{NAME}/blobs/uploads/../{'0' * 64}",
        f"/v2/{NAME}/manifests/../../registry.json",
        f"/v2/{TOKEN}/../{TOKEN}/manifests/%2e%2e",
        "/etc/passwd",
        "//etc/passwd",
        f"/v2/{NAME}/blobs/sha512:{'0' * 128}",
    ],
)
def test_no_path_leads_out_of_the_folder(registry: Registry, blobs: Blobs, tmp_path: Path, path: str) -> None:
    (tmp_path / "registry.json").write_text("secret")
    before = sorted(tmp_path.rglob("*"))
    for method in ("GET", "HEAD", "PUT", "PATCH", "POST"):
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=5)
        status, _, body = ask(connection, method, path, b"x" if method not in ("GET", "HEAD") else None)
        assert status == 404
        assert b"secret" not in body
        connection.close()
    assert sorted(tmp_path.rglob("*")) == before


def test_an_upload_that_was_never_begun_is_not_found(line: http.client.HTTPConnection) -> None:
    for id in ("", "0" * 32):
        assert ask(line, "PATCH", f"/v2/{NAME}/blobs/uploads/{id}")[0] == 404
        assert ask(line, "PUT", f"/v2/{NAME}/blobs/uploads/{id}?digest={digest(LAYER)}")[0] == 404


def test_an_upload_broken_off_leaves_no_blob(registry: Registry, line: http.client.HTTPConnection, blobs: Blobs) -> None:
    location = ask(line, "POST", f"/v2/{NAME}/blobs/uploads/")[1]["location"]
    with socket.create_connection(("127.0.0.1", registry.port)) as raw:
        raw.sendall(
            f"PUT {location}?digest={digest(LAYER)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LAYER)}\r\n\r\n".encode()
            + LAYER[:10]
        )
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert not blobs.path(digest(LAYER)).exists()


def test_many_requests_share_a_connection(line: http.client.HTTPConnection) -> None:
    assert push(line, LAYER) == 201
    socket_before = line.sock
    for _ in range(20):
        assert ask(line, "HEAD", f"/v2/{NAME}/blobs/{digest(b'missing')}")[0] == 404
        assert ask(line, "GET", f"/v2/{NAME}/blobs/{digest(LAYER)}")[0] == 200
    assert line.sock is socket_before


def test_the_body_of_a_refused_request_is_not_taken_for_the_next_one(registry: Registry) -> None:
    registry.put(NAME, "v1", KIND, MANIFEST)
    hidden = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", registry.port)) as raw:
        raw.sendall(b"PATCH /v2/wrong/blobs/uploads/00 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden)
        with raw.makefile("rb") as answers:
            assert answers.read().count(b"HTTP/1.1") == 1


def test_only_this_machine_is_served(registry: Registry) -> None:
    assert registry._server.socket.getsockname()[0] == "127.0.0.1"


def test_the_cache_drops_what_was_unused_longest_and_abandoned_uploads(blobs: Blobs) -> None:
    for age, content in ((300, b"a" * 100), (200, b"b" * 100), (100, b"c" * 100)):
        path = blobs.path(digest(content))
        path.write_bytes(content)
        os.utime(path, (1e9 - age, 1e9 - age))
    id, upload = blobs.new()
    upload.write_bytes(b"half")
    blobs.prune(250)
    assert {path.read_bytes()[:1] for path in blobs.folder.iterdir()} == {b"b", b"c", b"h"}
    yesterday = time.time() - 90_000
    os.utime(upload, (yesterday, yesterday))
    blobs.prune(0)
    assert list(blobs.folder.iterdir()) == []
    assert id


def test_a_damaged_blob_is_not_served_and_can_be_pushed_again(line: http.client.HTTPConnection, blobs: Blobs) -> None:
    blobs.path(digest(LAYER)).write_bytes(b"damaged, by a power cut in an earlier deploy")
    assert ask(line, "HEAD", f"/v2/{NAME}/blobs/{digest(LAYER)}")[0] == 404
    assert push(line, LAYER) == 201
    assert ask(line, "HEAD", f"/v2/{NAME}/blobs/{digest(LAYER)}")[0] == 200


def test_nobody_can_push_once_our_own_push_is_over(registry: Registry, line: http.client.HTTPConnection) -> None:
    registry.takes_writes = False
    assert ask(line, "POST", f"/v2/{NAME}/blobs/uploads/")[0] == 404
    assert ask(line, "PUT", f"/v2/{NAME}/manifests/v1")[0] == 404


def test_a_blob_that_is_read_counts_as_used(line: http.client.HTTPConnection, blobs: Blobs) -> None:
    assert push(line, LAYER) == 201
    os.utime(blobs.path(digest(LAYER)), (0, 0))
    ask(line, "HEAD", f"/v2/{NAME}/blobs/{digest(LAYER)}")
    assert blobs.path(digest(LAYER)).stat().st_mtime > 1e9


def test_blobs_are_for_us_alone(line: http.client.HTTPConnection, blobs: Blobs) -> None:
    assert blobs.folder.stat().st_mode & 0o777 == 0o700
