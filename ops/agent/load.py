"""HTTP requests at a constant rate, counted as users see them. Standard library only: it also runs on servers."""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

KEPT, MOST, STEP = 512, 256, math.log(1.02)  # bytes kept of a body, threads, width of a histogram bucket
KINDS = {
    BrokenPipeError: "reset",
    ConnectionAbortedError: "closed",
    ConnectionRefusedError: "refused",
    ConnectionResetError: "reset",
    EOFError: "short",
    TimeoutError: "timeout",
    ValueError: "malformed",
}


class Sample(NamedTuple):
    """The `nth` request: `post` numbers the POSTs (-1: a GET), `at` is its due time, `failure` a kind or empty."""

    nth: int
    post: int
    fresh: bool
    at: float
    latency: float
    status: int
    failure: str
    text: str
    head: bytes
    body: bytes


class Report(NamedTuple):
    """What users saw, in seconds; percentiles are of good answers; `lag` is how late we ourselves were at worst."""

    reasons: dict[str, int]
    examples: dict[str, str]
    statuses: dict[str, int]
    requests: int = 0
    failures: int = 0
    requests_since_mark: int = 0
    failures_since_mark: int = 0
    first_failure: float | None = None
    last_failure: float | None = None
    p50: float = 0
    p99: float = 0
    slowest: float = 0
    lag: float = 0
    seconds: float = 0

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able values; `Report(**values)` is the way back."""
        return self._asdict()


class _Wire:
    """A connection and the answer read from it."""

    data = head = body = b""
    status = 0

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, name: str, deadline: float) -> None:
        self.deadline = deadline
        self.socket = socket.create_connection(address, self._left())
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name.partition(":")[0])

    def _left(self) -> float:
        if (seconds := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError("no whole answer in time")
        return seconds

    def stale(self) -> bool:
        """Whether the peer closed it (or spoke unasked), which a client notices before it sends."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def ask(self, request: bytes, deadline: float) -> bool:
        """Send, read the whole answer, say whether the connection may be used again."""
        self.deadline, self.status, self.head, self.body = deadline, 0, b"", b""
        self.socket.settimeout(self._left())
        self.socket.sendall(request)
        while self.status < 200:  # interim answers come first
            self.head = self._until(b"\r\n\r\n")
            first, *lines = self.head.split(b"\r\n")
            if first[:7] != b"HTTP/1." or first[8:9] != b" " or first[12:13].strip():
                raise ValueError(f"status line {first[:80]!r}")
            self.status = _number(first[9:12], 10)
        headers = {key.lower(): value.strip().lower() for key, _, value in (line.partition(b":") for line in lines)}
        ends = self.status not in (204, 304) and self.read(headers)
        if self.data:
            raise ValueError(f"bytes after the answer: {self.data[:80]!r}")
        said = headers.get(b"connection", b"")
        return not ends and (b"keep-alive" in said if first[7:8] == b"0" else b"close" not in said)

    def read(self, headers: dict[bytes, bytes]) -> bool:
        """Read the body; true if only the end of the connection ended it."""
        if b"transfer-encoding" in headers:
            while size := _number(self._until(b"\r\n").split(b";")[0].strip(), 16):
                self._take(size)
                if self._until(b"\r\n"):
                    raise ValueError("a chunk longer than its size")
            while self._until(b"\r\n"):
                pass
        elif b"content-length" in headers:
            self._take(_number(headers[b"content-length"], 10))
        else:
            while self.data or self._more():
                self._take(len(self.data))
            return True
        return False

    def _more(self) -> bool:
        self.socket.settimeout(self._left())
        data = self.socket.recv(65536)
        self.data += data
        return bool(data)

    def _until(self, end: bytes) -> bytes:
        while end not in self.data:
            if len(self.data) > 65536:
                raise ValueError("a head without an end")
            if not self._more():
                kind = EOFError if self.data or self.head else ConnectionAbortedError
                raise kind("the server closed the connection")
        found, _, self.data = self.data.partition(end)
        return found

    def _take(self, size: int) -> None:
        while size:
            if not self.data and not self._more():
                raise EOFError(f"the server closed the connection, {size} bytes missing")
            part, self.data = self.data[:size], self.data[size:]
            size -= len(part)
            self.body += part[: KEPT - len(self.body)]


def _number(text: bytes, base: int) -> int:
    if not text.isalnum():  # int() takes signs, spaces and underscores too
        raise ValueError(f"number {text[:80]!r}")
    return int(text, base)


class Load:
    """Sends a request every `interval` seconds, whatever the answers do; latency counts from the due time; no retries.

    A share `fresh` has a connection of its own, the others take turns on `lanes` kept ones; one in `every` is a POST
    of the path and JSON that `post(n)` returns. Callbacks run in our threads.
    """

    def __init__(
        self,
        address: tuple[str, int],
        host_header: str,
        path: str = "/health",
        *,
        interval: float,
        lanes: int = 4,
        timeout: float = 5.0,
        post: Callable[[int], tuple[str, bytes]] | None = None,
        every: int = 5,
        fresh: float = 0.5,
        on_answer: Callable[[Sample], None] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address, self.host, self.path, self.interval, self.timeout = address, host_header, path, interval, timeout
        self.post, self.every, self.fresh, self.on_answer, self.tls = post, every, fresh, on_answer, tls
        self._request(path, fresh=True)
        self.kept: list[_Wire | None] = [None] * lanes
        self.turn, self.lock, self.stopped = threading.Lock(), threading.Lock(), threading.Event()
        self.threads: list[threading.Thread] = []
        self.next = self.busy = 0
        self.began = self.ended = 0.0
        self.seen = Report({}, {}, {})
        self.buckets: dict[int, int] = {}
        self.crash: BaseException | None = None

    def start(self) -> None:
        """Start sending now."""
        self.began = time.monotonic()
        self._grow()

    def stop(self) -> Report:
        """Stop sending, wait for the open answers, report; raises what a callback raised."""
        self.stopped.set()
        with self.turn:
            self.ended = self.ended or time.monotonic()
        for thread in self.threads:
            thread.join()
        for slot in range(len(self.kept)):
            if wire := self._keep(slot, None):
                wire.socket.close()
        if self.crash:
            raise self.crash
        return self.snapshot()

    def mark(self) -> None:
        """Count `…_since_mark` from here."""
        with self.lock:
            self.seen = self.seen._replace(requests_since_mark=0, failures_since_mark=0)

    def snapshot(self) -> Report:
        """Report on the requests answered so far."""
        with self.lock:
            return self.seen._replace(
                reasons=dict(self.seen.reasons),
                examples=dict(self.seen.examples),
                statuses=dict(self.seen.statuses),
                p50=self._percentile(0.5),
                p99=self._percentile(0.99),
                seconds=(self.ended or time.monotonic()) - self.began,
            )

    def _percentile(self, share: float) -> float:
        rank = math.ceil(share * sum(self.buckets.values()))
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return min(math.exp((bucket + 0.5) * STEP), self.seen.slowest)
        return 0.0

    def _request(self, path: str, body: bytes | None = None, *, fresh: bool) -> bytes:
        if not (where := self.host + path).isascii() or not where.isprintable() or " " in where:
            raise ValueError(f"not a host and a path: {self.host!r} {path!r}")
        head = f" {path} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: tidegate\r\n" + "Connection: close\r\n" * fresh
        if body is None:
            return f"GET{head}\r\n".encode()
        return f"POST{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def _grow(self) -> None:
        self.threads.append(threading.Thread(target=self._run, daemon=True))
        self.threads[-1].start()

    def _run(self) -> None:
        try:
            while self._one():
                pass
        except BaseException as crash:  # stop() raises it
            self.crash = crash
            self.stopped.set()

    def _one(self) -> bool:
        with self.turn:  # one thread waits for the due time, the idle ones for their turn
            due = self.began + self.next * self.interval
            if self.stopped.wait(max(0.0, due - time.monotonic())):
                return False
            index, self.next = self.next, self.next + 1
            with self.lock:
                self.busy += 1
                self.seen = self.seen._replace(lag=max(self.seen.lag, time.monotonic() - due))
                if self.busy == len(self.threads) < MOST:  # nobody is left for the next due time
                    self._grow()
        sample = self._send(index, due)
        if self.on_answer:
            self.on_answer(sample)
        with self.lock:
            self.busy -= 1
            self._record(sample)
        return True

    def _send(self, nth: int, due: float) -> Sample:
        own = int(nth * self.fresh)
        fresh, slot = int((nth + 1) * self.fresh) > own, (nth - own) % len(self.kept)
        post = nth // self.every if self.post and nth % self.every == 0 else -1
        request = self._request(*(self.post(post) if self.post and post >= 0 else (self.path,)), fresh=fresh)
        wire, deadline = None if fresh else self._keep(slot, None), due + self.timeout
        status, failure, text, again = 0, "", "", False
        try:
            if wire and wire.stale():
                wire.socket.close()
                wire = None
            wire = wire or _Wire(self.address, self.tls, self.host, deadline)
            again = wire.ask(request, deadline) and not fresh
            status = wire.status
            failure, text = ("", "") if status < 300 else (f"status {status}", repr(wire.body[:80]))
        except (OSError, EOFError, ValueError) as error:
            failure, text = KINDS.get(type(error), type(error).__name__), str(error)
        latency = time.monotonic() - due
        head, body = (wire.head, wire.body) if wire else (b"", b"")
        if old := self._keep(slot, wire) if again else wire:
            old.socket.close()
        return Sample(nth, post, fresh, due - self.began, latency, status, failure, text, head, body)

    def _keep(self, slot: int, wire: _Wire | None) -> _Wire | None:
        with self.lock:
            old, self.kept[slot] = self.kept[slot], wire
        return old

    def _record(self, sample: Sample) -> None:
        seen, bad = self.seen, bool(sample.failure)
        if sample.status:
            seen.statuses[str(sample.status)] = seen.statuses.get(str(sample.status), 0) + 1
        if bad:
            how = f"{'fresh' if sample.fresh else 'kept'} connection, due at {sample.at:.3f} s: {sample.text}"
            seen.examples.setdefault(sample.failure, f"{'GET' if sample.post < 0 else 'POST'}, {how}")
            seen.reasons[sample.failure] = seen.reasons.get(sample.failure, 0) + 1
        else:
            bucket = int(math.log(max(sample.latency, 1e-6)) // STEP)
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.seen = seen._replace(
            requests=seen.requests + 1,
            failures=seen.failures + bad,
            requests_since_mark=seen.requests_since_mark + 1,
            failures_since_mark=seen.failures_since_mark + bad,
            first_failure=min(sample.at, seen.first_failure or sample.at) if bad else seen.first_failure,
            last_failure=max(sample.at, seen.last_failure or 0.0) if bad else seen.last_failure,
            slowest=seen.slowest if bad else max(seen.slowest, sample.latency),
        )
