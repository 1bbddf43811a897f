"""What a Compose file of services may have, and what is added to it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from ops.names import LABEL, LABEL_SERVICES, NETWORK

COMPOSE = "com.docker.compose"
Document = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What `services.up` does to one service: create, replace, start, keep or remove."""

    service: str
    image: str
    action: str
    why: str


def project(app: str) -> str:
    """Return the name of the Compose project of an app's services."""
    return f"{app}-services"


def refusals(document: Document) -> list[str]:
    """Return all that speaks against running a resolved Compose file on a server."""
    services: dict[str, Document] = document.get("services") or {}
    found = [f"{name}: {problem}" for name, service in services.items() for problem in _problems(service)]
    for kind in ("secrets", "configs"):
        for name, one in (document.get(kind) or {}).items():
            if "file" in one:
                found.append(f"{kind}.{name}: a file of this machine is not on the server: use environment: or content:")
    return found or ([] if services else ["it has no services"])


def _problems(service: Document) -> Iterator[str]:
    if "build" in service:
        yield "build: is for the app itself: name an image"
    elif not service.get("image"):
        yield "it names no image"
    if "network_mode" in service:
        yield f"network_mode: {service['network_mode']}: it could not join the app's network: remove it"
    if any(label.startswith(LABEL) for label in service.get("labels") or {}):
        yield f"labels: {LABEL}… are what deploys know their own containers by: remove them"
    yield from filter(None, map(_mount_problem, service.get("volumes") or ()))
    yield from filter(None, map(_port_problem, service.get("ports") or ()))


def _mount_problem(mount: Document) -> str:
    if mount["type"] == "bind":
        return f"volumes: {mount['source']} is a path of this machine, not of the server: use a named volume"
    if mount["type"] == "volume" and not mount.get("source"):
        return f"volumes: {mount['target']} has no name: its data would be lost with the container"
    return ""


def _port_problem(port: Document) -> str:
    address = port.get("host_ip") or "0.0.0.0"  # noqa: S104  # what Compose takes it for
    if _is_loopback(address):
        return ""
    shown = f"{port.get('published') or 'ANY'}:{port['target']}"
    return f"ports: {shown} would be open to everybody at {address}: bind it to 127.0.0.1, or remove it: the app needs none"


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # a name, which may be any address on the server
        return False


def volume_refusals(document: Document, declared: Mapping[str, Sequence[str]]) -> list[str]:
    """Refuse volumes that images declare themselves and nothing is mounted on: their data has no name; `declared`: by image."""
    return [
        f'{name}: its image keeps data in {path}, and nothing is mounted there: volumes: ["{name}-data:{path}"]'
        for name, service in document["services"].items()
        for path in declared.get(image_name(service["image"]), ())
        if path.rstrip("/") not in _mounted(service)
    ]


def _mounted(service: Document) -> set[str]:
    paths = [mount["target"] for mount in service.get("volumes") or ()]
    return {path.partition(":")[0].rstrip("/") for path in [*paths, *(service.get("tmpfs") or ())]}


def joined(document: Document, app: str, environment: str) -> Document:
    """Return the file with every service on the app's network as `<app>-<service>`, labelled, and brought back by the engine.

    `unless-stopped` becomes `always`: a killed engine takes its containers for stopped by hand, and would leave them down.
    """
    services = {name: _joined(name, service, app, environment) for name, service in document["services"].items()}
    networks = {**(document.get("networks") or {}), NETWORK: {"name": NETWORK, "external": True}}
    return {**document, "services": services, "networks": networks}


def _joined(name: str, service: Document, app: str, environment: str) -> Document:
    asked = service.get("restart")
    own = (service.get("networks") or {}).get(NETWORK) or {}
    endpoint = {**own, "aliases": sorted({*(own.get("aliases") or ()), f"{app}-{name}"})}
    return {
        **service,
        "image": image_name(service["image"]),
        "restart": "always" if asked in (None, "unless-stopped") else asked,
        "labels": {**(service.get("labels") or {}), LABEL_SERVICES: environment},
        "networks": {**(service.get("networks") or {"default": None}), NETWORK: endpoint},
    }


def image_name(image: str) -> str:
    """Return an image's name with a tag, or with a digest and no tag."""
    name, at, digest = image.partition("@")
    path, _, last = name.rpartition("/")
    bare, colon, _tag = last.partition(":")
    if at:
        return f"{path}/{bare}@{digest}" if path else f"{bare}@{digest}"
    return name if colon else f"{name}:latest"


def changes(
    document: Document, hashes: Mapping[str, str], containers: Sequence[Document], images: Mapping[str, str | None]
) -> list[Change]:
    """Say what becomes of each service, from Compose's hashes, the engine's list of containers, and the ids of images."""
    found = []
    for name, service in document["services"].items():
        image = service["image"]
        mine = [one for one in containers if one["Labels"].get(f"{COMPOSE}.service") == name]
        found.append(Change(name, image, *_action(mine, hashes[name], images.get(image))))
    gone = {one["Labels"].get(f"{COMPOSE}.service", ""): one["Image"] for one in containers}
    left = [Change(name, gone[name], "remove", "not in the file any more; its volumes stay") for name in gone]
    return found + [one for one in left if one.service not in document["services"]]


def _action(containers: Sequence[Document], wanted: str, image: str | None) -> tuple[str, str]:
    if not containers:
        return "create", "not there yet"
    if any(one["Labels"].get(f"{COMPOSE}.config-hash") != wanted for one in containers):
        return "replace", "its description has changed: it restarts"
    if any(one["ImageID"] != image for one in containers):
        return "replace", "its image has changed: it restarts"
    if any(one["State"] != "running" for one in containers):
        return "start", "it does not run"
    return "keep", "runs as described"
