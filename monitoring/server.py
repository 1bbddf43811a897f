"""One server of a watched environment: its files, volumes, images and the containers of the stack on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from monitoring.files import FOLDER, PROJECT, File
from ops.errors import Failed, Refused
from ops.link import AgentError, Link, require_engine
from ops.names import HOME, LABEL
from ops.who import who

if TYPE_CHECKING:
    from docker import APIClient

PYTHON = "/usr/bin/python3"
ENGINE_SOCKET = "/var/run/docker.sock"
COMPOSE = "com.docker.compose"
LABEL_VOLUME = f"{LABEL}.monitoring"
LAST_LINES, LONGEST_LINE = 15, 300
_PROGRAM = Path(__file__).with_name("on_server.py")

Say = Callable[[str], None]
Document = dict[str, Any]


class Server:
    """What `monitoring.…` asks of one server."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.name = link.name

    @cached_property
    def engine(self) -> APIClient:
        """Return the server's engine."""
        from ops.engine import connect

        return connect(self.link.socket, require_engine(self.link)["engine"]["ApiVersion"])

    def lock(self, what: str) -> None:
        """Take the lock of the stack for as long as we are connected. Raises Locked, Refused."""
        holder = {"what": what, "who": who(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            self.link.call("lock", path=f"{HOME}/monitoring.lock", holder=holder)
        except AgentError as error:
            fix = f"inv server.bootstrap -e {self.link.environment}"
            raise Refused("cannot take the lock", where=self.name, why=error.what, fix=fix) from None

    def look(self, paths: Sequence[str], there: Sequence[str] = (), bind: Sequence[tuple[str, int]] = ()) -> Mapping[str, Any]:
        """Return the text of files of the stack (None: not there), which of others are `there`, on what it cannot `bind`, and what it is like."""
        return self._ask({"act": "look", "read": list(paths), "there": list(there), "bind": list(bind), "socket": ENGINE_SOCKET})

    def place(self, files: Sequence[File], keep: Iterable[str] = ()) -> set[str]:
        """Make the stack's files be as wanted and no others but `keep`; returns the services that have changed files to read.

        Those too whose files a run changed that ended before it called `all_read`.
        """
        described = [_described(file) for file in files]
        kept = [{"path": path, "keep": True} for path in keep]
        first = self._ask({"act": "place", "files": [*described, *kept]})
        if not first["missing"]:
            return set(first["changed"])
        contents = {file.path: file.content for file in files}
        whole = [one | ({"content": contents[one["path"]]} if one["path"] in first["missing"] else {}) for one in described]
        done = self._ask({"act": "place", "files": [*whole, *kept]})
        if done["missing"]:
            raise Failed("the server did not take its files", where=self.name, why=", ".join(done["missing"]))
        return set(done["changed"])

    def differs(self, files: Sequence[File]) -> bool:
        """Return whether any file there is not as wanted; changes nothing."""
        asked = self._ask({"act": "place", "files": [_described(file) for file in files], "only_look": True})
        return bool(asked["missing"])

    def all_read(self) -> None:
        """Say that every service has read its files."""
        self._ask({"act": "read"})

    def own(self, volumes: Mapping[str, int]) -> None:
        """Make volumes exist and belong to the users that their services run as."""
        places = []
        for name, owner in volumes.items():
            known = self.engine.create_volume(name, labels={LABEL_VOLUME: "true"})
            places.append([known["Mountpoint"], owner])
        if places:
            self._ask({"act": "own", "volumes": places})

    def containers(self) -> list[Document]:
        """Return the stack's containers here, stopped ones too, by name."""
        found: list[Document] = self.engine.containers(all=True, filters={"label": f"{COMPOSE}.project={PROJECT}"})
        return sorted(found, key=lambda one: str(one["Names"]))

    def running(self) -> dict[str, str]:
        """Return the id of each service's running container."""
        return {service_of(one): one["Id"] for one in self.containers() if one["State"] == "running"}

    def crashed(self) -> str:
        """Return the last words of containers that ended or start again and again, or nothing."""
        return self.last_words() if any(one["State"] in ("restarting", "exited", "dead") for one in self.containers()) else ""

    def volumes(self, label: str = LABEL_VOLUME) -> list[str]:
        """Return the engine's names of the stack's volumes here, or of those with another label."""
        found = self.engine.volumes(filters={"label": label})["Volumes"] or []
        return sorted(one["Name"] for one in found)

    def last_words(self) -> str:
        """Return what containers that do not run, or are not healthy, said last."""
        words = []
        for one in self.containers():
            if one["State"] != "running" or "unhealthy" in one["Status"]:
                lines = self.engine.logs(one["Id"], tail=LAST_LINES).decode("utf-8", "replace").strip().splitlines()
                said = "\n".join(line[:LONGEST_LINE] for line in lines)
                words.append(
                    f"\n  {service_of(one)} ({one['Status']}), its last words:\n{indent(said or 'it said nothing', '    ')}"
                )
        return "".join(words)

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        answers: list[dict[str, Any]] = []
        argv = [PYTHON, "-I", "-S", "-c", _PROGRAM.read_text()]
        try:
            code, said = self.link.program(
                argv, stdin=json.dumps({"folder": FOLDER, "home": HOME, **request}), on_event=answers.append
            )
        except AgentError as error:
            raise self._no_root(error.what) from None
        if code or not answers:
            raise self._no_root(said) if said.startswith("sudo:") else Failed(
                f"{request['act']} failed", where=self.name, why=said or "it said nothing"
            )  # fmt: skip
        if why := answers[-1].get("error"):
            fix = f"make room there, or put that right: inv server.check -e {self.link.environment}; then run this again"
            raise Failed("the stack's files cannot be written", where=self.name, why=str(why), fix=fix)
        return answers[-1]

    def _no_root(self, why: str) -> Refused:
        user = self.link.hello()["user"]
        return Refused("the stack's files are root's, and we cannot become root there", where=self.name, why=why,
                       fix=f"as root on the server: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/tidegate")  # fmt: skip


def service_of(container: Mapping[str, Any]) -> str:
    """Return which service of the stack a container is."""
    return str(container["Labels"][f"{COMPOSE}.service"])


def _described(file: File) -> dict[str, Any]:
    digest = hashlib.sha256(file.content.encode()).hexdigest()
    return {"path": file.path, "mode": file.mode, "owner": file.owner, "digest": digest}
