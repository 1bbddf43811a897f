"""Request counters in the Prometheus text format."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """What this process has answered since it started."""

    def __init__(self) -> None:
        self.started = time.time()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests[method, path, status] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def render(self, gauges: dict[str, float], version: str) -> str:
        """Return everything as text, with the gauges given."""
        lines = ["# TYPE blog_build_info gauge", f'blog_build_info{{version="{_escaped(version)}"}} 1']
        for name, value in {"process_start_time_seconds": self.started, **gauges}.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines + self._request_lines() + self._duration_lines()) + "\n"

    def _request_lines(self) -> list[str]:
        return ["# TYPE blog_http_requests_total counter"] + [
            f'blog_http_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}'
            for (method, path, status), count in sorted(self._requests.items())
        ]

    def _duration_lines(self) -> list[str]:
        name, total = "blog_http_request_duration_seconds", 0
        lines = [f"# TYPE {name} histogram"]
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._seconds:.6f}", f"{name}_count {total}"]


class Measured:
    """ASGI middleware that counts every request by its route, so that no client can add label values."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its outcome; no answer at all counts as 500."""
        start, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._metrics.observe(*_labels(scope), status, time.perf_counter() - start)


def _labels(scope: Scope) -> tuple[str, str]:
    method = scope["method"] if scope["method"] in {"GET", "HEAD", "POST"} else "other"
    return method, getattr(scope.get("route"), "path", "none")


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
