"""Run by a server's python3 as root: the stack's files as they are to be, told by digest first and sent only where they differ.

Standard input's first line is the request; the answer is one line on standard output. Standard library only, Python 3.10.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from typing import Any

UNREAD = "unread.json"  # services that may not have read their changed files yet: a run that dies leaves it to the next one


def digest(path: str) -> str:
    """Return a file's SHA-256, or nothing where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""


def is_so(path: str, wanted: dict[str, Any]) -> bool:
    """Return whether a file is as wanted, owner and mode included; one to keep, as it is."""
    if wanted.get("keep"):
        return True
    if digest(path) != wanted["digest"]:
        return False
    known = os.lstat(path)
    return (known.st_mode & 0o7777, known.st_uid) == (wanted["mode"], wanted["owner"])


def write(path: str, wanted: dict[str, Any]) -> None:
    """Replace a file atomically and durably; it is never readable by more than it is to be."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    draft = f"{path}.new"
    if os.path.lexists(draft):
        os.unlink(draft)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        os.fchown(descriptor, wanted["owner"], wanted["owner"])
        os.fchmod(descriptor, wanted["mode"])
        file.write(wanted["content"])
        file.flush()
        os.fsync(descriptor)
    os.replace(draft, path)


def others(folder: str, known: set[str]) -> list[str]:
    """Return the files that are there and not wanted any more."""
    found = [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]
    return sorted(os.path.relpath(path, folder) for path in found if os.path.relpath(path, folder) not in known)


def unread(folder: str, changed: list[str]) -> list[str]:
    """Note services before their files change; returns all that were noted since somebody said that they are read."""
    note = os.path.join(folder, UNREAD)
    try:
        with open(note, encoding="utf-8") as file:
            known = set(json.load(file))
    except FileNotFoundError:
        known = set()
    known |= {path.partition("/")[0] for path in changed}
    if changed:
        write(note, {"content": json.dumps(sorted(known)), "mode": 0o644, "owner": os.getuid()})
    return sorted(known)


def own(path: str, owner: int) -> bool:
    """Give a volume and all in it to its service's user, where it is another's: images change theirs."""
    if os.lstat(path).st_uid == owner:
        return False
    for folder, folders, names in os.walk(path, topdown=False):
        for name in (*names, *folders):
            os.lchown(os.path.join(folder, name), owner, owner)
    os.lchown(path, owner, owner)  # last: a walk that was cut short begins again
    return True


def place(request: dict[str, Any]) -> dict[str, Any]:
    """Write what came with its content, remove what is not wanted, and say what is missing still."""
    folder, wanted = request["folder"], request["files"]
    if request.get("only_look"):
        return {"missing": [one["path"] for one in wanted if not is_so(os.path.join(folder, one["path"]), one)]}
    os.makedirs(folder, 0o711, exist_ok=True)
    unread(folder, [one["path"] for one in wanted if "content" in one])
    for one in wanted:
        if "content" in one:
            write(os.path.join(folder, one["path"]), one)
    missing = [one["path"] for one in wanted if not is_so(os.path.join(folder, one["path"]), one)]
    gone = [] if missing else others(folder, {UNREAD, *(one["path"] for one in wanted)})
    changed = unread(folder, gone)
    for path in gone:
        os.unlink(os.path.join(folder, path))
    return {"missing": missing, "changed": changed}


def read(request: dict[str, Any]) -> dict[str, Any]:
    """Forget which services had to read their files anew: they have."""
    try:
        os.unlink(os.path.join(request["folder"], UNREAD))
    except FileNotFoundError:
        pass  # nothing had changed
    return {}


def propagation() -> str:
    """Return how the root's mount may be handed on: a private one, as in some containers, is refused as a slave."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        root = [line for line in file if line.split()[4] == "/"]
    return "rslave" if root and ("shared:" in root[-1] or "master:" in root[-1]) else "rprivate"


def binds(address: str, port: int) -> bool:
    """Return whether something may listen there."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def look(request: dict[str, Any]) -> dict[str, Any]:
    """Return files that tell how things stand, and the group that may use the engine; folders that lack are made."""
    for path, mode in ((request["home"], 0o711), (os.path.join(request["home"], "metrics"), 0o755)):
        if not os.path.isdir(path):
            os.makedirs(path, mode)
            os.chown(path, int(os.environ.get("SUDO_UID", "0")), -1)
        os.chown(path, os.stat(request["home"]).st_uid, -1)  # deploys write there without being root
        os.chmod(path, mode)
    found: dict[str, Any] = {"files": {}, "engine_group": os.stat(request["socket"]).st_gid}
    found["journal"] = os.path.isdir("/var/log/journal")
    found["propagation"] = propagation()
    found["unbound"] = [f"{address}:{port}" for address, port in request["bind"] if not binds(address, port)]
    found["there"] = [path for path in request["there"] if os.path.lexists(os.path.join(request["folder"], path))]
    for path in request["read"]:
        try:
            with open(os.path.join(request["folder"], path), encoding="utf-8") as file:
                found["files"][path] = file.read()
        except FileNotFoundError:
            found["files"][path] = None
    return found


def own_all(request: dict[str, Any]) -> dict[str, Any]:
    """Say of which volumes the owner was another."""
    return {"owned": [path for path, owner in request["volumes"] if own(path, owner)]}


ACTS = {"place": place, "look": look, "own": own_all, "read": read}


def main() -> None:
    """Carry out the request."""
    os.umask(0o022)
    request = json.loads(sys.stdin.readline())
    try:
        print(json.dumps(ACTS[request["act"]](request)))
    except OSError as error:
        print(json.dumps({"error": f"{error.strerror}: {error.filename}" if error.filename else str(error)}))


if __name__ == "__main__":
    main()
