"""`python -m monitoring.bench`: how soon an environment is watched, what that costs its servers, how soon an alert arrives.

On sandbox servers, through the commands that people type. Parts whose images this machine neither has nor can make are
left out, and the page says which.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from monitoring import images
from monitoring.hosts import connected
from monitoring.inventory import inventory
from monitoring.server import service_of
from ops.config import load
from ops.console import Console
from ops.stand_ins import can_make
from ops.this_machine import local_client

REPOSITORY = Path(__file__).resolve().parent.parent
ROOT = REPOSITORY / ".tidegate" / "bench-monitoring"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: written by `nox -s bench_monitoring` -->", "<!-- end: bench_monitoring -->"
PARTS = {"grafana": "grafana", "loki": "loki", "cadvisor": "cadvisor", "collector": "promtail"}
CONFIGURATION = """

[monitoring]
collector = "promtail"
without = {without}

[monitoring.webhooks.bench]
url = "BENCH_HOOK"
"""


@dataclass(frozen=True)
class Cost:
    """What one container takes while nothing happens: megabytes, and percent of a core."""

    service: str
    megabytes: float
    percent: float


def inv(*words: str) -> tuple[float, str]:
    """Run a command as people type it; return how long it took and what it printed. Raises CalledProcessError."""
    environment = {key: value for key, value in os.environ.items() if key not in ("TIDEGATE_CONFIG", "PYTHONDONTWRITEBYTECODE")}
    began = time.monotonic()
    command = [sys.executable, "-m", "invoke", "-r", str(REPOSITORY), *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    )
    return time.monotonic() - began, done.stdout


def absent() -> list[str]:
    """Return the parts whose images cannot be had here."""
    lock, have = images.load(), {tag for one in local_client().api.images() for tag in one["RepoTags"] or ()}
    return [part for part, name in PARTS.items() if lock[name].name not in have and not can_make(lock[name].name)]


def prepare(hook: str, without: Sequence[str]) -> None:
    """Make a project folder with the bundled example in it."""
    shutil.rmtree(ROOT, ignore_errors=True)
    for folder in ("example", "docker"):
        shutil.copytree(REPOSITORY / folder, ROOT / folder, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    text = re.sub(r'^name = "blog"', 'name = "watched"', (REPOSITORY / "ops.toml").read_text(), count=1, flags=re.MULTILINE)
    (ROOT / "ops.toml").write_text(text + CONFIGURATION.format(without=json.dumps(list(without))))
    secrets = ROOT / ".env.sandbox"
    secrets.touch(mode=0o600)
    secrets.write_text(f"BENCH_HOOK={hook}\n")


@contextmanager
def receiver() -> Iterator[str]:
    """Take alerts on the bridge that the servers reach this machine by."""

    class Taken(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    gateway = str(local_client().api.inspect_network("bridge")["IPAM"]["Config"][0]["Gateway"])
    server = ThreadingHTTPServer((gateway, 0), Taken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{gateway}:{server.server_port}/"
    finally:
        server.shutdown()


def idle(seconds: float) -> list[Cost]:
    """Return what the containers on the server without the stack take, over so many seconds."""
    env = load(ROOT / "ops.toml", os.environ).environment("sandbox")
    known = inventory(env)
    with connected(env, known) as hosts:
        host = next(host for host in hosts if not host.watched.stack)
        containers = {service_of(one): one["Id"] for one in host.server.containers()}

        def used() -> dict[str, tuple[int, float]]:
            found = {name: host.server.engine.stats(id, stream=False) for name, id in containers.items()}
            return {name: (one["cpu_stats"]["cpu_usage"]["total_usage"], _megabytes(one)) for name, one in found.items()}

        first, began = used(), time.monotonic()
        threading.Event().wait(seconds)
        last, passed = used(), time.monotonic() - began
    return [Cost(name, last[name][1], (last[name][0] - first[name][0]) / 1e7 / passed) for name in sorted(last)]


def _megabytes(stats: Mapping[str, Any]) -> float:
    """Return memory without the page cache that goes when it is needed, as `docker stats` tells it."""
    memory, details = stats["memory_stats"], stats["memory_stats"].get("stats", {})
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return float(memory["usage"] - cache) / 1e6


def measure(console: Console, repetitions: int, seconds: float) -> str:
    """Measure all of it; return the page's part."""
    without = absent()
    with receiver() as hook:
        prepare(hook, without)
        try:
            console.say("two servers, the example deployed, images sent")
            inv("sandbox.up", "--hosts", "2")
            inv("deploy")
            first = inv("monitoring.up")[0]
            again = [inv("monitoring.up")[0] for _ in range(repetitions)]
            console.say(f"idle for {seconds:.0f} s")
            costs = idle(seconds)
            drills = [json.loads(inv("monitoring.drill", "--json")[1])["seconds"] for _ in range(repetitions)]
            cold = [_cold() for _ in range(repetitions)]
        finally:
            inv("sandbox.down")
    return page(without, repetitions, seconds, first, again, cold, drills, costs)


def _cold() -> float:
    inv("monitoring.down", "--yes", "--volumes")
    return inv("monitoring.up")[0]


def page(without: Sequence[str], repetitions: int, seconds: float, first: float, again: Sequence[float], cold: Sequence[float],
         drills: Sequence[float], costs: Sequence[Cost]) -> str:  # fmt: skip
    """Return the generated part of docs/benchmarks.md."""
    memory, cpu = sum(one.megabytes for one in costs), sum(one.percent for one in costs)
    rows = [
        ("`monitoring.up` with images present, two servers, until every target answers, s", "≤ 60", median(cold)),
        ("the same when nothing is to be done, s", "", median(again)),
        ("the first, images sent from here, s", "", first),
        ("drill: condition true → every receiver has it, s", "≤ 45", median(drills)),
        ("the slowest of them, s", "≤ 45", max(drills)),
        ("idle, a server without the stack: memory of all its containers, MB", "≤ 150", memory),
        ("idle, the same: percent of a core", "≤ 3", cpu),
    ]
    lines = [f"| {what} | {target} | {value:.1f} | {_mark(target, value)} |" for what, target, value in rows]
    each = [f"| {one.service} | {one.megabytes:.1f} | {one.percent:.2f} |" for one in costs]
    about = [
        f"- date: {datetime.now(UTC).isoformat(timespec='seconds')}", f"- repetitions: {repetitions}; idle for {seconds:.0f} s",
        f"- machine: {os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
        f"- left out, for want of their images: {', '.join(without) or 'nothing'}; the collector is Promtail",
    ]  # fmt: skip
    return "\n".join([
        *about, "", "| what | target | median |  |", "| --- | --- | --- | --- |", *lines,
        "", "| container, idle | MB | % of a core |", "| --- | --- | --- |", *each,
    ])  # fmt: skip


def _mark(target: str, value: float) -> str:
    return "" if not target else "✓" if value <= float(target.removeprefix("≤ ")) else "✗"


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.bench", description="Measure monitoring.")
    parser.add_argument("--quick", action="store_true", help="once, and briefly; docs are not touched")
    parser.add_argument("--repetitions", type=int, default=3, help="how often; medians are shown (default: 3)")
    parser.add_argument("--idle", type=float, default=180.0, help="seconds of idling (default: 180)")
    options = parser.parse_args(arguments)
    console = Console()
    text = measure(console, 1 if options.quick else options.repetitions, 20.0 if options.quick else options.idle)
    console.say(text)
    if not options.quick:
        document = PAGE.read_text()
        head, begin, rest = document.partition(BEGIN)
        _, end, tail = rest.partition(END)
        PAGE.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
