"""All that `inv monitoring.check` looks at: files on every server, dashboards, and what runs already."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import yaml

from monitoring.check import Problem, check_files
from monitoring.dead import Asked, Dead, Fault, Prometheus, dead_series, faults_of_logs, faults_of_rules
from monitoring.files import File
from monitoring.images import Lock
from monitoring.series import DASHBOARDS, panels_of
from ops.console import Console
from ops.errors import TidegateError

if TYPE_CHECKING:
    from docker import APIClient

_PLACES = 3  # where a series is named, that are shown
_SOURCES = "grafana/provisioning/datasources/"
_BUILT_IN = ("grafana", "-- Grafana --", "-- Mixed --", "-- Dashboard --")


@dataclass(frozen=True)
class Checked:
    """All that was found; `faults` and `dead` are of the stack that runs."""

    tools: Mapping[str, Sequence[Problem]]  # by server
    dashboards: Sequence[Problem]
    faults: Sequence[Fault]
    dead: Sequence[Dead]
    not_asked: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong; what was skipped and what is not there yet is not."""
        judged = [one.ok for found in (*self.tools.values(), self.dashboards) for one in found]
        return False not in judged and not self.faults and all(one.not_yet for one in self.dead)

    def document(self) -> dict[str, Any]:
        """Return what was found, for scripts."""
        return {"ok": self.ok, **asdict(self)}


def run(
    servers: Mapping[str, tuple[APIClient, Sequence[File]]], lock: Lock, prometheus: Prometheus | None, loki: Asked | None
) -> Checked:
    """Check every server's files on its engine, and the running Prometheus and Loki; None is one that is not there to be asked."""
    with ThreadPoolExecutor(len(servers)) as pool:
        tools = dict(
            zip(servers, pool.map(lambda server: check_files(server[0], server[1], lock), servers.values()), strict=True)
        )
    files = [file for _, some in servers.values() for file in some]
    dashboards = check_dashboards(files)
    wrong = {one.service for found in (*tools.values(), dashboards) for one in found if one.ok is False}
    sound = [file for file in files if file.service not in wrong and file.path not in wrong]
    faults: list[Fault] = []
    with _told("loki", faults):
        faults += faults_of_logs(loki, sound) if loki else []
    dead: list[Dead] = []
    with _told("prometheus", faults):
        faults += faults_of_rules(prometheus, sound) if prometheus else []
        dead += dead_series(prometheus, sound) if prometheus else []
    not_asked = [name for name, service in (("prometheus", prometheus), ("loki", loki)) if not service and _has(files, name)]
    return Checked(tools, dashboards, faults, dead, not_asked)


def check_dashboards(files: Sequence[File]) -> list[Problem]:
    """Return what is wrong with each dashboard's structure: Grafana would leave it out, or leave panels empty."""
    boards = {file.path: _loaded(file) for file in files if file.path.startswith(DASHBOARDS)}
    known = {uid for file in files if file.path.startswith(_SOURCES) for uid in _source_uids(file)}
    uids = Counter(str(board.get("uid")) for board in boards.values())
    return [_judged(path, board, known, shared=uids[str(board.get("uid"))] > 1) for path, board in boards.items()]


def show(console: Console, checked: Checked) -> None:
    """Print what was found."""
    rows = [(server, one.service, one.tool, one.kind, one.said) for server, found in checked.tools.items() for one in found]
    console.table("Configuration, judged by the programs that read it", ("server", "service", "by", "", ""), rows)
    if wrong := [(one.service, one.said) for one in checked.dashboards if not one.ok]:
        console.table("Dashboards", ("file", "what is wrong"), wrong)
    if checked.faults:
        console.table("What does not run as it should", ("rule", "why"), [(one.rule, one.why) for one in checked.faults])
    for title, wanted in (("Series that nobody tells", False), ("Not there yet, and that may be so", True)):
        if some := [(one.selector, _places(one.where), one.part, one.why) for one in checked.dead if one.not_yet is wanted]:
            console.table(title, ("series", "named by", "told by", "why"), some)
    for name in checked.not_asked:
        console.say(f"{name} does not run, so nobody could say which of its rules work: inv monitoring.up", "yellow")
    if checked.ok:
        console.say("nothing is wrong", "bold green")


@contextmanager
def _told(service: str, faults: list[Fault]) -> Iterator[None]:
    """Have a service that cannot be asked among what was found, rather than end there."""
    try:
        yield
    except TidegateError as error:
        faults.append(Fault(service, ": ".join(part for part in (error.what, error.why) if part)))


def _places(where: Sequence[str]) -> str:
    more = f" and {len(where) - _PLACES} more" if len(where) > _PLACES else ""
    return ", ".join(where[:_PLACES]) + more


def _has(files: Sequence[File], service: str) -> bool:
    return any(file.service == service for file in files)


def _loaded(file: File) -> Mapping[str, Any]:
    try:
        found = json.loads(file.content)
    except ValueError as error:
        return {"wrong": f"it is no JSON: {error}"}
    return found if isinstance(found, dict) else {"wrong": "it is no JSON object"}


def _source_uids(file: File) -> list[str]:
    return [str(one.get("uid")) for one in (yaml.safe_load(file.content) or {}).get("datasources") or ()]


def _judged(path: str, board: Mapping[str, Any], known: set[str], *, shared: bool) -> Problem:
    wrong = [board["wrong"]] if "wrong" in board else [*_board_faults(board, shared=shared), *_panel_faults(board, known)]
    return Problem(path, "structure", ok=not wrong, said="; ".join(wrong))


def _board_faults(board: Mapping[str, Any], *, shared: bool) -> Iterator[str]:
    if not re.fullmatch(r"[\w-]{1,40}", str(board.get("uid") or "")):
        yield f"uid {board.get('uid')!r} is not 1 to 40 letters, digits, - or _"
    elif shared:
        yield f"uid {board['uid']!r} is another dashboard's too"
    if not str(board.get("title") or "").strip():
        yield "it has no title"


def _panel_faults(board: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    panels = list(panels_of(board))
    for number, count in Counter(panel.get("id") for panel in panels).items():
        if count > 1 or number is None:
            yield f"{count} panels have the id {number}"
    for panel in panels:
        for asking in (panel, *(panel.get("targets") or ())):
            uid = (asking.get("datasource") or {}).get("uid")
            if uid and not uid.startswith("$") and uid not in known and uid not in _BUILT_IN:
                yield f"panel {panel.get('title') or panel.get('id')!r} asks the datasource {uid!r}, which is not provisioned"
