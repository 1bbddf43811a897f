"""The load and the prober count exactly what a user would have seen."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.agent.load import Load, Report, Sample

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[[socket.socket, int], bytes]  # the bytes to answer the n-th request on a connection with


class Server:
    """An HTTP server that answers as a test says: empty bytes close the connection."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answer, self.tls = answer, tls
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        self.connections = 0
        self.requests: list[bytes] = []

    def serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.hear, args=(peer,), daemon=True).start()

    def hear(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):  # the client may be gone: that is what some tests are about
            self.talk(peer)

    def talk(self, peer: socket.socket) -> None:
        peer = self.tls.wrap_socket(peer, server_side=True) if self.tls else peer
        with peer:
            count = 0
            while request := read_request(peer):
                self.requests.append(request)
                answer = self.answer(peer, count)
                count += 1
                if peer.fileno() < 0 or not answer:
                    return
                peer.sendall(answer)
                if b"connection: close" in answer.lower() or b"Connection: close" in request:
                    return


def read_request(peer: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = peer.recv(65536)
        if not part:
            return b""
        data += part
    length = re.search(rb"Content-Length: (\d+)", data)
    body = data.partition(b"\r\n\r\n")[2]
    while length and len(body) < int(length[1]):
        more = peer.recv(65536)
        body, data = body + more, data + more
    return data


@contextlib.contextmanager
def serving(answer: Answer | bytes, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server((lambda _peer, _count: answer) if isinstance(answer, bytes) else answer, tls)
    threading.Thread(target=server.serve, daemon=True).start()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "waited 10 s in vain"
        time.sleep(0.002)


def loaded(server: Server, requests: int = 20, **options: object) -> Report:
    load = Load(server.address, "blog.test", **{"interval": 0.003, "timeout": 2.0, **options})  # type: ignore[arg-type]
    load.start()
    until(lambda: load.snapshot().requests >= requests)
    return load.stop()


def slam(peer: socket.socket) -> bytes:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    return b""


GOOD = {
    "content length": OK,
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
    "until close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
    "interim answer": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
    "empty reason": b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    "large": b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300000,
}


@pytest.mark.parametrize("answer", GOOD.values(), ids=GOOD)
def test_a_whole_answer_in_every_form_is_no_failure(answer: bytes) -> None:
    with serving(answer) as server:
        report = loaded(server)
    assert report.failures == 0, report.examples
    assert report.requests == sum(report.statuses.values()) >= 20


BAD = {
    "short body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nok", "short"),
    "short chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nok", "short"),
    "no last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n",
        "short",
    ),
    "half a head": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", "short"),
    "no answer": (b"", "closed"),
    "an error": (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad", "status 502"),
    "a redirect": (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "status 302"),
    "another protocol": (b"SSH-2.0-OpenSSH_10.0\r\n\r\n", "malformed"),
    "a bad status": (b"HTTP/1.1 2xx OK\r\n\r\n", "malformed"),
    "a bad length": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", "malformed"),
    "a bad chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nok\r\n0\r\n\r\n", "malformed"),
    "a chunk too long": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n", "malformed"),
    "more than promised": (OK + b"!", "malformed"),
    "an endless head": (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200000, "malformed"),
}


@pytest.mark.parametrize(("answer", "kind"), BAD.values(), ids=BAD)
def test_anything_but_a_whole_2xx_answer_is_a_failure_of_its_kind(answer: bytes, kind: str) -> None:
    with serving(answer) as server:
        report = loaded(server, 10)
    assert report.failures == report.requests == report.reasons[kind], report.reasons
    assert "connection, due at 0." in report.examples[kind]


def test_a_reset_connection_is_a_failure() -> None:
    with serving(lambda peer, _count: slam(peer)) as server:
        report = loaded(server, 10)
    assert report.reasons == {"reset": report.requests}


def test_a_refused_connection_is_a_failure() -> None:
    with serving(OK) as server:
        pass
    report = loaded(server, 10)
    assert report.reasons == {"refused": report.requests}
    assert report.statuses == {}


def test_a_silent_server_is_a_timeout_and_delays_no_other_request() -> None:
    silence = threading.Event()
    with serving(lambda _peer, _count: OK if silence.wait(5) else b"") as server:
        load = Load(server.address, "blog.test", interval=0.01, timeout=0.3)
        load.start()
        until(lambda: load.snapshot().failures >= 30)
        silence.set()
        report = load.stop()
    assert report.reasons["timeout"] >= 30
    assert len(server.requests) >= 55  # all those due in 0.6 s were sent, though none was answered
    assert report.lag < 0.3


def test_a_trickling_answer_times_out_as_a_whole() -> None:
    def trickle(peer: socket.socket, _count: int) -> bytes:
        for byte in OK[:-1]:
            peer.sendall(bytes([byte]))
            time.sleep(0.02)
        return b""

    with serving(trickle) as server:
        report = loaded(server, 5, interval=0.05, timeout=0.2)
    assert report.failures == report.reasons["timeout"] == report.requests


def test_connection_close_on_a_kept_connection_is_no_failure() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with serving(lambda _peer, count: closing if count == 2 else OK) as server:
        report = loaded(server, 100, fresh=0.0)
    assert report.failures == 0, report.examples
    assert 100 / 3 <= server.connections < report.requests  # replaced after three answers, kept until then


def test_a_kept_connection_closed_between_requests_is_replaced_without_a_failure() -> None:
    def answer_and_close(peer: socket.socket, _count: int) -> bytes:
        peer.sendall(OK, socket.MSG_MORE)  # the end travels with the answer: it is there before the next request
        peer.shutdown(socket.SHUT_WR)
        return b""

    with serving(answer_and_close) as server:
        report = loaded(server, 30, interval=0.02, lanes=2, fresh=0.0)
    assert report.failures == 0, report.examples
    assert server.connections == report.requests


def test_a_kept_connection_closed_under_a_sent_request_is_a_failure() -> None:
    with serving(lambda _peer, count: OK if count < 3 else b"") as server:
        report = loaded(server, 40, interval=0.01, lanes=1, fresh=0.0)
    assert report.reasons == {"closed": report.failures}
    assert 5 <= report.failures <= report.requests / 3  # the fourth request on each connection
    assert "kept connection" in report.examples["closed"]


def test_kept_and_fresh_connections_and_posts_are_mixed() -> None:
    samples: list[Sample] = []
    with serving(OK) as server:
        report = loaded(server, 100, post=lambda n: (f"/posts?n={n}", b'{"n":%d}' % n), every=5, on_answer=samples.append)
    assert report.failures == 0, report.examples
    posts = [sample for sample in samples if sample.post >= 0]
    assert sorted(sample.post for sample in posts) == list(range(len(posts)))
    assert {sample.fresh for sample in posts} == {True, False}
    assert abs(sum(sample.fresh for sample in samples) - len(samples) / 2) <= 1
    assert sum(sample.fresh for sample in samples) + 4 <= server.connections < len(samples)
    sent = [request for request in server.requests if request.startswith(b"POST /posts?n=7 HTTP/1.1\r\n")]
    assert [request.partition(b"\r\n\r\n")[2] for request in sent] == [b'{"n":7}']


def test_a_sample_shows_who_answered() -> None:
    samples: list[Sample] = []
    with serving(b"HTTP/1.1 201 Created\r\nX-Release: v2\r\nContent-Length: 600\r\n\r\n" + b"y" * 600) as server:
        loaded(server, 4, on_answer=samples.append)
    assert all(sample.status == 201 and not sample.failure for sample in samples)
    assert b"X-Release: v2" in samples[0].head
    assert samples[0].body == b"y" * 512


def test_latency_counts_from_the_due_time_while_the_server_pauses() -> None:
    going = threading.Event()
    going.set()
    samples: list[Sample] = []
    with serving(lambda _peer, _count: OK if going.wait(5) else b"") as server:
        load = Load(server.address, "blog.test", interval=0.01, on_answer=samples.append)
        load.start()
        until(lambda: len(samples) >= 20)
        going.clear()
        time.sleep(0.5)  # the pause itself
        going.set()
        sent = len(samples)
        until(lambda: len(samples) >= sent + 70)
        report = load.stop()
    assert report.failures == 0, report.examples
    paused = [sample.latency for sample in samples if sample.latency > 0.05]
    assert len(paused) >= 35  # the 50 due in the pause, not just one for each connection
    assert 0.4 < report.slowest < 1.5
    assert 0.3 < report.p99 <= report.slowest
    assert report.p50 < report.p99 / 2
    dues = sorted(sample.at for sample in samples)
    assert all(abs(due - nth * 0.01) < 1e-6 for nth, due in enumerate(dues))


def test_a_mark_separates_what_failed_before_from_what_fails_after() -> None:
    broken = threading.Event()
    bad = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    with serving(lambda _peer, _count: bad if broken.is_set() else OK) as server:
        load = Load(server.address, "blog.test", interval=0.005)
        load.start()
        until(lambda: load.snapshot().requests >= 20)
        broken.set()
        until(lambda: load.snapshot().failures >= 5)
        broken.clear()
        answered = load.snapshot().requests
        until(lambda: load.snapshot().requests >= answered + 10)
        before = load.snapshot()
        load.mark()
        until(lambda: load.snapshot().requests_since_mark >= 20)
        clean = load.snapshot()
        broken.set()
        until(lambda: load.snapshot().failures_since_mark >= 5)
        report = load.stop()
    assert before.failures_since_mark == before.failures >= 5
    assert clean.failures_since_mark == 0
    assert clean.failures == before.failures
    assert report.failures == before.failures + report.failures_since_mark
    assert before.first_failure == clean.first_failure == report.first_failure
    assert before.last_failure
    assert report.last_failure
    assert 0.05 < (report.first_failure or 0) <= before.last_failure < report.last_failure < report.seconds


def test_a_report_survives_json() -> None:
    with serving(b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno") as server:
        report = loaded(server, 5)
    assert Report(**json.loads(json.dumps(report.to_dict()))) == report
    assert report.examples["status 500"].endswith("b'no'")


def test_memory_stays_bounded_however_long_it_runs() -> None:
    load = Load(("127.0.0.1", 9), "blog.test", interval=1.0)
    for nth in range(60_000):
        latency = 0.0001 * 1.0003 ** (nth % 40_000)
        load._record(Sample(nth, -1, False, nth * 0.05, latency, 200, "" if nth % 3 else "reset", "x", b"", b""))
    assert len(load.buckets) < 800
    assert len(json.dumps(load.snapshot().to_dict())) < 1000


def test_percentiles_are_exact_to_two_percent() -> None:
    load = Load(("127.0.0.1", 9), "blog.test", interval=1.0)
    for nth in range(10_000):
        load._record(Sample(nth, -1, False, 0.0, (nth + 1) / 10_000, 200, "", "", b"", b""))
    report = load.snapshot()
    assert report.p50 == pytest.approx(0.5, rel=0.02)
    assert report.p99 == pytest.approx(0.99, rel=0.02)
    assert report.slowest == 1.0


@pytest.mark.parametrize("path", ["/a b", "/\r\nHost: evil", "/é", "/\x00"])
def test_a_path_that_would_change_the_request_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a host and a path"):
        Load(("127.0.0.1", 9), "blog.test", path, interval=1.0)


def test_what_a_callback_raises_is_raised_by_stop() -> None:
    def careless(_sample: Sample) -> None:
        raise RuntimeError("a bug in the test")

    with serving(OK) as server:
        load = Load(server.address, "blog.test", interval=0.005, on_answer=careless)
        load.start()
        assert load.stopped.wait(5)
        with pytest.raises(RuntimeError, match="a bug in the test"):
            load.stop()


def test_stop_waits_for_the_open_answers() -> None:
    asked, going = threading.Event(), threading.Event()

    def held(_peer: socket.socket, _count: int) -> bytes:
        asked.set()
        return OK if going.wait(5) else b""

    with serving(held) as server:
        load = Load(server.address, "blog.test", interval=0.05)
        load.start()
        assert asked.wait(5)
        threading.Timer(0.2, going.set).start()
        report = load.stop()
    assert report.requests == len(server.requests)
    assert report.failures == 0


def test_the_due_times_are_kept_at_160_requests_a_second() -> None:
    with serving(OK) as server:
        report = loaded(server, 160, interval=1 / 160)
    assert report.failures == 0, report.examples
    assert report.requests / report.seconds == pytest.approx(160, rel=0.05)


def test_tls_is_spoken_when_a_context_is_given(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=blog.test", "-addext", "subjectAltName=DNS:blog.test"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command = ["openssl", "req", "-x509", "-nodes", *curve, *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    with serving(OK, ours) as server:
        trusted = loaded(server, 20, tls=ssl.create_default_context(cafile=str(certificate)), interval=0.02)
        unknown = loaded(server, 5, tls=ssl.create_default_context(), interval=0.02)
    assert trusted.failures == 0, trusted.examples
    assert unknown.reasons == {"SSLCertVerificationError": unknown.requests}
