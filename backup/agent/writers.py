"""Who writes the app's data, and how they are paused: nginx answers 503 for the app, then its containers are stopped."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from glob import escape, glob
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backup.agent.errors import BackupError
from backup.agent.model import Settings
from backup.agent.report import Report
from ops.agent import files, waits
from ops.agent.engine import Engine, EngineError

EDGE, STATUS_PORT, LABEL = "tidegate-edge", 7809, "dev.tidegate"  # as deploys name them
PROOFS, SWITCH_SECONDS = 10, 15.0
OPEN_SECONDS = 10.0  # for open requests to end
STEADY = 0.5
RETRY_AFTER = 5
MARK = "# tidegate "
NEVER = {"Name": "no"}


@dataclass(frozen=True)
class Writer:
    """A container of the app that ran, and its restart policy."""

    name: str
    release: str
    process: str
    policy: Mapping[str, Any]


@dataclass(frozen=True)
class Paused:
    """All that bringing the app back needs: what ran, and the generation nginx answered with ("": nginx has no part in it)."""

    containers: tuple[Writer, ...] = ()
    generation: str = ""

    @staticmethod
    def from_json(known: Mapping[str, Any]) -> Paused:
        """Read it."""
        return Paused(tuple(Writer(**one) for one in known["containers"]), known["generation"])


class Writers:
    """The app's containers and its nginx file on this server. Every step may be repeated."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._app = settings.app
        self._folder = settings.folder
        self._engine = Engine(settings.engine)
        self._report = report
        self._grace, self._patience = max(1, round(settings.grace)), settings.patience
        edge = Path(settings.home) / "edge"
        self._live = str(edge / "apps" / f"{settings.app}.conf")
        self._staged = str(edge / "staged" / f"{settings.app}.conf")
        self._kept = str(settings.folder / "restore.conf")

    def look(self) -> Paused:
        """Return who writes now, and what nginx serves for the app."""
        filters = quote(json.dumps({"label": [f"{LABEL}.app={self._app}"]}))
        running = self._engine.call("GET", f"/containers/json?filters={filters}", timeout=60.0)
        found = [self._writer(one) for one in running]
        text = files.read(self._live)
        return Paused(tuple(found), str(head(text).get("generation", "")) if found and text and self._edge_runs() else "")

    def _writer(self, known: Mapping[str, Any]) -> Writer:
        policy = self._engine.inspect(known["Id"])["HostConfig"]["RestartPolicy"]
        labels = known["Labels"]
        release, process = labels.get(f"{LABEL}.release", ""), labels.get(f"{LABEL}.process", "")
        return Writer(known["Names"][0].lstrip("/"), release, process, policy)

    def _edge_runs(self) -> bool:
        try:
            return bool(self._engine.inspect(EDGE)["State"]["Running"])
        except EngineError:
            return False

    def drain(self, paused: Paused, tag: str) -> None:
        """Have nginx end every connection after its answer, while the app serves on: so nobody idles on one when we close."""
        if paused.generation:
            files.keep(self._live, self._kept)
            files.sync_folder(str(self._folder))
            generation, text = f"draining-{tag}", files.read(self._kept) or ""
            self._switch(draining(text, generation), generation, idle(text) + 3.0)

    def close(self, paused: Paused, tag: str) -> None:
        """Have nginx answer 503, and wait until the requests it had passed on are answered."""
        if paused.generation:
            generation = f"maintenance-{tag}"
            self._switch(closed(self._app, files.read(self._kept) or "", generation), generation, OPEN_SECONDS)

    def stop(self, paused: Paused) -> None:
        """Stop what ran, for good: after a power cut it stays down."""
        # The policy last, as deploys do: the engine refuses to change it in the moment in which a container dies.
        self._at_once([
            [["POST", f"/containers/{quote(one.name)}/stop?t={self._grace}", None, [404], self._grace + 60.0],
             ["POST", f"/containers/{quote(one.name)}/update", {"RestartPolicy": NEVER}, [404], 60.0]]
            for one in paused.containers
        ])  # fmt: skip

    def _at_once(self, sequences: Sequence[list[list[Any]]]) -> None:
        with ThreadPoolExecutor(max(1, len(sequences))) as pool:
            list(pool.map(self._engine.sequence, sequences))

    def start(self, paused: Paused, *, must: bool) -> None:
        """Start what ran and wait until it is healthy. Raises BackupError, or only says so unless it `must` be."""
        if not must:
            paused = replace(paused, containers=tuple(one for one in paused.containers if self._exists(one)))
        if not paused.containers:
            return
        self._at_once([[["POST", f"/containers/{quote(one.name)}/start", None, [304], 60.0]] for one in paused.containers])
        wanted = [self._wanted(one) for one in paused.containers]
        seen = waits.healthy(self._engine, wanted, [], self._patience if must else self._patience / 3, threading.Event())
        if not seen["ok"]:
            why = f"{seen['container']} ({seen['reason']}): {seen['last']}"
            if must:
                raise BackupError("the app does not get healthy with the restored data", why)
            self._report.warn(f"the app runs again and is not healthy: {why}")
        self._at_once([
            [["POST", f"/containers/{quote(one.name)}/update", {"RestartPolicy": dict(one.policy)}, [], 60.0]]
            for one in paused.containers
        ])  # fmt: skip

    def _exists(self, one: Writer) -> bool:
        """Tell whether a container is there still: a person may have removed it while it was stopped."""
        name = quote(json.dumps({"name": [f"^/{one.name}$"]}))
        there = self._engine.call("GET", f"/containers/json?all=1&filters={name}", 60.0)
        if not there:
            self._report.warn(f"the container {one.name} is gone: deploy again")
        return bool(there)

    def _wanted(self, one: Writer) -> dict[str, Any]:
        """Return how to tell that a container is well: by what its release's manifest says, else by staying up."""
        text = files.read(str(self._folder / "releases" / f"{one.release}.json"))
        if one.process != "web" or not text:
            return {"container": one.name, "steady": STEADY}
        known = json.loads(text)
        return {"container": one.name, "address": known["address"], "port": known["port"], "path": known["health_path"],
                "host": (known["domains"] or ["localhost"])[0], "successes": 3, "interval": 0.1}  # fmt: skip

    def open(self, paused: Paused) -> None:
        """Put the nginx file back that was live. Raises BackupError when nginx does not take it up."""
        if paused.generation:
            if os.path.exists(self._kept):
                files.keep(self._kept, self._staged)
                self._prove(paused.generation)
            self.clean()

    def clean(self) -> None:
        """Remove the nginx files that a pause leaves beside the live one, half-written ones included."""
        for path in (*glob(f"{escape(self._staged)}.*.new"), self._staged, f"{self._staged}.back", self._kept):
            files.remove(path)

    def _switch(self, text: str, generation: str, patience: float) -> None:
        files.write(self._staged, text, 0o644)
        old = self._prove(generation)
        gone = waits.workers_gone(self._engine, EDGE, old, patience, threading.Event())
        if not gone["ok"]:
            self._report.warn(f"connections through nginx were still open after {patience:.0f} s and may be cut")

    def _prove(self, generation: str) -> list[int]:
        host = f"{self._app}.status.tidegate.internal"
        check = {"address": "127.0.0.1", "port": STATUS_PORT, "host": host, "answer": generation, "successes": PROOFS}
        seen = waits.switch(self._engine, EDGE, self._staged, self._live, check, SWITCH_SECONDS)
        if not seen["ok"]:
            raise BackupError(f"nginx did not take up {generation}", f"it answers {seen['last']!r}", f"docker logs {EDGE}")
        return list(seen["old"])


def head(text: str) -> dict[str, Any]:
    """Return what an app's nginx file says of itself on its first line, empty when it is not ours."""
    first = text.partition("\n")[0]
    try:
        known = json.loads(first.removeprefix(MARK)) if first.startswith(MARK) else {}
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def idle(text: str) -> float:
    """Return for how many seconds an app's nginx file keeps idle connections when its workers are replaced."""
    found = re.search(r"keepalive_min_timeout (\d+)ms;", text)
    return int(found[1]) / 1000 if found else 0.0


def draining(text: str, generation: str) -> str:
    """Return an app's nginx file under another generation that keeps no connection alive."""
    known = head(text)
    text = text.replace(str(known["generation"]), generation)
    return re.sub(r"^( *)keepalive_min_timeout [^;]*;", r"\1keepalive_timeout 0;", text, flags=re.MULTILINE)


def closed(app: str, text: str, generation: str) -> str:
    """Return a file that answers 503 for the domains of an app's nginx file, over TLS where that does; it names its release."""
    known = head(text)
    tls = list(dict.fromkeys(re.findall(r"^\s*(ssl_\w+ [^;]*;)", text, flags=re.MULTILINE)))
    listen = "".join(f"    {line}\n" for line in (["listen 443 ssl;", "http2 on;", *tls] if tls else []))
    return f"""\
{MARK}{json.dumps({**known, "generation": generation})}
server {{
    listen 80;
{listen}    server_name {" ".join(known["domains"])};
    keepalive_timeout 0;
    default_type text/plain;
    add_header Retry-After {RETRY_AFTER} always;
    add_header Cache-Control no-store always;
    return 503 "Data is being restored. Please try again in a few seconds.\\n";
}}
server {{
    listen {STATUS_PORT};
    server_name {app}.status.tidegate.internal;
    default_type text/plain;
    return 200 "{generation}";
}}
"""
