"""A server on this machine as far as a deploy works with one: a real agent, files in a folder, an engine with a memory, an edge.

What a container does is told by its BEHAVIOUR, as with tests/apps/server.py; nothing runs in one. The network is of
loopback, so that every address in it leads to the one page that stands for all containers.
"""

from __future__ import annotations

import fcntl
import json
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from deploy import docker_server, edge_setup, figures, observe, servers
from deploy.edge import public_proof, read_head
from ops import link
from ops.config import App, Environment, HostAddress
from ops.names import EDGE, NETWORK
from tests import an_engine
from tests.local_ssh import install_ssh
from tests.monitoring.a_stack import Stack

if TYPE_CHECKING:
    import pytest

SUBNET = "127.0.0.0/20"
FORWARD = 'for word; do case "$word" in */engine.sock:*) ln -sf "${word#*:}" "${word%%:*}" ;; esac; done'
DOMAIN = "a.example"


@dataclass
class Box:
    """A container."""

    name: str
    body: dict[str, Any]
    status: str = "created"
    code: int = 0
    words: str = ""
    policy: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"id-{self.name}"

    @property
    def behaviour(self) -> str:
        found = [word.partition("=")[2] for word in self.body.get("Env") or () if word.startswith("BEHAVIOUR=")]
        return found[0] if found else ""

    def start(self) -> None:
        """Do what such an app does when it is started."""
        once = self.body.get("Cmd") == ["migrate"]
        failing = self.behaviour == ("migrate_fail" if once else "crash")
        self.status, self.code = ("exited", 3 if failing else 0) if failing or once else ("running", 0)
        self.words = "duplicate column\n" if failing else "at work\n"

    def listed(self) -> dict[str, Any]:
        networks = {NETWORK: self.body.get("NetworkingConfig", {}).get("EndpointsConfig", {}).get(NETWORK, {})}
        said = {"running": "Up 3 seconds", "exited": f"Exited ({self.code}) 1 second ago"}.get(self.status, "Created")
        return {"Id": self.id, "Names": [f"/{self.name}"], "Labels": self.body.get("Labels") or {}, "State": self.status, "Status": said,
                "Image": self.body["Image"], "ImageID": f"sha256:{self.body['Image']}", "Mounts": [],
                "NetworkSettings": {"Networks": networks}, **self.more}  # fmt: skip

    def inspected(self, pid: int) -> dict[str, Any]:
        state = {"Status": self.status, "Running": self.status == "running", "ExitCode": self.code, "Pid": pid,
                 "StartedAt": "2026-01-01T00:00:00.5Z", "FinishedAt": "2026-01-01T00:00:09.5Z"}  # fmt: skip
        config = {"Labels": self.body.get("Labels") or {}, "Image": self.body["Image"], "Tty": False}
        return {"Id": self.id, "Name": f"/{self.name}", "State": state, "RestartCount": 0, "Config": config,
                "Image": f"sha256:{self.body['Image']}",
                "Mounts": self.more.get("Mounts", []), "NetworkSettings": {"Ports": {}, "IPAddress": "172.17.0.2"}}  # fmt: skip


class _Handler(an_engine._Handler):
    server: Engine

    def _serve(self) -> None:
        self.server.parameters = {key: values[0] for key, values in parse_qs(self.path.partition("?")[2]).items()}
        path = self.path.partition("?")[0]
        if path.endswith(("/logs", "/images/create", "/images/load", "/push")) or ("/exec/" in path and path.endswith("/start")):
            self._stream(path)
        else:
            super()._serve()

    do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _stream(self, path: str) -> None:
        """Answer in pieces where it is a stream, and where it is an `exec` only once its head was read, as an engine does."""
        data = self._body()
        asked = path.split("/", 2)[2] if path.startswith("/v1.") else path[1:]
        status, body = self.server.answer(f"{self.command} /{asked}", json.loads(data) if data[:1] in (b"{", b"[") else data)
        self.send_response(status)
        if asked.startswith("exec/"):
            self.end_headers()
            self.wfile.flush()
            pause = threading.Event()
            while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, b"\0" * 4))[0]:
                pause.wait(0.002)
            self.wfile.write(body)
            self.close_connection = True
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in body.splitlines(keepends=True) if asked.startswith("images/") else [body]:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if piece else b"")
        self.wfile.write(b"0\r\n\r\n")


def frames(text: str) -> bytes:
    """Return what a container wrote to its standard output as the engine sends it."""
    return struct.pack(">BxxxL", 1, len(text.encode())) + text.encode() if text else b""


class Engine(an_engine.Engine):
    """An engine with a memory; `answers` come first, of which a status with a message is a refusal in those words."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.RequestHandlerClass = _Handler
        self._of_request = threading.local()
        self.boxes: dict[str, Box] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.networks: list[dict[str, Any]] = [{"Name": NETWORK, "IPAM": {"Config": [{"Subnet": SUBNET}]}, "Containers": {}}]
        self.volumes: list[str] = []
        self.labels_of: dict[str, dict[str, str]] = {}
        self.pulls: list[dict[str, Any]] = [{"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 10}}]
        self.execs_said: Callable[[list[str]], tuple[int, str]] = lambda _: (0, "")
        self.push: Callable[[Any], Any] = lambda _: 500
        self.hup: Callable[[], None] = lambda: None
        self.pid = 0
        self._ran: dict[str, Any] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong, but for a client that has gone, as engines' clients do."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def parameters(self) -> dict[str, str]:
        """Return the parameters of the request that is being answered."""
        found: dict[str, str] = self._of_request.parameters
        return found

    @parameters.setter
    def parameters(self, value: dict[str, str]) -> None:
        self._of_request.parameters = value

    def add(self, name: str, status: str = "running", image: str = "nginx:1.30", **more: Any) -> Box:
        """Have a container."""
        labels = more.pop("Labels", {})
        self.boxes[name] = Box(name, {"Image": image, "Labels": labels}, status, more=more)
        return self.boxes[name]

    def add_image(self, name: str, **config: Any) -> None:
        """Have an image."""
        self.images[name] = {"Id": f"sha256:{name}", "RepoTags": [name], "Labels": config.get("Labels"), "Size": 1000,
                             "Config": {"Labels": None, "Volumes": None, **config}}  # fmt: skip

    def box(self, name: str) -> Box | None:
        return next((one for one in self.boxes.values() if name in (one.name, one.id)), None)

    def answer(self, what: str, body: Any) -> tuple[int, bytes]:
        what = unquote(what)
        self.asked.append(what)
        self.bodies[what] = body
        if what in self.answers:
            found = self.answers[what]
            found = found(body) if callable(found) else found
        else:
            method, _, path = what.partition(" ")
            found = self._known(method, path.strip("/").split("/"), body)
        if isinstance(found, int):
            found = (found, f"refused with {found}")
        if isinstance(found, tuple):
            return found[0], json.dumps({"message": found[1]}).encode() if found[0] >= 400 else b""
        return 200, found if isinstance(found, bytes) else json.dumps(found).encode()

    def _known(self, method: str, path: list[str], body: Any) -> Any:
        kind, *rest = path
        one = getattr(self, f"_{kind}", None)
        return one(method, rest, body) if one else 404

    def _containers(self, method: str, rest: list[str], body: Any) -> Any:
        if rest == ["json"]:
            wanted = json.loads(self.parameters.get("filters", "{}")).get("label", [])
            found = [one.listed() for one in self.boxes.values()]
            return [one for one in found if all(_has(one["Labels"], label) for label in wanted)]
        if rest == ["create"]:
            name = self.parameters.get("name") or f"unnamed-{len(self.asked)}"
            if name in self.boxes:
                return 409
            self.boxes[name] = Box(name, body)
            return {"Id": self.boxes[name].id}
        one = self.box(rest[0])
        if one is None:
            return 404
        if method == "DELETE":
            del self.boxes[one.name]
            return b""
        return self._container(one, rest[1], body)

    def _container(self, one: Box, what: str, body: Any) -> Any:
        if what == "start" and one.status == "running":
            return 304
        if what == "exec":
            code, said = self.execs_said(body["Cmd"])
            self._ran = {"ExitCode": code, "said": said}
            return {"Id": "e1"}
        if what == "update":
            one.policy = body["RestartPolicy"]["Name"]
        one.status = {"stop": "exited", "unpause": "running"}.get(what, one.status)
        does: dict[str, Callable[[], Any]] = {
            "start": one.start,
            "kill": self.hup,
            "json": lambda: one.inspected(self.pid),
            "logs": lambda: frames(one.words),
            "wait": lambda: {"StatusCode": one.code},
        }
        return (does[what]() if what in does else None) or b""

    def _exec(self, method: str, rest: list[str], body: Any) -> Any:
        if rest[1] == "json":
            return {"ExitCode": self._ran["ExitCode"]}
        said = self._ran["said"]
        return said.encode() if body and body.get("Tty") else frames(said)

    def _images(self, method: str, rest: list[str], body: Any) -> Any:
        if rest == ["json"]:
            return list(self.images.values())
        if rest == ["create"]:
            self._pulled()
            return b"".join(json.dumps(line).encode() + b"\r\n" for line in self.pulls)
        name, last = ("/".join(rest), "") if method == "DELETE" else ("/".join(rest[:-1]), rest[-1])
        if last == "push":
            return self.push(body)
        if name not in self.images:
            return 404
        if method == "DELETE":
            del self.images[name]
            return []
        if last == "tag":
            self.images[f"{self.parameters['repo']}:{self.parameters['tag']}"] = self.images[name]
            return b""
        return self.images[name] if last == "json" else 404

    def _pulled(self) -> None:
        if not any("error" in line for line in self.pulls):
            name, tag = self.parameters["fromImage"], self.parameters["tag"]
            self.add_image(f"{name}{'@' if tag.startswith('sha256:') else ':'}{tag}")

    def _networks(self, method: str, rest: list[str], body: Any) -> Any:
        if rest == ["create"]:
            self.networks.append({"Name": body["Name"], "IPAM": body["IPAM"], "Containers": {}})
            return {"Id": body["Name"]}
        return next((one for one in self.networks if [one["Name"]] == rest), 404) if rest else self.networks

    def _volumes(self, method: str, rest: list[str], body: Any) -> Any:
        if method == "DELETE":
            if rest[0] not in self.volumes:
                return 404
            self.volumes.remove(rest[0])
        elif rest == ["create"]:
            self.volumes = sorted({*self.volumes, body["Name"]})
            self.labels_of[body["Name"]] = body.get("Labels") or {}
        wanted = json.loads(self.parameters.get("filters", "{}")).get("label", [])
        found = [name for name in self.volumes if all(_has(self.labels_of.get(name, {}), label) for label in wanted)]
        return {"Volumes": [{"Name": name} for name in found]}


def _has(labels: dict[str, str], wanted: str) -> bool:
    key, said, value = wanted.partition("=")
    return key in labels and (not said or labels[key] == value)


class Edge(Stack):
    """nginx: it answers with what its files said when it was last told to read them."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home
        self.heads: list[dict[str, Any]] = []
        self.deaf = False
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def reload(self) -> None:
        if not self.deaf:
            self.heads = [read_head(path.read_text()) for path in sorted((self.home / "apps").glob("*.conf"))]

    def answer(self, path: str) -> tuple[int, str]:
        for head in self.heads:
            if path == "/":
                return 200, str(head["generation"])
            if path == public_proof(str(head["generation"])):
                return 200, str(head["release"])
        return (200, "well") if self.heads and path == "/health" else (404, "nothing here")


@dataclass
class Here:
    """The server, and the environment that it is."""

    home: Path
    engine: Engine
    edge: Edge
    app: Stack
    env: Environment

    def records(self) -> list[dict[str, Any]]:
        """Return the journal's records."""
        return [json.loads(line) for line in (self.home / "blog" / "journal.jsonl").read_text().splitlines()]


@contextmanager
def server(folder: Path, monkeypatch: pytest.MonkeyPatch, **app: Any) -> Iterator[Here]:
    """Have one for as long as the block runs; its app is pulled, where it is not said otherwise."""
    home = folder / "srv"
    for name in ("edge/apps", "edge/staged", "edge/tls", "metrics", "blog/releases"):
        (home / name).mkdir(parents=True)
    install_ssh(folder, monkeypatch)(FORWARD)
    monkeypatch.setattr(link, "ENGINE_SOCKET", str(folder / "server.sock"))
    monkeypatch.setattr(figures, "METRICS", str(home / "metrics"))
    for module in (observe, docker_server, servers, edge_setup):
        for name, value in (("HOME", str(home)), ("EDGE_HOME", str(home / "edge"))):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    with ExitStack() as stack:
        engine = Engine(folder / "server.sock")
        edge, page = Edge(home / "edge"), Stack(("", 0))
        for one in (engine, page):
            Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        for served in (engine, edge, page):
            stack.callback(served.server_close)
            stack.callback(served.shutdown)
        stack.callback(engine.ends.set)
        nginx = stack.enter_context(subprocess.Popen(["sleep", "600"]))
        stack.callback(nginx.kill)
        engine.pid, engine.hup = nginx.pid, edge.reload
        engine.add(EDGE)
        page.answers["/health"] = "well"
        monkeypatch.setattr(observe, "STATUS_PORT", edge.server_port)
        monkeypatch.setattr(edge_setup, "STATUS_PORT", edge.server_port)
        health = {"interval": "10ms", "timeout": "3s", "successes": 1}
        known = {"name": "blog", "port": page.server_port, "image": "registry.invalid/blog", "health": health,
                 "prober": {"interval": "5ms"}, "drain": {"grace": "1s"}}  # fmt: skip
        host = HostAddress(address="server.invalid", user="deploy", url=f"http://127.0.0.1:{edge.server_port}")
        env = Environment(name="test", app=App.model_validate({**known, **app}), hosts=(host,), domains=(DOMAIN,),
                          known_hosts=folder / "known_hosts", project_root=folder)  # fmt: skip
        yield Here(home, engine, edge, page, env)
