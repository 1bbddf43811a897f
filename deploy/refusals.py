"""What speaks against a deploy, told before anything is changed. Pure."""

from __future__ import annotations

from datetime import timedelta

from deploy.model import HostState, ImageRef, Intent, Release
from deploy.parts import unexplained
from ops.config import Environment
from ops.names import EDGE, EDGE_HOME, HOME

OLDEST_API = (1, 41)
DISK_RESERVE = 512 * 1024**2
SRV_RESERVE = 64 * 1024**2
CLOCK_WARNING, CLOCK_REFUSAL = 5.0, 300.0
BOOTSTRAP = "run inv server.bootstrap"


def unsafe(env: Environment, state: HostState) -> tuple[str, ...]:
    """Refuse whatever is wanted of a server where the app is another environment's, or where nobody can tell what serves."""
    app, host = env.app.name, state.host
    others = ", ".join(sorted(state.environments - {env.name}))
    found = []
    if others:
        own = f"give this one its own app.name in [environments.{env.name}.app]"
        found.append(f"{host}: {app} serves there for environment {others}: {own}")
    if state.edge.content is not None and state.edge.generation is None:
        found.append(
            f"{host}: {EDGE_HOME}/apps/{app}.conf was not written by Tidegate: move it away, or give the app another name"
        )
    if state.restoring:
        found.append(f"{host}: a restore of its data never finished: inv backup.restore-undo -e {env.name}")
    if state.edge.running and state.edge.content is not None and not state.edge.answers:
        found.append(f"{host}: the edge nginx runs but does not answer: look at `docker logs {EDGE}`, or inv server.bootstrap")
    return tuple(found)


def volume_refusals(env: Environment, image: ImageRef) -> tuple[str, ...]:
    """Refuse an image with a volume of its own that nothing is mounted on: every release would get it anew, and empty."""
    mounted = {path.rstrip("/") for path in env.app.volumes.values()}
    return tuple(
        f"{image.name}: it declares the volume {path}, which would be new and empty in every release: "
        f'add a name for it to app.volumes in ops.toml: NAME = "{path}"'
        for path in image.volumes if path.rstrip("/") not in mounted
    )  # fmt: skip


def edge_refusals(state: HostState) -> tuple[str, ...]:
    """Refuse a server without the edge."""
    if not state.subnet:
        return (f"{state.host}: the network of the edge is missing: {BOOTSTRAP}",)
    return () if state.edge.present else (f"{state.host}: the edge nginx is missing: {BOOTSTRAP}",)


def refusals(env: Environment, state: HostState, image: ImageRef) -> tuple[str, ...]:
    """Return all reasons not to deploy to a server."""
    found = list(edge_refusals(state))
    api = tuple(int(part) for part in state.api.split(".")) if state.api else (0, 0)
    if api < OLDEST_API:
        found.append(f"{state.host}: engine API {state.api or 'unknown'} is older than 1.41: upgrade the engine")
    needed = DISK_RESERVE + (0 if image.name in state.images else 2 * image.size)
    if state.disk_free < needed:
        free, wanted = state.disk_free // 1024**2, needed // 1024**2
        found.append(f"{state.host}: {free} MB of disk are free, {wanted} MB are needed: inv deploy.prune, or a bigger disk")
    if state.srv_free < SRV_RESERVE:
        found.append(f"{state.host}: {state.srv_free // 1024**2} MB are free under {HOME}: make room there")
    if image.content and state.images.get(image.name, image.content) != image.content:
        found.append(f"{state.host}: {image.name} is there but was built from other content: choose another --version")
    if abs(state.clock_skew) > CLOCK_REFUSAL:
        found.append(f"{state.host}: its clock is off by {state.clock_skew:+.0f} s: set up time synchronisation there")
    for domain in env.domains:
        owner = state.edge.claims.get(domain, env.app.name)
        if owner != env.app.name:
            found.append(f"{state.host}: {domain} belongs to the app {owner} there: choose another domain")
    return tuple(found)


def notes(env: Environment, intent: Intent, states: tuple[HostState, ...]) -> tuple[str, ...]:
    """Return what a person should know though it stops nothing."""
    found = list(damages(states))
    for state in states:
        serving = state.release(state.serving)
        if abs(state.clock_skew) > CLOCK_WARNING:
            found.append(f"{state.host}: its clock is off by {state.clock_skew:+.1f} s")
        if state.unfinished:
            found.append(f"{state.host}: {state.unfinished} never finished; what it left is cleaned up first")
        if state.serving and not any(one.running for one in state.of_release(state.serving)):
            found.append(f"{state.host}: {state.serving} should serve but does not run")
        if serving and serving.config_hash != intent.config_hash:
            found.append(f"{state.host}: the configuration has changed since {serving.id}")
        if serving and serving.environment_hash != intent.environment_hash:
            found.append(f"{state.host}: the environment has changed since {serving.id}")
        found += _about_data(env, intent, state)
    if len({state.serving for state in states}) > 1:
        found.append("the servers do not serve the same release now; after this they will")
    return tuple(found)


def data_refusals(env: Environment, intent: Intent, state: HostState) -> tuple[str, ...]:
    """Refuse to touch data that cannot be saved first."""
    if state.data is None or intent.skip_backup:
        return ()
    absent = "" if state.serving is None else "it is not there"  # before the first deploy there may be nothing to save
    problems = {one.name: one.error or ("" if one.present else absent) for one in state.data.sources}
    return tuple(
        f"{state.host}: {name} cannot be backed up: {why}; mend that, or deploy with --skip-backup"
        for name, why in problems.items() if why
    )  # fmt: skip


def data_notes(env: Environment, state: HostState, target: Release) -> tuple[str, ...]:
    """Say what going back to a release means for the data: whether the schema moved since, and which backup is that release's."""
    if env.app.backup is None or state.serving in (None, target.id):
        return ()
    if state.data is None:
        return (f"{state.host}: nothing is known of its data: our backup program is not there, or cannot run as root",)
    later = [one for one in state.releases if one.complete and one.created > target.created]
    if not later:  # it goes forward again
        return ()
    saved = (state.data.backups.get(one.backup) for one in later)
    # Of one that served more than once, as after a rollback, what it left the last time.
    point = max((one for one in saved if one and one.release == target.id), key=lambda one: (one.taken, one.id), default=None)
    if point is None:
        if not state.data.sources:
            return ()
        return (f"{state.host}: no backup of the data as {target.id} left it: whether the schema moved since is not known",)
    moved = ", ".join(state.data.moved_since(point))
    schema = (
        f"the schema of {moved} has moved since {target.id} served"
        if moved
        else f"the schema has not moved since {target.id} served"
    )
    back = f"backup {point.id} has the data as {target.id} left it; restoring it too would lose the last {_span(state.data.age(point))}"
    return (f"{state.host}: {schema}; the rollback leaves the data as it is; {back}",)


def _span(length: timedelta) -> str:
    """Return a length of time in words: "3 d 2 h", "5 h 10 min", "12 s"."""
    seconds = max(0, int(length.total_seconds()))
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    told = [f"{number} {unit}" for number, unit in units if number]
    return " ".join(told[:2]) or "0 s"


def _about_data(env: Environment, intent: Intent, state: HostState) -> list[str]:
    if state.data is None:
        return (
            [f"{state.host}: nothing is known of its data yet: our backup program is not there, or cannot run as root"]
            if env.app.backup
            else []
        )
    shared = [one.name for one in state.data.sources if one.journal and one.journal != "wal"]
    found = [
        f"{state.host}: {name} is not in WAL mode, so old and new containers will block each other (docs/services.md)"
        for name in shared
    ]
    if intent.skip_backup:
        found.append(f"{state.host}: no backup is taken before this")
    return found


def damages(states: tuple[HostState, ...]) -> tuple[str, ...]:
    """Return which manifests cannot be read, and which containers stay since one of them may explain them."""
    found = [f"{state.host}: {problem}" for state in states for problem in state.problems]
    kept = {state.host: [one.name for one in unexplained(state) if one.release != state.serving] for state in states}
    told = (f"{host}: kept until that manifest is mended or removed: {', '.join(names)}" for host, names in kept.items() if names)
    return (*found, *told)
