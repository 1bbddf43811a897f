"""What this server is like: sizes, clock, ports, folders."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import sys
import time
from typing import Any


def facts(folders: list[str], ports: list[int]) -> dict[str, Any]:
    """Return disk and memory in bytes, the clock in seconds, folders with owner and mode, and which ports listen."""
    return {
        "time": time.time(),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "memory": _memory(),
        "disk": disk("/var/lib/docker"),
        "folders": {folder: _folder(folder) for folder in folders},
        "routes": _routes(),
        "listening": [port for port in ports if _listens(port)],
        "zstd": any(os.access(os.path.join(path, "zstd"), os.X_OK) for path in os.get_exec_path()),
    }


def disk(path: str) -> dict[str, int]:
    """Return total and free bytes of the file system that holds a path or its nearest existing parent."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    known = os.statvfs(path)
    return {"total": known.f_blocks * known.f_frsize, "free": known.f_bavail * known.f_frsize}


def _memory() -> dict[str, int]:
    with open("/proc/meminfo") as file:
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    return {"total": sizes["MemTotal"], "free": sizes["MemAvailable"]}


def _routes() -> list[str]:
    """Return the networks this server routes to, without the default route."""
    with open("/proc/net/route") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    pairs = [(int(row[1], 16), int(row[7], 16)) for row in rows]
    return [socket.inet_ntoa(target.to_bytes(4, sys.byteorder)) + "/" + str(mask.bit_count()) for target, mask in pairs if mask]


def _folder(path: str) -> dict[str, Any] | None:
    try:
        known = os.stat(path)
    except FileNotFoundError:
        return None
    return {"mode": stat.S_IMODE(known.st_mode), "uid": known.st_uid, "writable": os.access(path, os.W_OK)}


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False
