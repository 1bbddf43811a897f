"""A real server: the agent for files, waits and nginx, the engine's API for containers and images."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from deploy import containers, data, edge, figures, observe, public
from deploy.diagnosis import likely_cause
from deploy.model import HealthSpec, HostState, ImageRef, Pem, Probe, ProbeReport, ProcessSpec, Release
from deploy.server import Backups
from deploy.ship import Progress, Shipper, follow, pipe_whole
from ops.config import Environment
from ops.errors import Failed, Refused, TidegateError
from ops.link import AgentError, Link, require_engine
from ops.names import EDGE, EDGE_HOME, HOME

if TYPE_CHECKING:
    from docker import APIClient

SWITCH_SECONDS = 15.0
PROOFS = 10
LOG_LINES = 30


class DockerServer:
    """One server of an environment over its connection; implements deploy.server.Server."""

    def __init__(
        self, env: Environment, link: Link, shipper: Shipper | None, progress: Progress, backups: Backups | None = None,
        *, looks_only: bool = False,
    ) -> None:  # fmt: skip
        self._env = env
        self._app = env.app.name
        self._link = link
        self._shipper = shipper
        self._progress = progress
        self._backups = backups
        self._looks_only = looks_only
        self._others: tuple[str, ...] = ()
        self._stopped = threading.Event()
        self._old_workers: list[int] = []
        self._client: APIClient | None = None
        self._locked: Future[Any] | None = None
        self.remarks: list[str] = []

    @property
    def name(self) -> str:
        """Return how people know the server."""
        return self._link.name

    @property
    def engine(self) -> APIClient:
        """Return the server's engine."""
        if self._client is None:
            from ops import engine as sdk  # the SDK takes 0.2 s to load, which a rollback does not need

            hello = require_engine(self._link)
            self._client = sdk.connect(self._link.socket, min(hello["engine"]["ApiVersion"], "1.47", key=_version))
        return self._client

    def cancel(self) -> None:
        """Let every wait on the server, and every transfer to it, end now."""
        self._stopped.set()
        self._link.post("cancel")

    def resume(self) -> None:
        """Allow waits and transfers again, and what is asked for after something posted has failed."""
        self._stopped.clear()
        self._link.post("resume")

    def remark(self, text: str) -> None:
        """Keep a remark for the summary."""
        self.remarks.append(f"{self.name}: {text}")

    def lock(self, holder: Mapping[str, str]) -> None:
        """Ask for the app's lock, held until the connection ends; `observe` raises Locked if it was not to be had."""
        self._locked = self._link.send("lock", path=f"{observe.app_home(self._app)}/lock", holder=dict(holder))

    def observe(self) -> HostState:
        """Look at containers, nginx, releases and the journal, after the lock. Raises Locked, Refused, Unreachable."""
        look = self._link.send("look", **observe.question(self._app, self._env.app.image))
        hello = require_engine(self._link)
        if self._locked:
            self._hold(self._locked)
        told = self._backups.look(self._link, install=not self._looks_only) if self._backups else None
        seen = look.result()
        self._others = tuple(seen["edge"])
        return replace(observe.parse(self.name, self._app, hello, seen), data=data.parse(told) if told else None)

    def _hold(self, locked: Future[Any]) -> None:
        try:
            locked.result()
        except AgentError as error:
            raise Refused(f"cannot take the lock under {HOME}", where=self.name, why=error.what,
                          fix=f"inv server.bootstrap -e {self._env.name}") from None  # fmt: skip

    def journal(self, record: Mapping[str, Any], *, wait: bool = True, optional: bool = False) -> None:
        """Append a record durably, before anything asked for later; without `wait`, trouble shows at the next call."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": stamp, **record})
        append = partial(self._call, "write the journal") if wait else partial(self._link.post, optional=optional)
        append("append", path=f"{observe.app_home(self._app)}/journal.jsonl", lines=[line])

    def tell_figures(self, text: str, *, wait: bool) -> None:
        """Put what a deploy tells of itself where monitoring reads it; trouble is a remark at most."""
        what = {"path": figures.path(self._app), "text": text, "mode": 0o644}
        if not wait:
            self._link.post("write", optional=True, **what)
            return
        try:
            self._link.call("write", **what)
        except TidegateError as error:
            self.remark(f"monitoring does not hear of this: {error.what}; inv monitoring.up -e {self._env.name} mends it")

    def back_up(self, id: str, release: str, *, first: bool) -> None:
        """Take a proven backup before a release; with `first`, sources need not be there yet. Raises Failed, Refused."""
        assert self._backups, "only data that was looked at is backed up"
        self._backups.take(self._link, id, release, first=first)

    def receive(self, image: ImageRef) -> None:
        """Have the image completely, transferring only what is missing."""
        if image.pull:
            name, _, version = image.name.rpartition("@" if "@" in image.name else ":")
            self._pull(name, version)
        elif not self._pull_from_us(image.name):
            pipe_whole(image.name, self._link.socket, where=self.name, stop=self._stopped)

    def _pull(self, name: str, reference: str) -> None:
        from requests.exceptions import RequestException

        from ops.engine import EngineError

        try:
            lines = self.engine.pull(name, reference, stream=True, decode=True)
            follow(lines, self._progress, where=self.name, stop=self._stopped)
        except (EngineError, RequestException) as error:
            raise Failed(f"the engine could not pull {name}", where=self.name, why=str(error),
                         fix="check that the version exists and that its registry can be reached from there") from None  # fmt: skip

    def _pull_from_us(self, image: str) -> bool:
        """Have the engine pull from our registry, by digest; tells whether that worked."""
        if self._shipper is None or (offer := self._shipper.offer(image)) is None:
            return False
        try:
            there = f"localhost:{self._link.callback_port()}/{offer.path}"
            self._pull(there, offer.digest)
        except (TimeoutError, Failed) as error:
            if self._stopped.is_set():
                raise
            self.remark(f"the whole image had to be piped, its layers could not be pulled: {error}")
            return False
        self._ask(f"name {image}", containers.rename_image(f"{there}@{offer.digest}", image))
        return True

    def _ask(self, what: str, *sequences: list[containers.Call]) -> None:
        """Make the engine carry out sequences of calls, at once. Raises Failed with the engine's words."""
        self._call(what, "engine", sequences=list(sequences))

    def _call(self, what: str, op: str, **arguments: Any) -> Any:
        """Carry out an operation. Raises Failed, also when something that was only posted before it failed."""
        try:
            return self._link.call(op, **arguments)
        except AgentError as error:
            raise Failed(
                f"cannot {what}", where=self.name, why=error.what, fix="look at the server, then run this again"
            ) from None

    def run_once(self, spec: ProcessSpec, timeout: float) -> None:
        """Run a container to its end and remove it. Raises Failed with its output."""
        begin = [containers.create(spec), containers.start(spec.name)]
        stop, last = containers.stop(spec.name, spec.stop_seconds), [containers.remove(spec.name)]
        end = self._call(f"run {spec.name}", "run", begin=begin, stop=stop, end=last, container=spec.name, timeout=timeout)
        if end.get("code") != 0:
            how = f"failed with exit code {end['code']}" if "code" in end else f"did not end: {end['reason']}"
            raise Failed(f"`{' '.join(spec.command)}` {how}", where=self.name, why=end["said"] or "it said nothing",
                         fix="mend it and deploy again")  # fmt: skip

    def start_new(self, specs: Sequence[ProcessSpec]) -> None:
        """Create and start containers, at once."""
        names = ", ".join(spec.name for spec in specs)
        self._ask(f"start {names}", *([containers.create(spec), containers.start(spec.name)] for spec in specs))

    def start(self, names: Sequence[str]) -> None:
        """Start kept containers."""
        self._ask(f"start {', '.join(names)}", *([containers.start(name)] for name in names))

    def stop(self, names: Sequence[str], seconds: float) -> None:
        """Send SIGTERM, and SIGKILL after `seconds`; those already stopped are fine."""
        self._ask(f"stop {', '.join(names)}", *(containers.stop(name, seconds) for name in names))

    def remove(self, names: Sequence[str]) -> None:
        """Remove containers; those already gone are fine."""
        self._ask(f"remove {', '.join(names)}", *([containers.remove(name)] for name in names))

    def wait_healthy(self, wanted: Sequence[HealthSpec], timeout: float) -> None:
        """Wait until all are healthy. Raises Failed with the last logs, the health output and the likely cause."""
        then = [containers.keep_up(one.container) for one in wanted]
        seen = self._call("wait for health", "healthy", wanted=[one.to_wire() for one in wanted], then=then, timeout=timeout)
        if seen["ok"]:
            return
        name = seen["container"]
        port = next(one.port for one in wanted if one.container == name)
        listening = self._call("look inside", "listening", container=name) if seen["reason"] == "timeout" else []
        cause = likely_cause(seen["reason"], seen["last"], port, listening)
        logs = self._logs(name)
        raise Failed(f"{name} did not become healthy ({seen['reason']})", where=self.name,
                     why=cause + (f"\n  its last words:\n{_indent(logs)}" if logs else "\n  it said nothing"),
                     fix="mend it and deploy again")  # fmt: skip

    def _logs(self, name: str) -> str:
        return str(self._call(f"read the logs of {name}", "logs", container=name, lines=LOG_LINES))

    def start_edge(self) -> None:
        """Start a stopped edge nginx."""
        self._ask("start the edge nginx", [containers.start(EDGE)])

    def write_pem(self, pem: Pem) -> None:
        """Put a certificate with its key where nginx reads it."""
        self._link.post("write", path=f"{EDGE_HOME}/tls/{pem.name}", text=pem.content.reveal(), mode=0o600)

    def remove_pem(self, name: str) -> None:
        """Remove a certificate with its key."""
        self._link.post("remove", optional=True, path=f"{EDGE_HOME}/tls/{name}")

    def stage_edge(self, content: str) -> None:
        """Write the app's next nginx file beside the live one and have nginx test it. Raises Failed with its words."""
        test = f"{EDGE_HOME}/staged/{self._app}.test"
        self._link.post("write", path=self._staged, text=content, mode=0o644)
        self._link.post("write", path=test, text=edge.test_file(self._app, self._others), mode=0o644)
        command = ["nginx", "-t", "-q", "-c", f"{edge.MOUNT}/staged/{self._app}.test"]
        code, words = self._call("test the nginx file", "execute", container=EDGE, command=command, timeout=30.0)
        self._link.post("remove", optional=True, path=test)
        if code:
            raise Failed("nginx refuses the new file", where=self.name, why=words, fix="mend app.edge in ops.toml")

    @property
    def _staged(self) -> str:
        return f"{EDGE_HOME}/staged/{self._app}.conf"

    @property
    def _back(self) -> str:
        return f"{self._staged}.back"

    def restore_edge(self, content: str, generation: str) -> float:
        """Make nginx's earlier file live again, even on a full disk; returns seconds. Raises Failed."""
        self._link.post("restage", copy=self._back, staged=self._staged, text=content)
        return self.switch_edge(generation)

    def unstage_edge(self) -> None:
        """Remove the staged file if there is one."""
        for left in (f"{EDGE_HOME}/staged/{self._app}.test", self._staged, self._back):
            self._link.post("remove", optional=True, path=left)

    def switch_edge(self, generation: str | None) -> float:
        """Make the staged file live (None: remove the live one), reload, prove it; returns seconds. Raises Failed."""
        check = {**observe.status_check(self._app), "answer": generation or "", "successes": PROOFS}
        seen = self._call("switch", "switch", edge=EDGE, staged=self._staged if generation else "",
                               live=f"{EDGE_HOME}/apps/{self._app}.conf", check=check, timeout=SWITCH_SECONDS)  # fmt: skip
        self._old_workers = seen["old"]
        if not seen["ok"]:
            raise Failed(f"nginx did not take up {generation}", where=self.name,
                         why=f"it answers: {seen['last']}\n{_indent(self._logs(EDGE))}")  # fmt: skip
        return float(seen["seconds"])

    def wait_old_workers(self, timeout: float) -> bool:
        """Wait until nginx workers from before the last switch have ended; returns whether they did."""
        seen = self._call("wait for nginx", "workers_gone", edge=EDGE, old=self._old_workers, timeout=timeout)
        if not seen["ok"]:
            self.remark(f"connections were still open after {timeout:.0f} s (drain.connections); they end with the old release")
        return bool(seen["ok"])

    def _manifest(self, id: str, suffix: str) -> str:
        return f"{observe.app_home(self._app)}/releases/{id}.{suffix}"

    def _bill(self, id: str) -> str:
        """Return where a bill of materials is: not among the manifests, which are all JSON files of their folder."""
        return f"{observe.app_home(self._app)}/bills/{id}.cdx.json"

    def write_release(self, release: Release, bill: str = "") -> None:
        """Write a manifest, marked as not yet complete, and the bill of materials of its image, if there is one."""
        self._link.post("write", path=self._manifest(release.id, "staged"), text=release.to_json())
        if bill:
            self._link.post("write", path=self._bill(release.id), text=bill)

    def complete_release(self, id: str) -> None:
        """Mark a release as one that has served; completed ones are left as they are."""
        self._link.post("remove", optional=True, path=self._back)
        self._link.post("settle", source=self._manifest(id, "staged"), target=self._manifest(id, "json"))

    def remove_release(self, id: str) -> None:
        """Remove a manifest, complete or not, and the bill of materials before it."""
        self._link.post("remove", path=self._bill(id))
        self._link.post("remove", path=self._manifest(id, "staged"))
        self._link.post("remove", path=self._manifest(id, "json"))

    def remove_image(self, name: str) -> None:
        """Remove an image's name; one that is gone or in use is left."""
        self._link.post("engine", optional=True, sequences=[[containers.remove_image(name)]])

    def probe(self, probe: Probe, interval: float) -> None:
        """Start sending requests through the edge."""
        port = 443 if probe.https else 80
        self._link.post(
            "probe", optional=True, address="127.0.0.1", port=port, host=probe.domain, path=probe.path, interval=interval
        )

    def probe_mark(self) -> None:
        """Count failures from here on separately."""
        self._link.post("probe_mark", optional=True)

    def probe_report(self, *, stop: bool, minimum: int = 0) -> ProbeReport | None:
        """Return what the prober saw, once it has seen so many requests since the mark; None when it was never started."""
        seen = self._call("ask the prober", "probe_report", stop=stop, minimum=minimum)
        return probe_report(seen) if seen else None

    def verify_public(self, release: Release) -> str:
        """Ask through the public address whether the release answers; returns what was asked. Raises Failed."""
        return public.verify(self._link.host, release)


def probe_report(seen: Mapping[str, Any]) -> ProbeReport:
    """Take from a load's report what a deploy tells of it."""
    return ProbeReport(
        requests=seen["requests"], failures=seen["failures"], p50=seen["p50"], p99=seen["p99"], reasons=seen["reasons"],
        after_mark=seen["failures_since_mark"], requests_after_mark=seen["requests_since_mark"],
    )  # fmt: skip


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
