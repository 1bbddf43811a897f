"""How MariaDB's and MySQL's programs are called, and how what they write is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from backup.agent.toolbox import INSIDE

OLDER = {"mariadb": "mysql", "mariadb-dump": "mysqldump", "mariadb-admin": "mysqladmin"}
OPTIONS = "options"
FROM_OPTIONS = f"--defaults-file={INSIDE}/{OPTIONS}"
# Through a container's own loopback there is nobody to be told from the server by its certificate.
TRUSTED = "loose-ssl-verify-server-cert=0"
CLIENT = [
    "--batch",
    "--raw",
    "--skip-column-names",
    "--unbuffered",
    "--loose-skip-print-query-on-error",
    "--default-character-set=utf8mb4",
]


def tool(name: str, arguments: Sequence[str]) -> list[str]:
    """Return the command for a program under the name that the image has it by."""
    return ["sh", "-c", 'p=$(command -v "$0" || command -v "$1") && shift && exec "$p" "$@"', name, OLDER[name], *arguments]


def client(database: str) -> list[str]:
    """Return the command that runs SQL from standard input in a toolbox and stops at the first error."""
    return tool("mariadb", [FROM_OPTIONS, *CLIENT, *([f"--database={database}"] if database else [])])


def options(host: str, port: int, user: str, password: str) -> str:
    """Return the file from which the programs read how to log in."""
    lines = [f"{key}={_quoted(value)}" for key, value in (("host", host), ("user", user), ("password", password))]
    return "\n".join(
        [
            "[client]",
            *lines,
            f"port={port}",
            "protocol=tcp",
            "loose-max-allowed-packet=1G",
            *([TRUSTED] if host == "127.0.0.1" else []),
            "",
        ]
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def lines(text: str) -> list[Any]:
    """Decode an answer, line by line."""
    return [json.loads(line) for line in text.split("\n") if line]  # a name may have other ends of lines in it


def read_counts(text: str) -> dict[str, int]:
    """Read what `count` answers."""
    return {table: int(number) for table, number in lines(text)}
