"""Waiting until what was brought up works: files read anew, every target answering."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from monitoring.inventory import Inventory
from monitoring.live import PORTS, Http, Prometheus
from ops.errors import Failed, Refused, TidegateError
from ops.link import Link

PAUSE = 0.5  # between two looks: neither Prometheus nor Alertmanager tells of such a change by itself
RELOAD_SECONDS = 30.0
_MAY_BE_ABSENT = ("probe", "app")  # nothing has to be deployed yet, and a domain may lead elsewhere still


def await_targets(
    link: Link, known: Inventory, seconds: float, say: Callable[[str], None], crashed: Callable[[], str], host: str = ""
) -> int:
    """Wait until Prometheus has reached everything that is watched (of one `host`); returns how many targets. Raises Failed.

    What `crashed` returns is why waiting is of no use.
    """
    prometheus, deadline, told = Prometheus(Http(link)), time.monotonic() + seconds, ""
    while missing := _silent(targets := _targets(prometheus, host), known, host):
        if words := crashed():
            raise Failed(
                "a container of the stack does not stay up", where=link.name, why=words, fix="mend it and run this again"
            )
        if time.monotonic() > deadline:
            raise Failed("not everything that is watched answers", where=link.name, why="\n         ".join(missing),
                         fix="mend it and run this again; what answers is watched already")  # fmt: skip
        if (now := f"waiting for {len(missing)} {'target' if len(missing) == 1 else 'targets'}") != told:
            say(told := now)
        time.sleep(PAUSE)
    return len(targets)


def _targets(prometheus: Prometheus, host: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = prometheus.get("/api/v1/targets", state="active")["activeTargets"]
    except TidegateError:  # it starts, or reads its write-ahead log; _silent then names every target
        return []
    return [one for one in found if not host or one["labels"].get("host") == host]


def _silent(targets: Sequence[dict[str, Any]], known: Inventory, only: str = "") -> list[str]:
    """Return what does not answer, each with the reason."""
    wanted = {(host.name, job): f"{job} of {host.name}" for host in known.hosts for job in host.jobs if only in ("", host.name)}
    seen = {(one["labels"].get("host", ""), one["labels"]["job"]): one for one in targets}
    absent = [f"{name}: not known to Prometheus yet" for key, name in wanted.items() if key not in seen]
    return sorted(absent) + sorted(_failing(targets)) or ([] if targets else ["Prometheus does not answer yet"])


def _failing(targets: Sequence[dict[str, Any]]) -> Iterator[str]:
    for one in targets:
        labels = one["labels"]
        if one["health"] != "up" and labels["job"] not in _MAY_BE_ABSENT:
            yield f"{labels['job']} of {labels.get('host', labels['instance'])}: {one['lastError'] or 'not asked yet'}"


def reload(link: Link, service: str, signal: Callable[[], None]) -> None:
    """Have Prometheus or Alertmanager read its files anew and wait until it has. Raises Failed where it refuses them."""
    was_good, before = _reloads(link, service)
    signal()
    deadline = time.monotonic() + RELOAD_SECONDS
    while (found := _reloads(link, service))[1] <= before:
        if (was_good and not found[0]) or time.monotonic() > deadline:  # else that may be the failure before this one
            raise Failed(f"{service} did not take its changed files and goes on with the old ones", where=link.name,
                         fix=f"inv monitoring.check -e {link.environment}; its log says more: docker logs tidegate-monitoring-{service}-1")  # fmt: skip
        time.sleep(PAUSE)


def _reloads(link: Link, service: str) -> tuple[bool, float]:
    """Return whether the last reading of the files went well, and when one last did."""
    text = Http(link).ask("GET", PORTS[service], "/metrics")[1]
    found = dict(re.findall(rf"^{service}_config_last_reload_(\w+) (\S+)$", text, re.MULTILINE))
    if "successful" not in found:
        raise Refused(
            f"{service} tells no figures", where=link.name, why=text[:200], fix=f"inv monitoring.status -e {link.environment}"
        )
    return float(found["successful"]) == 1.0, float(found["success_timestamp_seconds"])
