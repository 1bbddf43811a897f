"""What is asked of a server's engine about containers, as calls of its API. Pure.

A call is [method, path, body, statuses that are fine besides success, seconds]; a sequence of them ends at a call that
answered with such a status. Docker Engine API 1.41 and newer.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from deploy.model import ProcessSpec
from ops.durations import size_bytes
from ops.names import NETWORK
from ops.secret import Secret

Call = list[Any]

# Not `unless-stopped`: after the engine was killed it takes its containers for stopped by hand and leaves them down
# (measured, engine 26). So what is healthy gets `always`, and is set to `no` once it is stopped to be kept.
ALWAYS, NEVER = {"Name": "always"}, {"Name": "no"}
MISSING, IN_USE, NOT_MODIFIED = 404, 409, 304
PATIENCE = 60.0


def create(spec: ProcessSpec) -> Call:
    """Create a container, not to be restarted: what crashes at start must stay down with its exit code."""
    endpoint = {"IPAMConfig": {"IPv4Address": spec.address}} if spec.address else {}
    body = {
        "Image": spec.image,
        "Env": [f"{key}={_plain(value)}" for key, value in spec.environment.items()],
        "Labels": dict(spec.labels),
        "HostConfig": {
            "Mounts": [{"Type": "volume", "Source": name, "Target": path} for name, path in spec.volumes.items()],
            "RestartPolicy": NEVER,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}},
            "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": NETWORK,
            "Init": True,
            "Memory": size_bytes(spec.memory) if spec.memory else 0,
        },
        "NetworkingConfig": {"EndpointsConfig": {NETWORK: endpoint}},
    }
    if spec.command:
        body["Cmd"] = list(spec.command)
    if not spec.healthcheck:  # the image's check asks the web process
        body["Healthcheck"] = {"Test": ["NONE"]}
    return ["POST", f"/containers/create?name={quote(spec.name)}", body, [], PATIENCE]


def start(name: str) -> Call:
    """Start a container; fine when it runs."""
    return ["POST", f"/containers/{quote(name)}/start", None, [NOT_MODIFIED], PATIENCE]


def keep_up(name: str) -> Call:
    """Have the engine restart it, whatever happens."""
    return ["POST", f"/containers/{quote(name)}/update", {"RestartPolicy": ALWAYS}, [], PATIENCE]


def stop(name: str, seconds: float) -> list[Call]:
    """Stop a container for good: SIGTERM, and SIGKILL after so many seconds; fine when it is stopped or gone.

    The policy comes last: changing it in the moment in which a container dies is an error of the engine's.
    """
    grace = max(1, round(seconds))
    return [
        ["POST", f"/containers/{quote(name)}/stop?t={grace}", None, [MISSING], grace + PATIENCE],
        ["POST", f"/containers/{quote(name)}/update", {"RestartPolicy": NEVER}, [MISSING], PATIENCE],
    ]


def remove(name: str) -> Call:
    """Remove a container; fine when it is gone."""
    return ["DELETE", f"/containers/{quote(name)}?force=1", None, [MISSING], PATIENCE]


def rename_image(old: str, new: str) -> list[Call]:
    """Give an image its name in place of another, and see that it is whole enough to be known."""
    name, _, version = new.rpartition(":")
    return [
        ["POST", f"/images/{quote(old, safe='/:@')}/tag?repo={quote(name, safe='')}&tag={quote(version)}", None, [], PATIENCE],
        ["DELETE", f"/images/{quote(old, safe='/:@')}", None, [MISSING], PATIENCE],
        ["GET", f"/images/{quote(new)}/json", None, [], PATIENCE],
    ]


def remove_image(name: str) -> Call:
    """Remove an image's name; fine when it is gone or in use."""
    return ["DELETE", f"/images/{quote(name)}", None, [MISSING, IN_USE], PATIENCE]


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value
