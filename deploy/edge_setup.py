"""The edge nginx of a server: its network, image, files and container."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from deploy import edge
from deploy.addresses import dynamic_range, edge_address
from ops.errors import Failed, Refused
from ops.link import Link
from ops.names import EDGE, EDGE_HOME, LABEL_MANAGED, NETWORK, STATUS_PORT

if TYPE_CHECKING:
    from docker import APIClient

IMAGE = "nginx:1.30"
SUBNETS = ("10.213.0.0/20", "172.29.208.0/20", "192.168.208.0/20")


def ensure_edge(link: Link, engine: APIClient, receive: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Make network, image, main file and container be there and running; what is right is left alone. Raises Failed."""
    subnet = _ensure_network(link, engine, say)
    if not _has_image(engine):
        say(f"ship {IMAGE}")
        receive(IMAGE)
    known = _container(engine)
    changed = _ensure_files(link, runs=known is not None and known["State"] == "running")
    if known is None:
        _ports_are_free(link)
        say("create the edge nginx")
        _create(engine, subnet)
        engine.start(EDGE)
    elif known["State"] != "running":
        say("start the edge nginx")
        engine.start(EDGE)
    elif changed:
        say("reload the edge nginx with its new main file")
        engine.kill(EDGE, "HUP")
    _wait_until_it_answers(link, engine)


def _ensure_network(link: Link, engine: APIClient, say: Callable[[str], None]) -> str:
    for known in engine.networks(names=[NETWORK]):
        if known["Name"] == NETWORK:
            return str(known["IPAM"]["Config"][0]["Subnet"])
    routes = [IPv4Network(route) for route in link.call("facts", folders=[], ports=[])["routes"]]
    free = [subnet for subnet in SUBNETS if not any(IPv4Network(subnet).overlaps(route) for route in routes)]
    if not free:
        raise Refused(f"{', '.join(SUBNETS)} are all in use", where=link.name,
                      fix=f"create the network yourself: docker network create --subnet A.B.C.0/20 --ip-range A.B.D.0/21 {NETWORK}")  # fmt: skip
    import docker

    say(f"create the network {NETWORK} ({free[0]})")
    pool = docker.types.IPAMPool(subnet=free[0], iprange=dynamic_range(free[0]))
    engine.create_network(
        NETWORK, driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={LABEL_MANAGED: "true"}
    )
    return free[0]


def _has_image(engine: APIClient) -> bool:
    return any(IMAGE in (one["RepoTags"] or ()) for one in engine.images(name=IMAGE.partition(":")[0]))


def _ensure_files(link: Link, *, runs: bool) -> bool:
    """Replace the main file where it is not as wanted, once nginx has taken the new one where it runs; returns whether."""
    path, wanted = f"{EDGE_HOME}/nginx.conf", edge.main_file()
    if link.call("read", path=path) == wanted:
        return False
    for folder in ("apps", "staged", "tls"):
        link.call("write", path=f"{EDGE_HOME}/{folder}/.keep", text="", mode=0o600)
    link.call("write", path=f"{path}.new", text=wanted, mode=0o644)
    if runs:
        _test(link, f"{path}.new")
    link.call("move", source=f"{path}.new", target=path)
    return True


def _test(link: Link, path: str) -> None:
    """Have nginx test a main file; one that it refuses is removed. Raises Failed with its words."""
    command = ["nginx", "-t", "-q", "-c", f"{edge.MOUNT}/{path.rpartition('/')[2]}"]
    code, words = link.call("execute", container=EDGE, command=command, timeout=30.0)
    if code:
        link.call("remove", path=path)
        raise Failed(
            "nginx refuses its new main file", where=link.name, why=words, fix="mend the files it names, then run this again"
        )


def _container(engine: APIClient) -> Any:
    return next((one for one in engine.containers(all=True, filters={"name": f"^/?{EDGE}$"})), None)


def _ports_are_free(link: Link) -> None:
    if taken := link.call("facts", folders=[], ports=[80, 443, STATUS_PORT])["listening"]:
        raise Refused(f"something else listens on port {', '.join(map(str, taken))}", where=link.name,
                      why="the edge nginx needs 80 and 443", fix="stop the other web server: ss -ltnp shows it")  # fmt: skip


def _create(engine: APIClient, subnet: str) -> None:
    host = engine.create_host_config(
        binds=[f"{EDGE_HOME}:{edge.MOUNT}:ro"], restart_policy={"Name": "always"}, network_mode=NETWORK,
        port_bindings={80: 80, 443: 443, STATUS_PORT: ("127.0.0.1", STATUS_PORT)},
        log_config={"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}},  # type: ignore[arg-type]  # the SDK takes dicts
        security_opt=["no-new-privileges"],
    )  # fmt: skip
    endpoint = engine.create_endpoint_config(ipv4_address=edge_address(subnet))
    engine.create_container(
        IMAGE, command=["nginx", "-c", f"{edge.MOUNT}/nginx.conf", "-g", "daemon off;"], name=EDGE, host_config=host,
        ports=[80, 443, STATUS_PORT], labels={LABEL_MANAGED: "true"},
        networking_config=engine.create_networking_config({NETWORK: endpoint}),  # type: ignore[arg-type]  # its stub is wrong
    )  # fmt: skip


def _wait_until_it_answers(link: Link, engine: APIClient) -> None:
    if not link.call("answers", address="127.0.0.1", port=STATUS_PORT, timeout=10.0):
        why = engine.logs(EDGE, tail=20).decode("utf-8", "replace")
        raise Failed("the edge nginx does not answer", where=link.name, why=why, fix="inv server.check shows more")
