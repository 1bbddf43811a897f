"""Servers in memory that keep deploy.server.Server's contract, and can be made to fail or die at any point.

A `World` holds `Machine`s (what survives a killed operator) and hands out `FakeServer`s (connections to them). Every
effect on a machine is a tick: a fault can strike before any tick, and after each one it is noted what users would see.
What a fake server observes goes through deploy.observe.parse, as with a real one.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from deploy import data, observe
from deploy.apply import Run
from deploy.model import WEB, HealthSpec, HostState, ImageRef, Intent, Pem, Probe, ProbeReport, ProcessSpec, Release
from deploy.plan import Plan, plan_deploy, plan_prune, plan_rollback
from ops.config import App, Environment
from ops.errors import Failed, Locked, Refused, TidegateError, Unreachable
from ops.names import EDGE, LABEL_APP, LABEL_CONTENT, LABEL_RELEASE, NETWORK
from ops.secret import Secret

METHODS = TypeVar("METHODS", bound=Callable[..., Any])
DOMAIN = "blog.example.com"
SUBNET = "10.213.0.0/20"


class Killed(BaseException):
    """The operator's process is gone: nothing of it runs any more, no undo either."""


@dataclass(frozen=True)
class Tick:
    """One point in time: the number counts all ticks of a world."""

    number: int
    server: str
    method: str
    what: str


@dataclass
class Fault:
    """What goes wrong, when, and whether for good (for one server or, as with a kill, for all)."""

    strikes: Callable[[Tick], bool]
    error: Callable[[Tick], BaseException]
    lasting: bool = False
    everywhere: bool = False
    repeated: bool = False
    struck: Tick | None = None

    def check(self, tick: Tick) -> None:
        """Raise the error when it is time, and ever after for a lasting one."""
        if (self.struck is None or self.repeated) and self.strikes(tick):
            self.struck = tick
        elif self.struck is None or not self.lasting or (not self.everywhere and tick.server != self.struck.server):
            return
        raise self.error(tick)


def fails_at(number: int) -> Fault:
    """One operation fails at a tick."""
    return Fault(lambda tick: tick.number == number, lambda tick: Failed(f"{tick.method}: injected", where=tick.server))


def fails_in(method: str, nth: int = 1, server: str | None = None) -> Fault:
    """The nth call of a method fails before it does anything."""
    seen = iter(range(1, 10_000))
    return Fault(
        lambda tick: tick.what == "called" and tick.method == method and server in (None, tick.server) and next(seen) == nth,
        lambda tick: Failed(f"{tick.method}: injected", where=tick.server),
    )


def lost_at(number: int) -> Fault:
    """The connection of whichever server ticks then is lost for good."""
    return Fault(
        lambda tick: tick.number == number, lambda tick: Unreachable("the connection was lost", where=tick.server), lasting=True
    )


def killed_at(number: int) -> Fault:
    """The operator is killed."""
    return Fault(lambda tick: tick.number == number, lambda tick: Killed(), lasting=True, everywhere=True)


@dataclass
class Box:
    """A container."""

    spec: ProcessSpec
    state: str = "created"
    exit_code: int = 0

    @property
    def behaviour(self) -> str:
        """Return what the app inside was told to be, as tests/apps/server.py takes it."""
        return str(self.spec.environment.get("BEHAVIOUR", "healthy"))

    def to_engine(self) -> dict[str, Any]:
        """Return it as the engine's list shows it."""
        status = {"running": "Up 3 seconds", "exited": f"Exited ({self.exit_code}) 1 second ago", "created": "Created"}[
            self.state
        ]
        network = {"IPAMConfig": {"IPv4Address": self.spec.address} if self.spec.address else None, "IPAddress": ""}
        return {
            "Id": f"id-{self.spec.name}", "Names": [f"/{self.spec.name}"], "Labels": dict(self.spec.labels), "State": self.state,
            "Status": status, "ImageID": f"sha256:{self.spec.image}", "NetworkSettings": {"Networks": {NETWORK: network}},
        }  # fmt: skip


@dataclass
class Machine:
    """All that is on a server."""

    name: str
    app: str = "blog"
    boxes: dict[str, Box] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)
    bills: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    pulled: set[str] = field(default_factory=set)
    journal: list[str] = field(default_factory=list)
    figures: str = ""
    edge_files: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    staged: str | None = None
    pems: dict[str, Secret] = field(default_factory=dict)
    edge: str | None = "running"
    subnet: str | None = SUBNET
    attached: set[str] = field(default_factory=set)
    disk_free: int = 50 * 1024**3
    skew: float = 0.0
    api: str = "1.45"
    lock: Mapping[str, str] | None = None
    users_saw: list[str | None] = field(default_factory=list)
    failures_after_mark: int = 0
    public_works: bool = True
    workers_stay: bool = False
    hangs: bool = False
    nginx_is_slow: bool = False
    data: dict[str, Any] | None = None
    backups: dict[str, str] = field(default_factory=dict)

    @property
    def live(self) -> str | None:
        """Return the app's live nginx file."""
        return self.edge_files.get(f"{self.app}.conf")

    @property
    def answering(self) -> str | None:
        """Return the generation that nginx answers with."""
        return generation_of(self.loaded.get(f"{self.app}.conf")) if self.edge == "running" else None

    def serves(self) -> str | None:
        """Return the release that answers users' requests, None where they would get an error."""
        text = self.loaded.get(f"{self.app}.conf", "") if self.edge == "running" else ""
        found = re.search(r"upstream \S+ { server ([^:]+):", text)
        boxes = (box for box in self.boxes.values() if found and box.spec.address == found[1] and box.state == "running")
        return next((box.spec.labels[LABEL_RELEASE] for box in boxes), None)

    def running(self) -> set[str]:
        """Return the releases of which anything runs."""
        return {box.spec.labels[LABEL_RELEASE] for box in self.boxes.values() if box.state == "running"}

    def restart_edge(self) -> None:
        """Start nginx with what its files say."""
        self.edge, self.loaded = "running", dict(self.edge_files)

    def stop_edge(self) -> None:
        """Stop nginx."""
        self.edge, self.loaded = "exited", {}

    def records(self) -> list[dict[str, Any]]:
        """Return the journal's records."""
        return [json.loads(line) for line in self.journal]


def generation_of(text: str | None) -> str | None:
    """Return the generation with which nginx would answer on the status port, from the app's file."""
    found = re.search(r'listen 7809;[^}]*return 200 "([^"]*)"', text or "")
    return found[1] if found else None


class World:
    """Machines with one clock, one log of ticks, and faults."""

    def __init__(self, *names: str, app: str = "blog") -> None:
        self.app = app
        self.machines = {name: Machine(name, app) for name in names or ("one",)}
        self.ticks: list[Tick] = []
        self.fault: Fault | None = None
        self.guard = threading.RLock()
        self._hours = iter(range(100_000))

    @property
    def only(self) -> Machine:
        """Return the machine of a world of one."""
        (machine,) = self.machines.values()
        return machine

    def now(self) -> datetime:
        """Return a time later than all before."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=next(self._hours))

    def connect(self, fault: Fault | None = None) -> dict[str, FakeServer]:
        """Open connections as a new operator; locks of operators before are free, as the kernel sees to it."""
        self.fault, self.ticks = fault, []
        for machine in self.machines.values():
            machine.lock, machine.users_saw = None, [machine.serves()]
        return {name: FakeServer(machine, self) for name, machine in self.machines.items()}

    def tick(self, server: str, method: str, what: str) -> None:
        """Let a moment pass: faults strike here."""
        with self.guard:
            tick = Tick(len(self.ticks), server, method, what)
            if self.fault:
                self.fault.check(tick)
            self.ticks.append(tick)

    def calls(self, method: str | None = None) -> list[tuple[str, str]]:
        """Return (server, method) of the calls made, in their order over all servers."""
        made = [(tick.server, tick.method) for tick in self.ticks if tick.what == "called"]
        return [call for call in made if method in (None, call[1])]


def _call(method: METHODS) -> METHODS:
    @functools.wraps(method)
    def called(self: FakeServer, *arguments: Any, **named: Any) -> Any:
        self._method = method.__name__
        try:
            self.world.tick(self.name, method.__name__, "called")
            return method(self, *arguments, **named)
        except TidegateError as error:
            if isinstance(error, Unreachable) or not named.get("optional"):
                raise
        finally:
            with self.world.guard:
                self.machine.users_saw.append(self.machine.serves())

    return called  # type: ignore[return-value]


class FakeServer:
    """A connection to a machine; implements deploy.server.Server."""

    def __init__(self, machine: Machine, world: World) -> None:
        self.machine = machine
        self.world = world
        self.remarks: list[str] = []
        self._method = ""
        self._refused: Locked | None = None
        self._cancelled = threading.Event()
        self._probing = False
        self._holds = False

    @property
    def name(self) -> str:
        """Return how people know the server."""
        return self.machine.name

    def _effect(self, what: str) -> None:
        self.machine.users_saw.append(self.machine.serves())
        self.world.tick(self.name, self._method, what)

    def close(self) -> None:
        """End the connection: the lock is free."""
        if self._holds:
            self.machine.lock = None

    @_call
    def lock(self, holder: Mapping[str, str]) -> None:
        if self.machine.lock is not None:
            self._refused = Locked(f"another command is at work: {self.machine.lock['what']}", where=self.name)
        else:
            self.machine.lock, self._holds = dict(holder), True

    @_call
    def observe(self) -> HostState:
        if self._refused:
            raise self._refused
        machine, app = self.machine, self.machine.app
        edge = (
            [{"Names": [f"/{EDGE}"], "Labels": {}, "State": machine.edge, "NetworkSettings": {"Networks": {}}}]
            if machine.edge
            else []
        )
        network = {
            "IPAM": {"Config": [{"Subnet": machine.subnet}]},
            "Containers": {at: {"IPv4Address": f"{at}/20"} for at in machine.attached},
        }
        seen = {
            "engine": {
                "containers": [*edge, *(box.to_engine() for box in machine.boxes.values())],
                "network": network if machine.subnet else None,
                "images": [
                    {"RepoTags": [name], "Labels": {LABEL_APP: app, LABEL_CONTENT: known}}
                    for name, known in machine.images.items()
                ],
            },
            "releases": dict(machine.manifests),
            "pems": sorted(machine.pems),
            "journal": "".join(f"{line}\n" for line in machine.journal),
            "edge": dict(machine.edge_files),
            "answering": None if machine.nginx_is_slow else machine.answering,
            "edge_answers": machine.edge == "running" and not machine.nginx_is_slow,
            "disk": {"free": machine.disk_free, "total": 100 * 1024**3},
        }
        hello = {"skew": machine.skew, "engine": {"Version": "26", "ApiVersion": machine.api}}
        return replace(observe.parse(self.name, app, hello, seen), data=data.parse(machine.data) if machine.data else None)

    @_call
    def back_up(self, id: str, release: str, *, first: bool) -> None:
        assert self.machine.data is not None
        missing = [name for name, one in self.machine.data["sources"].items() if not one.get("present")]
        if missing and not first:
            raise Failed(f"{', '.join(missing)} cannot be saved", where=self.name)
        self._effect(f"backup {id}")
        self.machine.backups[id] = release
        schemas = {name: one.get("schema", "") for name, one in self.machine.data["sources"].items()}
        known = {"taken": self.machine.data["time"], "good": True, "schemas": schemas, "release": self.machine.serves() or ""}
        self.machine.data["backups"][id] = known

    @_call
    def cancel(self) -> None:
        self._cancelled.set()

    @_call
    def resume(self) -> None:
        self._cancelled.clear()

    def remark(self, text: str) -> None:
        self.remarks.append(f"{self.name}: {text}")

    @_call
    def journal(self, record: Mapping[str, Any], *, wait: bool = True, optional: bool = False) -> None:
        self.machine.journal.append(json.dumps({"time": "now", **record}))

    def tell_figures(self, text: str, *, wait: bool) -> None:
        try:
            self._figures_are(text)
        except TidegateError as error:
            self.remark(f"monitoring does not hear of this: {error.what}")

    @_call
    def _figures_are(self, text: str) -> None:
        self.machine.figures = text

    @_call
    def receive(self, image: ImageRef) -> None:
        self._effect("receive")
        if image.pull:
            self.machine.pulled.add(image.name)
        else:
            self.machine.images[image.name] = image.content

    @_call
    def run_once(self, spec: ProcessSpec, timeout: float) -> None:
        box = self._create(spec)
        try:
            self._effect("run")
            if box.behaviour == "migrate_fail":
                raise Failed(
                    f"`{' '.join(spec.command)}` failed with exit code 1",
                    where=self.name,
                    why="migration 7 failed: duplicate column",
                )
        finally:
            self._effect("remove")
            del self.machine.boxes[spec.name]

    def _create(self, spec: ProcessSpec) -> Box:
        self._effect(f"create {spec.name}")
        if spec.name in self.machine.boxes:
            raise Failed(f"cannot create {spec.name}", where=self.name, why="the name is taken")
        if spec.image not in {*self.machine.images, *self.machine.pulled}:
            raise Failed(f"cannot create {spec.name}", where=self.name, why="no such image")
        box = self.machine.boxes[spec.name] = Box(spec)
        return box

    def _start(self, name: str) -> None:
        self._effect(f"start {name}")
        box = self.machine.boxes.get(name)
        if box is None:
            raise Failed(f"cannot start {name}", where=self.name, why="no such container")
        taken = {other.spec.address for other in self.machine.boxes.values() if other is not box and other.state == "running"}
        if box.spec.address and box.spec.address in taken | self.machine.attached:
            raise Failed(f"cannot start {name}", where=self.name, why="address already in use")
        crashes = "crash" if box.spec.process == WEB else "worker_fail"
        box.state, box.exit_code = ("exited", 3) if box.behaviour == crashes else ("running", 0)

    @_call
    def start_new(self, specs: Sequence[ProcessSpec]) -> None:
        for spec in specs:
            self._create(spec)
            self._start(spec.name)

    @_call
    def start(self, containers: Sequence[str]) -> None:
        for name in containers:
            self._start(name)

    @_call
    def stop(self, containers: Sequence[str], seconds: float) -> None:
        for name in containers:
            self._effect(f"stop {name}")
            if (box := self.machine.boxes.get(name)) and box.state == "running":
                box.state = "exited"

    @_call
    def remove(self, containers: Sequence[str]) -> None:
        for name in containers:
            self._effect(f"remove {name}")
            self.machine.boxes.pop(name, None)

    @_call
    def wait_healthy(self, wanted: Sequence[HealthSpec], timeout: float) -> None:
        if self.machine.hangs and self._cancelled.wait(10):
            raise Failed("cancelled", where=self.name)
        for one in wanted:
            box = self.machine.boxes.get(one.container)
            if box is None:
                raise TidegateError(f"no such container: {one.container}", where=self.name)
            if box.state != "running":
                raise Failed(
                    f"{one.container} did not become healthy (died)", where=self.name, why="it crashed at start (exit code 3)"
                )
            if box.spec.process == WEB and (
                box.behaviour in ("unhealthy", "wrong_port") or (box.behaviour == "slow" and timeout < 3)
            ):
                raise Failed(f"{one.container} did not become healthy (timeout)", where=self.name, why="no answer")

    @_call
    def start_edge(self) -> None:
        self._effect("start")
        self.machine.restart_edge()

    @_call
    def write_pem(self, pem: Pem) -> None:
        self._effect("write")
        self.machine.pems[pem.name] = pem.content

    @_call
    def remove_pem(self, name: str) -> None:
        self._effect("remove")
        self.machine.pems.pop(name, None)

    @_call
    def stage_edge(self, content: str) -> None:
        self._effect("write")
        self.machine.staged = content
        self._effect("test")
        if self.machine.edge != "running":
            raise Failed("nginx does not run", where=self.name)
        if "no_such_directive" in content or content.count("{") != content.count("}"):
            raise Failed("nginx refuses the new file", where=self.name, why='unknown directive "no_such_directive"')

    @_call
    def restore_edge(self, content: str, generation: str) -> float:
        self._effect("write")
        self.machine.staged = content
        return self.switch_edge(generation)

    @_call
    def unstage_edge(self) -> None:
        self._effect("remove")
        self.machine.staged = None

    @_call
    def switch_edge(self, generation: str | None) -> float:
        machine, file = self.machine, f"{self.machine.app}.conf"
        self._effect("rename")
        if generation is None:
            machine.edge_files.pop(file, None)
        elif machine.staged is None:
            raise Failed("no such file", where=self.name)
        else:
            machine.edge_files[file], machine.staged = machine.staged, None
        self._effect("reload")
        if machine.edge != "running":
            raise Failed("nginx does not run", where=self.name)
        machine.loaded = dict(machine.edge_files)
        if machine.answering != generation:
            raise Failed(f"nginx did not take up {generation}", where=self.name, why=f"it answers: {machine.answering}")
        return 0.02

    @_call
    def wait_old_workers(self, timeout: float) -> bool:
        if self.machine.workers_stay:
            self.remark("connections were still open")
        return not self.machine.workers_stay

    @_call
    def write_release(self, release: Release, bill: str = "") -> None:
        self._effect("write")
        self.machine.manifests[f"{release.id}.staged"] = release.to_json()
        if bill:
            self._effect("write")
            self.machine.bills[release.id] = bill

    @_call
    def complete_release(self, id: str) -> None:
        self._effect("rename")
        if f"{id}.staged" in self.machine.manifests:
            self.machine.manifests[f"{id}.json"] = self.machine.manifests.pop(f"{id}.staged")
        elif f"{id}.json" not in self.machine.manifests:
            raise Failed(f"no manifest of {id}", where=self.name)

    @_call
    def remove_release(self, id: str) -> None:
        self._effect("remove")
        self.machine.bills.pop(id, None)
        for suffix in ("staged", "json"):
            self._effect("remove")
            self.machine.manifests.pop(f"{id}.{suffix}", None)

    @_call
    def remove_image(self, name: str) -> None:
        self._effect("remove")
        if any(box.spec.image == name for box in self.machine.boxes.values()):
            self.remark(f"{name} is kept: a container uses it")
        else:
            self.machine.images.pop(name, None)

    @_call
    def probe(self, probe: Probe, interval: float) -> None:
        self._probing = True

    @_call
    def probe_mark(self) -> None:
        pass

    @_call
    def probe_report(self, *, stop: bool, minimum: int = 0) -> ProbeReport | None:
        failures = self.machine.failures_after_mark
        return (
            ProbeReport(100, failures, 0.001, 0.002, failures, 50, {"HTTP 502": failures}) if self._probing or failures else None
        )

    @_call
    def verify_public(self, release: Release) -> str:
        if not self.machine.public_works or (self.machine.answering, self.machine.serves()) != (release.generation, release.id):
            raise Failed(f"http://{DOMAIN} does not answer with {release.id}", where=self.name)
        return f"http://{DOMAIN}"


class Quiet:
    """A reporter that only remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, name: str) -> None:
        self.said.append(f"phase {name}")

    def phase_done(self, name: str, seconds: float) -> None:
        self.said.append(f"done {name}")

    def step(self, server: str, title: str) -> None:
        self.said.append(f"{server}: {title}")

    def note(self, text: str) -> None:
        self.said.append(text)


def environment(*hosts: str, domains: tuple[str, ...] = (DOMAIN,), **app: Any) -> Environment:
    """Return an environment of the app blog."""
    return Environment(
        name="production",
        app=App.model_validate({"name": "blog", "port": 3000, **app}),
        hosts=tuple(hosts or ("one",)),  # type: ignore[arg-type]  # text is one of the forms that are taken
        domains=domains,
    )


def intent(version: str, now: datetime, *, content: str | None = None, config: str = "config-1", values: Mapping[str, str] | None = None,
           force: bool = False, skip_backup: bool = False, pull: bool = False, size: int = 0, extra: str = "", pem: Pem | None = None, bill: str = "") -> Intent:  # fmt: skip
    """Return what is wanted: a version, built from content that its name implies."""
    image = ImageRef(f"tidegate/blog:{version}", version, "" if pull else content or f"content-of-{version}", size, pull)
    known = dict(values or {})
    return Intent(image=image, environment=known, config_hash=config, environment_hash=json.dumps(known), edge_extra=extra, pem=pem,
                  nonce=f"{now:%y%m%d%H}", now=now, by="ann@desk", force=force, skip_backup=skip_backup, bill=bill)  # fmt: skip


def look(servers: Mapping[str, FakeServer]) -> tuple[HostState, ...]:
    """Lock and observe."""
    for server in servers.values():
        server.lock({"what": "a deploy", "who": "ann", "since": "now"})
    return tuple(server.observe() for server in servers.values())


def carry_out(plan: Plan, servers: Mapping[str, FakeServer], operation: str = "operation") -> Run:
    """Do what deploy.release does with a plan, without prober and output."""
    if plan.refusals:
        raise Refused("refused", why=" ".join(plan.refusals))
    run = Run(plan, servers, operation, Quiet())
    if not plan.unchanged:
        head = {"operation": operation, "kind": plan.kind, "release": plan.release, "by": "ann"}
        for server in servers.values():
            server.journal({"event": "begin", **head})
        try:
            run.apply()
        finally:
            for server in servers.values():
                try:
                    server.journal({"event": "end", **head})
                except TidegateError:
                    server.remark("the journal has no end")
    return run


def deploy(world: World, env: Environment, version: str, *, fault: Fault | None = None, **wanted: Any) -> Plan:
    """Deploy a version as a new operator; returns the plan."""
    servers = world.connect()
    plan = plan_deploy(env, intent(version, world.now(), **wanted), look(servers))
    world.fault, world.ticks = fault, []
    carry_out(plan, servers, f"deploy {version}")
    return plan


def rollback(world: World, env: Environment, to: str | None = None, *, fault: Fault | None = None) -> Plan:
    """Roll back as a new operator; returns the plan."""
    servers = world.connect()
    plan = plan_rollback(env, look(servers), to)
    world.fault, world.ticks = fault, []
    carry_out(plan, servers, "rollback")
    return plan


def prune(world: World, env: Environment) -> Plan:
    """Prune as a new operator; returns the plan."""
    servers = world.connect()
    plan = plan_prune(env, look(servers))
    carry_out(plan, servers, "prune")
    return plan


def states(world: World) -> tuple[HostState, ...]:
    """Observe without changing anything."""
    return look(world.connect())


def shape(plan: Plan, server: str = "one") -> list[str]:
    """Return a plan's steps on a server as `phase: Step title`."""
    return [f"{phase.name}: {type(step).__name__} {step.title}" for phase in plan.phases for step in phase.steps[server]]
