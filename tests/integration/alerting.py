"""A small stack that tells alerts for real: node exporter, Prometheus and Alertmanager from their images, on loopback."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from monitoring import alertmanager
from monitoring.certificates import issue
from monitoring.images import image
from monitoring.live import PORTS, Http
from monitoring.live_alertmanager import Alertmanager
from ops.bases import ensure_base
from ops.config import Monitoring
from ops.link import Link
from ops.this_machine import local_client
from tests.integration.project import REPOSITORY
from tests.integration.receivers import Kept, Mail, Post, mail, web

RUNBOOKS = "https://wiki.example.com/runbooks"
T = TypeVar("T")
ENVIRONMENT = "production"
ME = f"{os.getuid()}:{os.getgid()}"
RULES = REPOSITORY / "monitoring" / "rules"
CONDITION = {"alert": "Condition", "expr": "condition == 1", "labels": {"severity": "critical"}}


class Files:
    """The line to a server, as far as it is asked whether Alertmanager's container is there."""

    def send(self, operation: str, **_: object) -> Future[str]:
        assert operation == "state_of"
        answer: Future[str] = Future()
        answer.set_result("running")
        return answer


class Here(Http):
    """The stack's ports, wherever they are on this machine."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.name = "here"
        self.link = cast("Link", Files())
        self.ports = {PORTS[name]: port for name, port in ports.items()}

    def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@dataclass(frozen=True)
class Textfile:
    """The textfile of drills, in the folder that the node exporter reads."""

    path: Path

    def put(self, text: str) -> None:
        draft = self.path.with_suffix(".new")
        draft.write_text(text)
        draft.rename(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Chain:
    """The stack and everybody whom it tells."""

    http: Here
    web: Kept[Post]
    mail: Kept[Mail]
    textfile: Textfile
    folder: Path  # Alertmanager's
    alertmanager: Any

    def fire(self, *alerts: Mapping[str, str], **annotations: str) -> None:
        """Have alerts fire, as Prometheus would tell."""
        self._post(alerts, annotations, timedelta(minutes=10))

    def resolve(self, *alerts: Mapping[str, str], **annotations: str) -> None:
        """Have them resolve."""
        self._post(alerts, annotations, timedelta())

    def status(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return by what Alertmanager mutes the one alert with these labels."""
        (status,) = [one["status"] for one in Alertmanager(self.http).alerts() if one["labels"] == labels]
        return cast("dict[str, Any]", status)

    def log(self) -> str:
        return cast("str", self.alertmanager.logs().decode())

    def amtool(self, *words: str) -> str:
        """Return what it answers."""
        code, output = self.alertmanager.exec_run(["/bin/amtool", *words], stderr=False)
        assert code == 0, output
        return cast("str", output.decode().strip())

    def _post(self, alerts: tuple[Mapping[str, str], ...], annotations: Mapping[str, str], lasts: timedelta) -> None:
        ends = (datetime.now(UTC) + lasts).isoformat()
        body = [{"labels": dict(labels), "annotations": dict(annotations), "endsAt": ends} for labels in alerts]
        status, answer = self.http.ask("POST", PORTS["alertmanager"], "/api/v2/alerts", json.dumps(body))
        assert status == 200, answer


def settled(found: Callable[[], T], wanted: T, timeout: float = 5.0) -> T:
    """Return what is found once it is what is wanted, or at the end of our patience."""
    ends = time.monotonic() + timeout
    while (last := found()) != wanted and time.monotonic() < ends:
        time.sleep(0.1)
    return last


def settings(mail_port: int) -> Monitoring:
    """Return a configuration with every kind of receiver: some work, one answers 500, one is not there."""
    return Monitoring.model_validate(
        {
            "runbooks": RUNBOOKS,
            "heartbeat": "BEAT",
            "slack": {"webhook": "SLACK", "channel": "#alerts"},
            "email": {
                "server": f"127.0.0.1:{mail_port}", "sender": "tidegate@example.com", "to": ["ops@example.com", "cto@example.com"],
                "user": "tidegate", "password": "MAIL", "severities": ["critical"],
            },
            "webhooks": {
                "pager": {"url": "PAGER", "severities": ["critical", "warning", "info"]},
                "broken": {"url": "BROKEN", "severities": ["info"]},
                "absent": {"url": "ABSENT", "severities": ["info"]},
            },
        }
    )  # fmt: skip


@contextmanager
def chain(folder: Path, interval: str, *, patient: bool = False) -> Iterator[Chain]:
    """Run it all; unless `patient`, nothing waits for long before it is told."""
    with ExitStack() as stack:
        identity = issue(["127.0.0.1"], datetime.now(UTC))["127.0.0.1"]
        for name, text in (("ca", identity.ca), ("certificate", identity.certificate), ("key", identity.key)):
            _write(folder / f"{name}.pem", text)
        web_port, posts = stack.enter_context(web())
        mail_port, mails = stack.enter_context(mail(folder / "certificate.pem", folder / "key.pem"))
        ports = {name: _free_port() for name in ("node", "prometheus", "alertmanager", "nobody")}
        _configure(folder, settings(mail_port), f"http://127.0.0.1:{web_port}", ports, interval, patient=patient)
        started = {name: stack.enter_context(_container(name, folder, ports[name])) for name in _COMMANDS}
        here = Here({name: ports[name] for name in ("prometheus", "alertmanager")})
        for name in ("prometheus", "alertmanager"):
            assert settled(partial(_is_ready, here, PORTS[name]), True, timeout=30), f"{name} does not get ready"
        yield Chain(
            here, posts, mails, Textfile(folder / "metrics" / "drill.prom"), folder / "alertmanager", started["alertmanager"]
        )


def _configure(folder: Path, told: Monitoring, base: str, ports: Mapping[str, int], interval: str, *, patient: bool) -> None:
    for file in alertmanager.render(told, ENVIRONMENT):
        _write(folder / file.path, file.content if patient else _impatient(file.path, file.content))
    urls = {"BEAT": f"{base}/beat", "SLACK": f"{base}/slack", "PAGER": f"{base}/pager", "BROKEN": f"{base}/broken"}
    values = {**urls, "ABSENT": f"http://127.0.0.1:{ports['nobody']}/", "MAIL": "correct horse"}
    assert set(values) == set(alertmanager.secret_names(told))
    for name, value in values.items():
        _write(folder / "alertmanager" / "secrets" / name, value, 0o400)
    _write(folder / "alertmanager" / "ca.pem", (folder / "ca.pem").read_text())
    _write(folder / "prometheus" / "prometheus.yml", yaml.safe_dump(_prometheus(ports, interval)))
    _write(folder / "prometheus" / "drill-rules.yml", (RULES / "drill.yml").read_text())
    _write(folder / "prometheus" / "rules.yml", yaml.safe_dump({"groups": [{"name": "condition", "rules": [CONDITION]}]}))
    (folder / "metrics").mkdir()


def _impatient(path: str, content: str) -> str:
    if not path.endswith(".yml"):
        return content
    document = yaml.safe_load(content)
    for route in document["route"]["routes"]:
        route |= {"group_wait": "0s" if route.get("group_wait") == "0s" else "1s", "group_interval": "3s"}
    return yaml.safe_dump(document)


def _prometheus(ports: Mapping[str, int], interval: str) -> dict[str, Any]:
    node = {"targets": [f"127.0.0.1:{ports['node']}"], "labels": {"host": "web1", "instance": "web1"}}
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval, "external_labels": {"environment": ENVIRONMENT}},
        "rule_files": ["/etc/tidegate/*rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{ports['alertmanager']}"]}]}]},
        "scrape_configs": [{"job_name": "node", "static_configs": [node]}],
    }


_COMMANDS = {
    "node": ["--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory=/metrics"],
    "alertmanager": [
        "--config.file=/etc/tidegate/alertmanager.yml", "--storage.path=/alertmanager", "--cluster.listen-address=",
        "--enable-feature=receiver-name-in-metrics", "--web.external-url=http://localhost:7812/", "--web.route-prefix=/",
    ],
    "prometheus": ["--config.file=/etc/tidegate/prometheus.yml", "--storage.tsdb.path=/prometheus"],
}  # fmt: skip


@contextmanager
def _container(name: str, folder: Path, port: int) -> Iterator[Any]:
    ensure_base(image(name), print)
    (folder / name).mkdir(exist_ok=True)
    container = local_client().containers.run(
        image(name).partition("@")[0],
        [*_COMMANDS[name], f"--web.listen-address=127.0.0.1:{port}"],
        detach=True, network_mode="host", user=ME, read_only=True, cap_drop=["ALL"],
        environment={"SSL_CERT_FILE": "/etc/tidegate/ca.pem"} if name == "alertmanager" else {},
        tmpfs={f"/{name}": "mode=1777"},
        volumes=[f"{folder / name}:/etc/tidegate:ro", f"{folder / 'metrics'}:/metrics:ro"],
    )  # fmt: skip
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def _is_ready(here: Here, port: int) -> bool:
    try:
        return here.ask("GET", port, "/-/ready")[0] == 200
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode)
    path.write_text(text)
    path.chmod(mode)
