"""What is so on a server, read from the engine, nginx and the files under /srv/tidegate; parsing only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from deploy.edge import read_head, status_host
from deploy.model import Container, EdgeState, HostState, Release
from ops.errors import Refused
from ops.names import (
    EDGE,
    EDGE_HOME,
    HOME,
    LABEL_APP,
    LABEL_CONTENT,
    LABEL_PROCESS,
    LABEL_RELEASE,
    LABEL_SLOT,
    LABEL_VERSION,
    NETWORK,
    STATUS_PORT,
)


def app_home(app: str) -> str:
    """Return the app's folder on a server."""
    return f"{HOME}/{app}"


def question(app: str, pulled: str | None = None) -> dict[str, Any]:
    """Return what to ask the agent's `look` for; `pulled` is the repository of an image that is not built by us."""
    ours = quote(json.dumps({"reference": [pulled]} if pulled else {"label": [f"{LABEL_APP}={app}"]}))
    return {
        "folder": f"{app_home(app)}/releases",
        "journal": f"{app_home(app)}/journal.jsonl",
        "edge": f"{EDGE_HOME}/apps",
        "check": status_check(app),
        "engine": {
            "containers": "/containers/json?all=1",
            "network": f"/networks/{NETWORK}",
            "images": f"/images/json?filters={ours}",
        },
    }


def status_check(app: str) -> dict[str, Any]:
    """Return how to ask nginx on a server which generation of an app it serves."""
    return {"address": "127.0.0.1", "port": STATUS_PORT, "host": status_host(app)}


def parse(host: str, app: str, hello: Mapping[str, Any], seen: Mapping[str, Any]) -> HostState:
    """Turn the agent's first words and its look into the state of a server. Raises Refused when the engine was silent."""
    listed = seen["engine"]["containers"]
    if listed is None or seen["engine"]["images"] is None:
        raise Refused(
            "the engine did not tell its containers and images", where=host, fix="run this again; inv server.check shows more"
        )
    releases, problems = _releases(seen["releases"])
    return HostState(
        host=host,
        containers=tuple(_container(one) for one in listed if _labels(one).get(LABEL_APP) == app),
        foreign=frozenset(name.lstrip("/") for one in listed for name in one["Names"] if _labels(one).get(LABEL_APP) != app),
        releases=releases,
        edge=_edge(app, listed, seen),
        pems=tuple(seen["pems"]),
        images=_images(seen["engine"]["images"]),
        taken=_taken(listed, seen["engine"]["network"] or {}),
        subnet=_subnet(seen["engine"]["network"]),
        disk_free=seen["disk"]["free"],
        srv_free=seen.get("srv", seen["disk"])["free"],
        clock_skew=round(hello["skew"], 1),
        api=hello["engine"].get("ApiVersion", ""),
        unfinished=unfinished(seen["journal"]),
        problems=problems,
    )


def _labels(known: Mapping[str, Any]) -> Mapping[str, str]:
    return known["Labels"] or {}


def _container(known: Mapping[str, Any]) -> Container:
    labels = _labels(known)
    return Container(
        name=known["Names"][0].lstrip("/"), release=labels.get(LABEL_RELEASE, ""),
        slot=labels.get(LABEL_SLOT, ""), process=labels.get(LABEL_PROCESS, ""), version=labels.get(LABEL_VERSION, ""),
        image=known["ImageID"], running=known["State"] in ("running", "restarting", "paused"), address=_address(known),
        status=known["Status"],
    )  # fmt: skip


def _address(known: Mapping[str, Any]) -> str:
    network = known["NetworkSettings"]["Networks"].get(NETWORK) or {}
    return (network.get("IPAMConfig") or {}).get("IPv4Address") or network.get("IPAddress") or ""


def _releases(files: Mapping[str, str]) -> tuple[tuple[Release, ...], tuple[str, ...]]:
    found, problems = [], []
    for name, text in files.items():
        try:
            found.append(Release.from_json(text, complete=name.endswith(".json")))
        except ValueError as error:
            problems.append(f"releases/{name} is damaged and ignored ({error})")
    return tuple(sorted(found, key=lambda one: one.created)), tuple(problems)


def _edge(app: str, listed: list[Any], seen: Mapping[str, Any]) -> EdgeState:
    container = next((one for one in listed if one["Names"] == [f"/{EDGE}"]), None)
    heads = {name.removesuffix(".conf"): read_head(text) for name, text in seen["edge"].items()}
    own = heads.get(app, {})
    claims = {str(domain): owner for owner, head in heads.items() for domain in _list(head.get("domains"))}
    return EdgeState(
        present=container is not None,
        running=container is not None and container["State"] == "running",
        content=seen["edge"].get(f"{app}.conf"),
        generation=_text(own.get("generation")),
        release=_text(own.get("release")),
        environment=_text(own.get("environment")),
        answering=seen["answering"],
        answers=seen.get("edge_answers", True),
        claims=claims,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _images(listed: list[Any]) -> dict[str, str]:
    return {tag: (one["Labels"] or {}).get(LABEL_CONTENT, "") for one in listed for tag in one.get("RepoTags") or ()}


def _taken(listed: list[Any], network: Mapping[str, Any]) -> frozenset[str]:
    attached = (one.get("IPv4Address", "").partition("/")[0] for one in (network.get("Containers") or {}).values())
    return frozenset(filter(None, (*attached, *map(_address, listed))))


def _subnet(network: Mapping[str, Any] | None) -> str | None:
    pools = ((network or {}).get("IPAM") or {}).get("Config") or []
    return next((pool["Subnet"] for pool in pools if "." in pool.get("Subnet", "")), None)


def records(journal: str) -> list[dict[str, Any]]:
    """Return the journal's records; half a line, as a power cut leaves it, is left out."""
    found = []
    for line in journal.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "event" in record:
            found.append(record)
    return found


def unfinished(journal: str) -> str | None:
    """Return what the last begun operation was if it has no end in the journal."""
    last = None
    for record in records(journal):
        if record["event"] == "begin":
            last = record
        elif record["event"] == "end" and last and record["operation"] == last["operation"]:
            last = None
    return f"{last['kind']} of {last['release']} by {last['by']} at {last['time']}" if last else None
