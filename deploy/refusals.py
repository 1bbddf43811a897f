"""What speaks against a deploy, told before anything is changed. Pure."""

from __future__ import annotations

from deploy.model import HostState, ImageRef, Intent
from ops.config import Environment

OLDEST_API = (1, 41)
DISK_RESERVE = 512 * 1024**2
CLOCK_WARNING, CLOCK_REFUSAL = 5.0, 300.0
BOOTSTRAP = "run inv server.bootstrap"


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
    found = [f"{state.host}: {problem}" for state in states for problem in state.problems]
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
    if len({state.serving for state in states}) > 1:
        found.append("the servers do not serve the same release now; after this they will")
    return tuple(found)
