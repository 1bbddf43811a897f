"""The command line of the program on the server."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backup.agent.attempts import LONGEST
from backup.agent.commands import COMMANDS
from backup.agent.errors import BackupError, Refused, Stopped
from backup.agent.kinds import KINDS
from backup.agent.model import HOME, LEVELS, TYPES, Settings
from backup.agent.report import Report
from backup.agent.work import Work

OTHER_PROGRAM = 9
STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code."""
    os.umask(0o077)
    asked = _parser().parse_args(arguments)
    digest = _digest()
    if asked.expect and asked.expect != digest:
        return OTHER_PROGRAM
    report = Report(sys.stderr if asked.command == "send" else None, as_json=asked.json)
    try:
        _catch_signals()
        request = _tethered() if asked.tether else {}
        work = Work(_settings(asked), KINDS, report, request, digest[:12])
        found = COMMANDS[asked.command](work, asked)
        if asked.command != "send":
            report.result(found)
    except BackupError as error:
        report.error(error.what, error.why, error.fix, error.exit_code)
        return error.exit_code
    except OSError as error:
        report.error(str(error), "", "", 1)
        return 1
    except Stopped:
        report.error("stopped, and undone", "", "", STOPPED)
        return STOPPED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backup.pyz", description=__doc__)
    parser.add_argument("--version", action="version", version=_digest()[:12])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=(command.__doc__ or "").partition(".")[0])
        one.add_argument("--app", required=True)
        one.add_argument("--home", default=HOME)
        one.add_argument("--json", action="store_true")
        one.add_argument("--tether", action="store_true")
        one.add_argument("--expect", default="")
        for flags, options in _OPTIONS.get(name, {}).items():
            one.add_argument(flags, **options)
    return parser


def _types(text: str) -> str:
    if set(text.split(",")) - set(TYPES):
        raise argparse.ArgumentTypeError(f"{text}: types are {', '.join(TYPES)}")
    return text


_ID: dict[str, Any] = {"help": "a backup's id"}
_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "run": {
        "--types": {"default": "manual", "type": _types}, "--id": {"default": ""}, "--by": {"default": ""}, "--before": {"default": ""},
        "--first": {"action": "store_true"}, "--only": {"default": ""},
    },
    "verify": {"id": {**_ID, "nargs": "?", "default": ""}, "--level": {"choices": LEVELS, "default": "full"}},
    "prune": {"--dry-run": {"action": "store_true"}, "--thaw": {"action": "store_true"}},
    "restore": {
        "id": _ID, "--only": {"default": ""}, "--by": {"default": ""}, "--force": {"action": "store_true"},
        "--skip-safety": {"action": "store_true"},
    },
    "rehearse": {"id": {**_ID, "nargs": "?", "default": ""}},
    "retrieve": {"id": _ID},
    "pin": {"id": _ID, "note": {}},
    "unpin": {"id": _ID},
    "send": {"id": _ID, "file": {}, "offset": {"type": int}},
}  # fmt: skip


def _digest() -> str:
    """Return the SHA-256 of this very program."""
    program = Path(sys.argv[0])
    return hashlib.sha256(program.read_bytes()).hexdigest() if program.is_file() else "0" * 64


def _settings(asked: argparse.Namespace) -> Settings:
    path = Path(asked.home) / asked.app / "backup.json"
    fix = "inv backup.status writes them"
    try:
        if path.stat().st_mode & 0o077:
            raise Refused(f"{path} can be read by others", f"mode {path.stat().st_mode & 0o777:04o}", f"chmod 600 {path}")
        return Settings.from_json(path.read_text())
    except FileNotFoundError:
        raise Refused(f"there are no settings for backups of {asked.app}", str(path), fix) from None
    except ValueError as error:
        raise Refused(f"{path} cannot be read", str(error), fix) from error


def _catch_signals() -> None:
    """Turn the first signal into Stopped; those after it must not cut the undo short."""

    def stop(_number: int, _frame: object) -> None:
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped

    def late(_number: int, _frame: object) -> None:
        raise BackupError(f"it did not end within {LONGEST // 3600} hours", "something it waits for hangs", "inv backup.status")

    for one in _SIGNALS:
        signal.signal(one, stop)
    signal.signal(signal.SIGALRM, late)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _tethered() -> dict[str, Any]:
    """Read the request, and stop when its other end is gone."""
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(0, 65536)
        if not block:
            raise Refused("the request ended early")
        line += block
    threading.Thread(target=_hold, daemon=True).start()
    request: dict[str, Any] = json.loads(line)
    return request


def _hold() -> None:
    while os.read(0, 65536):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
