"""Making a bare Debian or Ubuntu server ready: engine, python3, zstd, folders, the edge network and the edge nginx.

The same pattern as a deploy: look, plan what is missing, show it, do it, check. A second run finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ops.config import Environment, HostAddress
from ops.errors import Failed, Refused
from ops.host import Host
from ops.names import HOME
from ops.shell import Command, chain, sh

SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}
PACKAGES = {"dockerd": "docker.io", "python3": "python3", "zstd": "zstd", "iptables": "iptables"}
BACKUP_PACKAGES = {"age": "age", "restic": "restic", "xz": "xz-utils"}

# One round trip for all that is to be known; every line is `key=value`. POSIX sh, for a server without python3. What a
# login shell's profile prints comes before the first line, perhaps without a newline.
_BEGIN = "tidegate-facts"
_FACTS = f"""
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C; export LC_ALL
echo; echo {_BEGIN}
[ -r /etc/os-release ] && . /etc/os-release
echo "id=${{ID-}}"; echo "version=${{VERSION_ID-}}"
echo "user=$(id -un)"; echo "uid=$(id -u)"; echo "groups=$(id -Gn)"
for p in {" ".join((*PACKAGES, *BACKUP_PACKAGES))}; do command -v $p >/dev/null && echo "has_$p=yes"; done
python3 -c 'import argparse, http.client, json, sqlite3, ssl' 2>/dev/null && echo python=works
[ -d /run/systemd/system ] && echo systemd=yes
[ "$(id -u)" = 0 ] || words=$(sudo -n true 2>&1) || printf 'sudo=%s\\n' "$(printf '%s\\n' "$words" | tail -n 1)"
python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock")' 2>/dev/null && echo engine=yes
[ -d {HOME} ] && [ -w {HOME} ] && [ "$(stat -c %a {HOME})" = 711 ] && echo home=yes
exit 0
"""
_ALWAYS = frozenset({"id", "version", "user", "uid", "groups"})
_KNOWN = (
    _ALWAYS | {f"has_{program}" for program in (*PACKAGES, *BACKUP_PACKAGES)} | {"python", "systemd", "sudo", "engine", "home"}
)

_CONNECT = """
import socket, time
end = time.monotonic() + 30
while True:
    try:
        socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock")
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.1)
"""


@dataclass(frozen=True)
class Missing:
    """Something to do on a server as root: what it is, and the commands."""

    what: str
    command: Command


def look(host: Host) -> dict[str, str]:
    """Return what is known of a server before anything is installed. Raises Refused for a system we do not know."""
    done = host.run(sh("sh", "-c", _FACTS))
    facts = parse(done.stdout)
    if not facts.keys() >= _ALWAYS:
        raise Refused("the server runs no commands for us", where=host.name,
                      why=(done.stdout + done.stderr).strip() or f"exit code {done.code} without a word",
                      fix="give the user a shell: usermod -s /bin/bash USER, and no ForceCommand in sshd's configuration")  # fmt: skip
    if facts.get("version") not in SUPPORTED.get(facts.get("id", ""), ()):
        raise Refused(f"{facts.get('id')} {facts.get('version')} is not supported", where=host.name,
                      fix="use Debian 12 or 13, or Ubuntu 22.04 or 24.04")  # fmt: skip
    return facts


def parse(text: str) -> dict[str, str]:
    """Return the facts in what a server printed, whatever else its profile said. Pure."""
    lines = text.rpartition(f"{_BEGIN}\n")[2].splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key: value for key, _, value in pairs if key in _KNOWN}


def _require_root(name: str, facts: Mapping[str, str]) -> None:
    if "sudo" not in facts:
        return
    absent = "not found" in facts["sudo"]
    what = "we are not root and sudo is not installed" if absent else "we are not root and sudo asks for a password"
    allow = f"echo '{facts['user']} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/tidegate"
    raise Refused(what, where=name, why=facts["sudo"],
                  fix=f"as root on the server: {'apt-get install sudo && ' if absent else ''}{allow}")  # fmt: skip


def packages(env: Environment) -> dict[str, str]:
    """Return the programs that an environment's servers need, each with its package. Pure."""
    backup = env.app.backup
    uses = {"age": backup and backup.recipients, "restic": backup and backup.offsite, "xz": backup and backup.compression == "xz"}
    return PACKAGES | {program: package for program, package in BACKUP_PACKAGES.items() if uses[program]}


def plan(facts: Mapping[str, str], needed: Mapping[str, str] = PACKAGES) -> tuple[Missing, ...]:
    """Return what a server lacks, in the order to do it; `needed` are programs with their packages. Pure."""
    lacking = sorted({package for program, package in needed.items() if f"has_{program}" not in facts})
    if facts.get("python") != "works":
        lacking = sorted({*lacking, "python3"})
    found = []
    if lacking:
        found.append(Missing(f"install {', '.join(lacking)}", _install(lacking)))
    outside = facts["uid"] != "0" and "docker" not in facts["groups"].split()
    if "engine" not in facts and not outside:
        found.append(Missing("start the engine", _start_engine(facts)))
    if outside:
        found.append(Missing(f"let {facts['user']} use the engine", sh("usermod", "-aG", "docker", facts["user"])))
    if "home" not in facts:
        found.append(Missing(f"create {HOME}", sh("install", "-d", "-m", "0711", "-o", facts["user"], HOME)))
    return tuple(found)


def _install(packages: Sequence[str]) -> Command:
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120")
    return chain(sh(*quiet, "update"), sh(*quiet, "install", "--no-install-recommends", *packages))


def _start_engine(facts: Mapping[str, str]) -> Command:
    if "systemd" in facts:
        return chain(sh("systemctl", "enable", "--now", "docker"), sh("python3", "-c", _CONNECT))
    # Whatever stands in for systemd may have started it already, and then the script fails: the engine's answer counts.
    return sh("sh", "-c", 'service docker start; exec python3 -c "$1"', "sh", _CONNECT)


def survey(env: Environment, address: HostAddress) -> tuple[Missing, ...]:
    """Return what a server lacks; changes nothing. Raises Refused where that cannot be mended, Unreachable."""
    with Host(env, address) as host:
        facts = look(host)
    missing = plan(facts, packages(env))
    if missing:
        _require_root(host.name, facts)
    return missing


def carry_out(env: Environment, address: HostAddress, missing: Sequence[Missing], say: Callable[[str, str], None]) -> None:
    """Install and configure what a server lacks, and look again. Raises Failed."""
    again = f"put that right on the server, then run inv server.bootstrap -e {env.name} again"
    with Host(env, address) as host:
        for one in missing:
            say(host.name, one.what)
            host.check(one.command, root=True, fix=again)
    if left := survey(env, address):  # a new login, since group membership is given at login
        raise Failed(f"still missing after the bootstrap: {', '.join(one.what for one in left)}", where=address.name,
                     fix=again)  # fmt: skip
