"""One server of the sandbox: a container with sshd and an engine of its own, through the docker SDK."""

from __future__ import annotations

import io
import socket
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.errors import Failed, Refused
from ops.this_machine import engine_address, tail

if TYPE_CHECKING:
    from docker import DockerClient

SANDBOX, INDEX, PORTS, ROOT = (f"dev.tidegate.sandbox{part}" for part in ("", ".index", ".ports", ".root"))
INSIDE = (22, 80, 443)
VOLUMES = {"engine": "/var/lib/docker", "keys": "/etc/ssh/keys", "srv": "/srv"}
READY_SECONDS = 60
_UNCONFINED = ["seccomp=unconfined", "apparmor=unconfined", "label=disable"]
_LOWEST, _RANGE = 20000, 10000
# As the kernel numbers them; older engines know none past the last one here.
_KERNEL_ORDER = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
"""
CAPABILITIES = tuple(_KERNEL_ORDER.split())

Ports = tuple[int, int, int]


class PortTaken(Refused):
    """A published port of a server belongs to somebody else by now."""


@dataclass(frozen=True)
class SandboxServer:
    """A server of the sandbox as it stands; `engine` is empty where none answers."""

    name: str
    state: str
    ports: Ports
    engine: str = ""
    host_key: str = ""
    address: str = "127.0.0.1"
    private: str = ""  # among the servers

    @property
    def ssh_port(self) -> int:
        """The loopback port that leads to sshd."""
        return self.ports[0]

    @property
    def http_port(self) -> int:
        """The loopback port that leads to port 80."""
        return self.ports[1]

    @property
    def https_port(self) -> int:
        """The loopback port that leads to port 443."""
        return self.ports[2]

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        return f"http://{self.address}:{self.http_port}"


@dataclass(frozen=True)
class Recipe:
    """What a server is created from; the same for all servers of a sandbox."""

    prefix: str
    image: str
    labels: tuple[tuple[str, str], ...]

    def name(self, index: int) -> str:
        """Return the container name of the server with that number."""
        return f"{self.prefix}-{index}"


def ports_of(container: Mapping[str, Any]) -> Ports:
    """Read the published ports from a container's label."""
    ssh, http, https = (int(port) for port in container["Labels"][PORTS].split(","))
    return ssh, http, https


def grants(bounding: int | None) -> list[list[str]]:
    """Return what to try, best first: no capabilities named means privileged. Unknown bounding set: try both."""
    held = [name for number, name in enumerate(CAPABILITIES) if bounding is None or bounding >> number & 1]
    listed = [name for name in held if bounding is not None or name != "SYS_RESOURCE"]
    whole = bounding is None or len(held) == len(CAPABILITIES)
    return [[], listed] if whole else [listed]


def bounding_set(pid_file: Path = Path("/var/run/docker.pid")) -> int | None:
    """Return the capabilities that this machine's engine can hand out, or None where that cannot be seen."""
    if engine_address() != "unix:///var/run/docker.sock" or not pid_file.is_file():
        return None
    status = Path("/proc", pid_file.read_text().strip(), "status")
    return parse_bounding(status.read_text()) if status.is_file() else None


def parse_bounding(status: str) -> int | None:
    """Read the bounding set from a process's status file."""
    values = [line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")]
    return int(values[0], 16) if values else None


def free_ports(start: int, taken: Iterable[int]) -> Iterator[Ports]:
    """Yield triples of loopback ports that nothing listens on, from below the range the kernel hands out itself."""
    used = set(taken)
    ports = (_LOWEST + (start + step) % _RANGE for step in count())
    free = (port for port in ports if port not in used and _is_free(port))
    while True:
        yield next(free), next(free), next(free)


def host_config(recipe: Recipe, index: int, ports: Ports, capabilities: list[str]) -> dict[str, Any]:
    """Return the engine's settings for a server: privileged, or the given capabilities where that is not possible."""
    rights = {"CapAdd": capabilities, "SecurityOpt": _UNCONFINED, "MaskedPaths": [], "ReadonlyPaths": []}
    inside = zip(INSIDE, ports, strict=True)
    return {
        **(rights if capabilities else {"Privileged": True}),
        "Init": True,
        "CgroupnsMode": "private",
        "Binds": [f"{recipe.name(index)}-{volume}:{path}" for volume, path in VOLUMES.items()],
        "Tmpfs": {"/run": "mode=755"},
        "PortBindings": {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(host)}] for port, host in inside},
        "RestartPolicy": {"Name": "unless-stopped"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
    }


def create(engine: DockerClient, recipe: Recipe, index: int, ports: Ports) -> str:
    """Create and start a server with the widest rights that the engine can give; return its id."""
    from ops.engine import EngineError

    for volume in VOLUMES:
        engine.api.create_volume(f"{recipe.name(index)}-{volume}", labels=dict(recipe.labels))
    *tries, last = grants(bounding_set())
    for capabilities in tries:
        try:
            return _start_new(engine, recipe, index, ports, capabilities)
        except EngineError:  # not privileged, then
            continue
    return _start_new(engine, recipe, index, ports, last)


def admit(engine: DockerClient, container: str, public_key: str) -> None:
    """Let the holder of a key in as user deploy."""
    content = public_key.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("deploy")
        member.size, member.mode = len(content), 0o644
        archive.addfile(member, io.BytesIO(content))
    engine.api.put_archive(container, "/etc/ssh/authorized_keys", buffer.getvalue())


def wait_ready(engine: DockerClient, container: str) -> dict[str, str]:
    """Wait until sshd and the engine inside answer; return the host `key` and the `engine` version."""
    status, output = _ask(engine, container, READY_SECONDS)
    if status:
        why, fix = tail(f"{output.strip()}\n{_log(engine, container)}", 22), "inv sandbox.down, then inv sandbox.up"
        raise Failed("a sandbox server did not come up", where=container[:12], why=why, fix=fix)
    return parse_ready(output)


def facts(engine: DockerClient, container: str, seconds: int) -> dict[str, str]:
    """Return what a server tells of itself within that time; less than all where it is not ready."""
    return parse_ready(_ask(engine, container, seconds)[1])


def parse_ready(output: str) -> dict[str, str]:
    """Read what `sandbox-ready` prints: one fact a line."""
    facts = (line.partition(" ") for line in output.splitlines())
    return {name: value for name, _, value in facts}


def revive(engine: DockerClient, container: str, state: str) -> None:
    """Make an existing server run again, whatever state it was left in; raises PortTaken."""
    if state == "paused":
        engine.api.unpause(container)
    elif state != "running":
        _start(engine, container)


def _start_new(engine: DockerClient, recipe: Recipe, index: int, ports: Ports, capabilities: list[str]) -> str:
    name = recipe.name(index)
    labels = {**dict(recipe.labels), INDEX: str(index), PORTS: ",".join(map(str, ports))}
    created = engine.api.create_container(
        recipe.image,
        name=name,
        hostname=name,
        labels=labels,
        ports=[(port, "tcp") for port in INSIDE],
        host_config=host_config(recipe, index, ports, capabilities),
    )
    container = str(created["Id"])
    try:
        _start(engine, container)
    except Exception:
        engine.api.remove_container(container, force=True)
        raise
    return container


def _start(engine: DockerClient, container: str) -> None:
    from ops.engine import EngineError

    try:
        engine.api.start(container)
    except EngineError as error:
        if "already allocated" in str(error) or "address already in use" in str(error):
            raise PortTaken("a port of the sandbox is taken", why=str(error), fix="run it again") from error
        raise


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _ask(engine: DockerClient, container: str, seconds: int) -> tuple[int, str]:
    from ops.engine import EngineError

    try:
        run = engine.api.exec_create(container, ["sandbox-ready", str(seconds)])["Id"]
        output = engine.api.exec_start(run).decode(errors="replace")
        return int(engine.api.exec_inspect(run)["ExitCode"]), output
    except EngineError as error:  # it is not running
        return 1, str(error)


def _log(engine: DockerClient, container: str) -> str:
    from ops.engine import NotFound

    try:
        return str(engine.api.logs(container, tail=20).decode(errors="replace"))
    except NotFound as error:
        return str(error)
