"""Loki, a collector and containers that write, on this machine's engine."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from monitoring import collector, loki
from monitoring.collector import Collector
from monitoring.files import File
from monitoring.images import load
from monitoring.render import LOG_RULES
from ops.names import LABEL_APP, LABEL_PROCESS, LABEL_RELEASE, LABEL_SLOT
from ops.this_machine import local_client

if TYPE_CHECKING:
    from docker.models.containers import Container

HOST = "203.0.113.10"
PATIENCE = 60.0
COMMANDS = {
    "promtail": ["-config.file=/etc/tidegate/promtail.yaml"],
    "alloy": [
        "run",
        "--server.http.listen-addr=0.0.0.0:12345",
        "--storage.path=/data",
        "--disable-reporting",
        "/etc/tidegate/config.alloy",
    ],
}
RENDERERS: dict[str, Callable[[Collector], File]] = {"promtail": collector.promtail, "alloy": collector.alloy}


def image(name: str) -> str:
    """Return an image of the stack that this machine has: the locked one, else another version. Skips without one."""
    wanted = load()[name]
    tags = {tag for one in local_client().images.list(wanted.repository) for tag in one.tags}
    if not tags:
        pytest.skip(f"no image {wanted.repository} on this machine: it was neither pulled nor built here")
    return wanted.name if wanted.name in tags else max(tags)


def log_rules() -> dict[str, str]:
    """Return the rules of Loki's ruler by file name."""
    return {path.name: path.read_text() for path in LOG_RULES.glob("*.yml")}


def until(holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.2)


class Http:
    """Loki, asked at a loopback port of this machine."""

    def __init__(self, port: str) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: Any) -> Any:
        with urlopen(f"{self.base}{path}?{urlencode(parameters)}", timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def ready(self) -> bool:
        try:
            with urlopen(f"{self.base}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def query_range(self, query: str, start: int, end: int, limit: int, direction: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(
            "/loki/api/v1/query_range", query=query, start=start, end=end, limit=limit, direction=direction
        )["data"]["result"]
        return found

    def push(self, lines: list[str], **labels: str) -> None:
        """Send lines as a collector would."""
        now = time.time_ns()
        values = [[str(now + number), line] for number, line in enumerate(lines)]
        body = json.dumps({"streams": [{"stream": labels, "values": values}]}).encode()
        with urlopen(Request(f"{self.base}/loki/api/v1/push", body, {"Content-Type": "application/json"}), timeout=10):
            pass

    def firing(self) -> dict[str, dict[str, str]]:
        """Return the alerts that Loki's ruler fires, with their labels."""
        found = self.get("/prometheus/api/v1/alerts")["data"]["alerts"]
        return {one["labels"]["alertname"]: one["labels"] for one in found if one["state"] == "firing"}

    def value(self, query: str) -> float:
        """Return the one number that a query gives; 0 where it gives none."""
        found = self.get("/loki/api/v1/query", query=query)["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0


class Lab:
    """Containers of one test on a network of their own; all go with it."""

    def __init__(self, root: Path, tag: str) -> None:
        self.root, self.tag = root, tag
        self.client = local_client()
        self.network = self.client.networks.create(f"logs-{tag}")
        self.containers: list[Container] = []

    @property
    def gateway(self) -> str:
        """This machine's address on the network."""
        self.network.reload()
        return str(self.network.attrs["IPAM"]["Config"][0]["Gateway"])

    def put(self, files: list[File]) -> None:
        for file in files:
            path = self.root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.content)
        for path in (self.root, *self.root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def run(self, name: str, image: str, command: list[str], **options: Any) -> Container:
        container = self.client.containers.run(
            image, command, name=f"logs-{self.tag}-{name}", hostname=name, network=self.network.name, detach=True, **options
        )
        self.containers.append(container)
        return container

    def loki(self, rules: dict[str, str] | None = None) -> Http:
        """Start Loki, with its own rules or others, and return it when it is ready."""
        self.put(loki.render("test", 86400.0, None, rules or log_rules()))
        started = self.run(
            "loki", image("loki"), ["-config.file=/etc/tidegate/loki.yaml"], user=str(loki.USER), read_only=True, cap_drop=["ALL"],
            tmpfs={"/tmp": ""}, extra_hosts={"alertmanager": self.gateway}, volumes=[f"{self.root}/loki:/etc/tidegate:ro", loki.DATA], ports={f"{loki.PORT}/tcp": ("127.0.0.1", None)},
        )  # fmt: skip
        until(lambda: self._bound(started) is not None, "Loki's port is open")
        http = Http(str(self._bound(started)))
        until(http.ready, "Loki is ready")
        return http

    def _bound(self, container: Container) -> str | None:
        container.reload()
        ports = container.ports.get(f"{loki.PORT}/tcp") or []
        return ports[0]["HostPort"] if ports else None

    def collector(self, kind: str) -> Container:
        """Start a collector of all containers of this machine, and of log files of its own."""
        (self.root / "var-log").mkdir()
        told = Collector(
            HOST, collector.push_address(None).replace("loki:", f"logs-{self.tag}-loki:"), journal=False, refresh="5s"
        )
        self.put([RENDERERS[kind](told)])
        return self.run(
            "collector", image(kind), COMMANDS[kind], user="0:0", read_only=True, cap_drop=["ALL"], tmpfs={"/tmp": ""},
            volumes=[
                f"{self.root}/collector:/etc/tidegate:ro", f"{self.root}/var-log:{collector.HOST_LOGS}:ro",
                "/var/run/docker.sock:/var/run/docker.sock:ro", f"logs-{self.tag}:{collector.DATA}",
            ],
        )  # fmt: skip

    def writer(self, release: str, slot: str, script: str, kind: str) -> Container:
        """Start an app's container that writes, with small log files: the engine rotates them often."""
        labels = {LABEL_APP: self.app, LABEL_PROCESS: "web", LABEL_SLOT: slot, LABEL_RELEASE: release}
        log = {"type": "json-file", "config": {"max-size": "1m", "max-file": "9"}}
        shell = ["bash", "-c", script]
        return self.run(
            release, image(kind), shell[2:], entrypoint=shell[:2], labels=labels, log_config=log, network_disabled=False
        )

    @property
    def app(self) -> str:
        """The name of the app that writes."""
        return f"shop-{self.tag}"

    def remove(self, container: Container) -> None:
        print(f"— {container.name}\n{container.logs(tail=9, stream=False).decode(errors='replace')}")
        container.remove(force=True, v=True)
        self.containers.remove(container)

    def close(self) -> None:
        for container in self.containers[:]:
            self.remove(container)
        self.network.remove()
        if any(volume.name == f"logs-{self.tag}" for volume in self.client.volumes.list()):
            self.client.volumes.get(f"logs-{self.tag}").remove()


def check(root: Path, files: list[File], image: str, command: list[str]) -> None:
    """Have an image check files of its service. Raises what it says against them."""
    for file in files:
        path = root / file.path.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)
    root.chmod(0o755)
    local_client().containers.run(image, command, remove=True, user="0:0", volumes=[f"{root}:/etc/tidegate:ro"])


class Receiver:
    """What takes Alertmanager's place for Loki: it keeps what is sent."""

    def __init__(self, address: str) -> None:
        self.alerts: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.alerts += json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer((address, 9093), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def lab(root: Path, tag: str) -> Iterator[Lab]:
    """Keep a lab for as long as the block runs."""
    known = Lab(root, tag)
    try:
        yield known
    finally:
        known.close()


def numbers(first: int, last: int, pause: float = 0.05) -> str:
    """Return a shell script that writes numbered lines, some at a time, and the rest at once when told to stop."""
    line = "line %06d, as long as those that apps write when they tell of one request and its answer\\n"
    return (
        f"trap 'pause=0' TERM; pause={pause}; for ((at={first}; at<{last}; at+=200)); do printf {shlex.quote(line)}"
        f' $(seq $at $((at+199))); [ "$pause" = 0 ] || sleep $pause; done; '
    )
