"""Putting Grafana's file on the edge and taking it away, like a deploy does with an app's: staged, tested, switched, proven.

The PEM is written before the file that names it goes live, and old ones are removed after. What is so is read of nginx's own
answer, so a run that died between two lines is completed by the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from monitoring.hosts import Host, each, watcher
from monitoring.inventory import Inventory
from monitoring.public_grafana import HOST, MOUNT, NAME, Site, file_to_test, head, owner, site
from monitoring.server import Server
from ops.config import Environment
from ops.errors import Failed, NeedsPerson, Refused
from ops.link import AgentError, Link
from ops.names import EDGE, EDGE_HOME, STATUS_PORT
from ops.secret import Secret

SWITCH_SECONDS = 15.0
PROOFS = 5
_LIVE = f"{EDGE_HOME}/apps/{NAME}.conf"
_STAGED, _TEST, _BACK = (f"{EDGE_HOME}/staged/{NAME}.{end}" for end in ("conf", "test", "conf.back"))
_CHECK = {"address": "127.0.0.1", "port": STATUS_PORT, "host": HOST}
_PEM = re.compile(rf"{NAME}-[0-9a-f]{{16}}\.pem")


def prepare(env: Environment, known: Inventory, hosts: Sequence[Host], secrets: Mapping[str, Secret]) -> Site | None:
    """Return what the edge is to serve (None: nothing), looked at and good. Raises ConfigError, Refused."""
    wanted, server = site(env, known, secrets, datetime.now(UTC)), watcher(hosts).server
    if wanted:
        _require_edge(server, wanted, env.name)
    return wanted


def publish(hosts: Sequence[Host], wanted: Site | None, say: Callable[[str, str], None]) -> None:
    """Make the edge beside the stack serve it (None: nothing), and no other edge. Raises Failed; what served before serves on."""
    each(hosts, lambda host: settle(host.server, wanted if host.watched.stack else None, partial(say, host.server.name)))


def settle(server: Server, wanted: Site | None, say: Callable[[str], None]) -> None:
    """Make one server's edge serve Grafana, or not; what is right is left alone. Raises Failed, NeedsPerson."""
    try:
        seen = look(server.link)
        live = seen["edge"].get(f"{NAME}.conf")
        right = (wanted.text, wanted.generation) if wanted else (None, None)
        if (live, seen["answering"]) != right:
            if wanted:
                _put(server, wanted, seen)
            else:
                _take_away(server, seen)
            say(f"the edge serves Grafana on {wanted.domain}" if wanted else "the edge serves Grafana no more")
        _sweep(server.link, seen["pems"], wanted.pem if wanted else "")
    except AgentError as error:
        raise Failed(
            "the edge did not take Grafana's file",
            where=server.name,
            why=error.what,
            fix="look at the server, then run this again",
        ) from None


def look(link: Link) -> Mapping[str, Any]:
    """Return the edge's container, its files, the names of its PEMs and what nginx answers of Grafana."""
    seen: Mapping[str, Any] = link.call(
        "look", folder=EDGE_HOME, journal=f"{EDGE_HOME}/journal.jsonl", edge=f"{EDGE_HOME}/apps", check=_CHECK,
        engine={"edge": f"/containers/{EDGE}/json"},
    )  # fmt: skip
    return seen


def _require_edge(server: Server, wanted: Site, environment: str) -> None:
    seen, bootstrap = look(server.link), f"inv server.bootstrap -e {environment}"
    if not _runs(seen):
        raise Refused("the edge nginx does not run, so Grafana cannot be public there", where=server.name, fix=bootstrap)
    if taken := owner(wanted.domain, seen["edge"]):
        raise Refused(
            f"{wanted.domain} belongs to the app {taken} there", where=server.name, fix="give Grafana a domain of its own"
        )
    file_to_test(_main(server.link), ())


def _runs(seen: Mapping[str, Any]) -> bool:
    return bool((seen["engine"]["edge"] or {}).get("State", {}).get("Running"))


def _main(link: Link) -> str:
    return link.call("read", path=f"{EDGE_HOME}/nginx.conf") or ""


def _put(server: Server, wanted: Site, seen: Mapping[str, Any]) -> None:
    link, former = server.link, seen["edge"].get(f"{NAME}.conf")
    if wanted.pem not in seen["pems"]:
        link.call("write", path=f"{EDGE_HOME}/tls/{wanted.pem}", text=wanted.content.reveal(), mode=0o600)
    link.call("write", path=_STAGED, text=wanted.text, mode=0o644)
    link.call("write", path=_TEST, text=file_to_test(_main(link), list(seen["edge"])), mode=0o644)
    command = ["nginx", "-t", "-q", "-c", f"{MOUNT}/staged/{NAME}.test"]
    code, words = link.call("execute", container=EDGE, command=command, timeout=30.0)
    if code:
        used = next((name for name in seen["pems"] if name in (former or "")), "")
        _sweep(link, [*seen["pems"], wanted.pem], used)
        raise Failed("nginx refuses Grafana's file", where=server.name, why=words,
                     fix="mend what it names, then run this again; nothing was changed on the edge")  # fmt: skip
    if (answered := _switch(link, _STAGED, wanted.generation)) is not None:
        _put_back(server, former)
        raise Failed("nginx did not take up Grafana's file; the former one is back", where=server.name,
                     why=f"it answers: {answered}", fix=f"docker logs {EDGE} there says more")  # fmt: skip


def _put_back(server: Server, former: str | None) -> None:
    link = server.link
    if former is not None:
        link.call("restage", copy=_BACK, staged=_STAGED, text=former)
    generation = str(head(former or "").get("generation", ""))
    if (answered := _switch(link, _STAGED if former is not None else "", generation)) is not None:
        raise NeedsPerson(
            "nginx took up neither Grafana's new file nor the former", where=server.name, why=f"it answers: {answered}",
            fix=f"the former one is in its place: docker exec {EDGE} nginx -t there says what is wrong, then docker kill -s HUP {EDGE}",
        )  # fmt: skip


def _take_away(server: Server, seen: Mapping[str, Any]) -> None:
    if not _runs(seen):
        server.link.call("remove", path=_LIVE)
    elif (answered := _switch(server.link, "", "")) is not None:
        raise Failed("nginx still serves Grafana, though its file is gone", where=server.name, why=f"it answers: {answered}",
                     fix=f"docker logs {EDGE} there says more; then run this again")  # fmt: skip


def _switch(link: Link, staged: str, generation: str) -> str | None:
    """Make the staged file live (none: remove the live one), reload, prove it; returns what nginx answers instead."""
    check = {**_CHECK, "answer": generation, "successes": PROOFS}
    seen = link.call("switch", edge=EDGE, staged=staged, live=_LIVE, check=check, timeout=SWITCH_SECONDS)
    return None if seen["ok"] else str(seen["last"])


def _sweep(link: Link, pems: Sequence[str], used: str) -> None:
    """Remove what is left of a switch, and the PEMs that no file names any more."""
    for path in (_STAGED, _TEST, _BACK, *(f"{EDGE_HOME}/tls/{name}" for name in pems if _PEM.fullmatch(name) and name != used)):
        link.call("remove", path=path)
