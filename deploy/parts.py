"""The steps for one server, part by part, decided from what was observed there. Pure."""

from __future__ import annotations

import re

from deploy import steps
from deploy.addresses import free_address
from deploy.edge import EdgeFile, render
from deploy.model import WEB, Container, HealthSpec, HostState, ImageRef, Intent, Probe, ProcessSpec, Release, other_slot
from deploy.steps import Step
from ops.config import App, Environment, Process
from ops.names import LABEL_APP, LABEL_MANAGED, LABEL_METRICS, LABEL_PROCESS, LABEL_RELEASE, LABEL_SLOT, LABEL_VERSION

MIGRATE = "migrate"
PROBES = 5  # requests that must have been answered since the switch before the old release is stopped


def draft(env: Environment, intent: Intent, state: HostState, release: str) -> Release:
    """Return the manifest of the release as it will be on a server. Raises Refused when no address is free."""
    app = env.app
    address = free_address(state.subnet or "", _taken(state), app.name)
    generation = f"{release}-{intent.nonce}"
    edge = EdgeFile(app.name, release, generation, address, app.port, env.domains, app.edge.body_size,
                    app.edge.timeout, app.drain.idle, app.edge.gzip, intent.pem.name if intent.pem else None, intent.edge_extra, env.name,
                    app.metrics.path if app.metrics and not app.metrics.public else "")  # fmt: skip
    return Release(
        id=release, version=intent.image.version, slot=other_slot(state.serving_slot), image=intent.image.name,
        content=intent.image.content, config_hash=intent.config_hash, environment_hash=intent.environment_hash,
        port=app.port, address=address, processes=(WEB, *app.processes), edge_file=render(edge), generation=generation,
        created=intent.now.isoformat(timespec="milliseconds"), by=intent.by, previous=state.serving,
        domains=env.domains, health_path=app.health.path, https=env.tls is not None, environment=env.name,
        backup=_restore_point(intent, state), migration=" ".join(app.migrate.command) if app.migrate else "",
    )  # fmt: skip


def _taken(state: HostState) -> frozenset[str]:
    """Return addresses that somebody has, or to which nginx may still send requests meant for another release."""
    named = re.findall(r"server ([0-9.]+):", state.edge.content or "")
    return state.taken.union(named, (one.address for one in state.releases))


def container_name(app: str, release: str, process: str) -> str:
    """Return the name of a release's container; names of apps and processes have no `_`, so no two apps can collide."""
    return f"{app}_{process}_{release}"


def serves_already(intent: Intent, state: HostState) -> bool:
    """Tell whether a server serves exactly what is wanted, whatever else is there."""
    serving = state.release(state.serving)
    running = {one.process for one in state.of_release(state.serving) if one.running}
    return (
        serving is not None
        and (serving.version, serving.content) == (intent.image.version, intent.image.content)
        and (serving.config_hash, serving.environment_hash) == (intent.config_hash, intent.environment_hash)
        and state.edge.answering == serving.generation
        and serving.complete
        and running >= set(serving.processes)
    )


def strays(state: HostState, keep: str | None = None) -> tuple[Container, ...]:
    """Return containers that no finished deploy left: of releases that never served, and one-off ones."""
    known = {release.id for release in state.releases if release.complete} | {state.serving, state.answering, keep}
    spared = unexplained(state)
    return tuple(one for one in state.containers if (one.release not in known and one not in spared) or one.process == MIGRATE)


def unexplained(state: HostState) -> tuple[Container, ...]:
    """Return containers that one of the manifests that cannot be read may explain: a rollback may go to them once it is mended."""
    known = {release.id for release in state.releases}
    return tuple(one for one in state.containers if state.problems and one.release not in known and one.process != MIGRATE)


def clean_up(app: App, state: HostState, keep: str | None = None) -> tuple[Step, ...]:
    """Return to a state in which exactly one release runs and nginx's file says so."""
    found: list[Step] = []
    serving = state.release(state.serving)
    if state.edge.present and not state.edge.running:
        found.append(steps.StartEdge())
    if serving and serving.generation == state.edge.answering != state.edge.generation:
        found.append(steps.RestoreEdge(serving.edge_file, serving.generation,
                                       f"a deploy died while switching; {serving.id} answers"))  # fmt: skip
    if serving and not serving.complete:
        found.append(steps.CompleteRelease(serving.id, "a deploy died after switching to it"))
    if left := strays(state, keep):
        names = tuple(one.name for one in left)
        found.append(steps.RemoveContainers(names, "left by a deploy that never finished", app.drain.grace))
    halves = tuple(one.id for one in state.releases if not one.complete and one.id not in (state.serving, keep))
    if halves:
        found.append(steps.Prune("releases that never served", halves))
    idle = tuple(
        one.name for one in state.containers
        if one.running and one.release not in (state.serving, state.answering, keep) and one not in left
    )  # fmt: skip
    if idle and state.serving:
        found.append(steps.Stop(idle, app.drain.grace, "a deploy died before stopping them"))
    return tuple(found)


def ship(image: ImageRef, state: HostState) -> tuple[Step, ...]:
    """Bring the image unless the server has it, built from the same content."""
    if image.content and state.images.get(image.name) == image.content:
        return ()
    why = "pulled from its registry" if image.pull else "the server does not have it; only missing layers travel"
    return (steps.Ship(image, why),)


def process_specs(app: App, intent: Intent, release: Release) -> tuple[ProcessSpec, ...]:
    """Return the containers of a release: the web process first."""
    web = _spec(app, intent, release, WEB, app.command, release.address)
    return (web, *(_spec(app, intent, release, name, one.command, None) for name, one in app.processes.items()))


def back_up(state: HostState, release: Release) -> tuple[Step, ...]:
    """Save the data before anything can change it, unless there is none here or the person said not to."""
    return (steps.Backup(release.backup, release.id, first=not state.serving),) if release.backup else ()


def _restore_point(intent: Intent, state: HostState) -> str:
    """Return the id of the backup to take first; none where there is nothing to save."""
    wanted = state.data and any(one.present for one in state.data.sources) and not intent.skip_backup
    return f"{intent.now:%Y%m%dT%H%M%SZ}-{intent.nonce[:6]}" if wanted else ""


def migrate(app: App, intent: Intent, release: Release, *, first: bool) -> tuple[Step, ...]:
    """Run the migrations, once per deploy or on each server, as configured."""
    if app.migrate is None or (app.migrate.on == "first" and not first):
        return ()
    spec = _spec(app, intent, release, MIGRATE, app.migrate.command, None)
    return (steps.Migrate(spec, app.migrate.timeout),)


def start_new(app: App, intent: Intent, release: Release) -> tuple[Step, ...]:
    """Start the new release, and have nginx test its file while it boots."""
    why = f"{release.slot} is free" if release.previous else "nothing serves yet"
    return (steps.StartNew(process_specs(app, intent, release), why), steps.StageEdge(release.edge_file, intent.pem))


def wait_healthy(app: App, release: Release) -> tuple[Step, ...]:
    """Wait for all processes of a release."""
    web = HealthSpec(container_name(app.name, release.id, WEB), release.address, release.port, release.health_path,
                     release.domains[0], app.health.successes, app.health.interval)  # fmt: skip
    rest = (HealthSpec(container_name(app.name, release.id, name), steady=_steady(app, name)) for name in release.processes[1:])
    return (steps.WaitHealthy((web, *rest), app.health.timeout),)


def _steady(app: App, process: str) -> float:
    known = app.processes.get(process)
    return known.steady if known else Process.model_fields["steady"].default


def start_kept(app: App, state: HostState, release: Release) -> tuple[Step, ...]:
    """Start the kept containers of an earlier release; those of one that serves are only started where they have stopped."""
    running = {one.name for one in state.containers if one.running and state.serving == release.id}
    names = tuple(container_name(app.name, release.id, process) for process in release.processes)
    stopped = tuple(name for name in names if name not in running)
    start = (steps.StartKept(stopped, app.drain.grace, "kept for this"),) if stopped else ()
    return (*start, steps.StageEdge(release.edge_file))


def switch(app: App, state: HostState, release: Release) -> tuple[Step, ...]:
    """Point nginx at a release."""
    before = state.release(state.serving)
    back = (before.edge_file, before.generation) if before else (state.edge.content, state.edge.generation)
    why = f"{state.serving} serves" if state.serving else "nothing serves"
    return (steps.Switch(release.id, release.generation, *back, app.drain.connections, why),)


def verify(app: App, state: HostState, release: Release, probes: int) -> tuple[Step, ...]:
    """Check from outside that a release answers, let open requests finish, and judge what users saw meanwhile."""
    outside = steps.Verify(release, required=state.public)
    if not state.serving:
        return (outside,)
    return (outside, steps.AwaitOldWorkers(app.drain.connections), steps.JudgeProbes(app.prober.budget, probes))


def probe(state: HostState, release: Release) -> Probe | None:
    """Return what to ask during the deploy: an address that the old and the new release both answer, if there is one."""
    serving = state.release(state.serving)
    if not serving or not state.edge.running:
        return None
    shared = [domain for domain in serving.domains if domain in release.domains]
    same = (serving.health_path, serving.https) == (release.health_path, release.https)
    return Probe(shared[0], release.health_path, release.https) if shared and same else None


def drain(app: App, state: HostState, release: str) -> tuple[Step, ...]:
    """Mark the new release as served; stop the old one and keep it."""
    done: list[Step] = [steps.CompleteRelease(release)]
    left = strays(state, release)
    old = [one for one in state.containers if one.release != release and one not in left and _ends(state, one)]
    kept = tuple(one.name for one in old if state.problems or state.release(one.release) or not state.serving)
    if kept:
        done.append(steps.Stop(kept, app.drain.grace, "kept for a rollback"))
    if lost := tuple(one.name for one in old if one.name not in kept):
        done.append(steps.RemoveContainers(lost, "without a manifest no rollback can go to them", app.drain.grace))
    return tuple(done)


def _ends(state: HostState, one: Container) -> bool:
    """Tell whether a container is to end with the switch: what served, or all that runs where nobody knows what served."""
    return one.release in (state.serving, state.answering) or (one.running and not state.serving)


def prune(app: App, state: HostState, newest: Release | None) -> tuple[Step, ...]:
    """Remove releases beyond `keep_releases`, never what serves nor what a rollback would go to."""
    served = sorted((one for one in state.releases if one.complete), key=lambda one: one.created, reverse=True)
    serving = state.release(state.serving)
    before = next((one for one in served if serving and not newest and one.created < serving.created), None)
    wanted = [one for one in (newest, serving, before, *served) if one]
    kept = list(dict.fromkeys(one.id for one in wanted))[: app.keep_releases]
    gone = tuple(one for one in served if one.id not in kept)
    names = {one.id for one in gone}
    containers = tuple(one.name for one in state.containers if one.release in names)
    needed = [one for one in wanted if one.id in kept]
    images = tuple(name for name in state.images if name not in {one.image for one in needed})
    pems = _unused_pems(app, state, [state.edge.content or "", *(one.edge_file for one in needed)])
    if state.problems:
        images, pems = (), ()  # a manifest that cannot be read may need them
    if not (gone or images or pems):
        return ()
    why = f"keep_releases = {app.keep_releases}"
    return (steps.Prune(why, tuple(one.id for one in gone), containers, images, pems),)


def _unused_pems(app: App, state: HostState, used: list[str]) -> tuple[str, ...]:
    own = re.compile(rf"{re.escape(app.name)}-[0-9a-f]{{16}}\.pem")
    return tuple(name for name in state.pems if own.fullmatch(name) and not any(name in text for text in used))


def _spec(app: App, intent: Intent, release: Release, process: str, command: tuple[str, ...], address: str | None) -> ProcessSpec:
    labels = {LABEL_MANAGED: "true", LABEL_APP: app.name, LABEL_RELEASE: release.id, LABEL_SLOT: release.slot, LABEL_PROCESS: process,
              LABEL_VERSION: release.version}  # fmt: skip
    if app.metrics and process == WEB:
        labels[LABEL_METRICS] = f"{app.metrics.port or app.port}{app.metrics.path}"
    about = {"TIDEGATE_RELEASE": release.id, "TIDEGATE_SLOT": release.slot, "TIDEGATE_PROCESS": process}
    return ProcessSpec(
        name=container_name(app.name, release.id, process), process=process, image=release.image, command=command,
        environment={**intent.environment, **about}, labels=labels,
        volumes={f"{app.name}_{name}": path for name, path in app.volumes.items()},
        address=address, memory=app.memory, stop_seconds=app.drain.grace, healthcheck=process == WEB,
    )  # fmt: skip
