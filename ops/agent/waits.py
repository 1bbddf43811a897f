"""Waiting for containers to be healthy and for nginx to have switched."""

from __future__ import annotations

import calendar
import http.client
import os
import select
import socket
import threading
import time
from typing import Any

from ops.agent.engine import Engine, EngineError
from ops.agent.files import keep, move, remove

Cancel = threading.Event


def http_get(address: str, port: int, path: str, host: str, timeout: float) -> tuple[int, str]:
    """Return status and body (first 400 characters) of one request over a fresh connection; raises OSError."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host, "Connection": "close", "User-Agent": "tidegate"})
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode("utf-8", "replace")[:400]
    except http.client.HTTPException as error:
        raise OSError(f"not an HTTP answer: {error!r}") from error
    finally:
        connection.close()


def http_ask(method: str, port: int, path: str, body: str | None, timeout: float) -> dict[str, Any]:
    """Return status and whole body of one request to a service on this machine's loopback; raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {"Content-Type": "application/json"} if body and body[:1] in "{[" else {}
    headers |= {"Content-Type": "application/x-www-form-urlencoded"} if body and not headers else {}
    try:
        connection.request(method, path, body.encode() if body else None, headers)
        answer = connection.getresponse()
        return {"status": answer.status, "body": answer.read().decode("utf-8", "replace")}
    except http.client.HTTPException as error:
        raise OSError(f"not an HTTP answer: {error!r}") from error
    finally:
        connection.close()


class _Target:
    """One container being waited for, with what was seen of it last."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.name = str(wanted["container"])
        self.last = "no answer yet"
        self.died = False
        self._streak = 0
        self._restarts: int | None = None

    def passes(self, engine: Engine) -> bool:
        """Look once; True when all that was asked of it holds."""
        known = engine.inspect(self.name)
        state = known["State"]
        if self._restarts is None:  # one that has served before may have been restarted then
            self._restarts = known["RestartCount"]
        if known["RestartCount"] > self._restarts or state["Status"] in ("exited", "dead", "restarting"):
            oom = ", out of memory" if state.get("OOMKilled") else ""
            self.died, self.last = True, f"exit code {state['ExitCode']}{oom}"
            return False
        if (state.get("Health") or {}).get("Status") == "unhealthy":
            self.last = f"the engine says unhealthy: {_last_output(state)}"
            return False
        answered = self._steady(state) if "steady" in self.wanted else self._answers()
        return answered and self._own_check(engine, known["Config"].get("Healthcheck") or {})

    def _own_check(self, engine: Engine, check: dict[str, Any]) -> bool:
        """Run the image's HEALTHCHECK once ourselves: the engine's own first one may be a whole interval away."""
        kind, *words = check.get("Test") or ["NONE"]
        if kind == "NONE":
            return True
        command = words if kind == "CMD" else ["/bin/sh", "-c", *words]
        try:
            code, said = engine.execute(self.name, command, float(check.get("Timeout") or 30e9) / 1e9)
        except EngineError as error:  # as the engine does with one that takes too long: it may pass the next time
            self.last = f"its health check did not end: {error}"
            return False
        self.last = f"its health check ended with exit code {code}: {said}"
        return code == 0

    def _steady(self, state: dict[str, Any]) -> bool:
        if state["Status"] != "running":
            return False
        whole, _, part = state["StartedAt"].rstrip("Z").partition(".")
        started = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{part or 0}")
        self.last = f"running for {time.time() - started:.1f} s"
        return time.time() - started >= float(self.wanted["steady"])

    def _answers(self) -> bool:
        wanted = self.wanted
        if self._streak < wanted["successes"]:
            try:
                status, body = http_get(wanted["address"], wanted["port"], wanted["path"], wanted["host"], 2.0)
                self.last = f"{wanted['path']} answered {status}: {body.strip()}"
            except OSError as error:
                status, self.last = 0, f"{wanted['path']} on port {wanted['port']}: {error}"
            self._streak = self._streak + 1 if 200 <= status < 300 else 0
        return bool(self._streak >= wanted["successes"])


def healthy(engine: Engine, wanted: list[dict[str, Any]], then: list[Any], timeout: float, cancel: Cancel) -> dict[str, Any]:
    """Wait until every container is healthy or one cannot be any more; `then`: calls of the engine to make when they are.

    Wanted, each: container, and either address, port, path, host, successes, interval, or steady (seconds to stay up).
    Returns {"ok": bool, "container": name of the failed one, "reason": died | timeout | cancelled, "last": text}.
    """
    deadline = time.monotonic() + timeout
    targets = [_Target(one) for one in wanted]
    interval = min(float(one.get("interval", 0.1)) for one in wanted)
    stream = engine.events([target.name for target in targets])
    try:
        while pending := [target for target in targets if not target.passes(engine)]:
            first = next((target for target in pending if target.died), pending[0])
            late = "timeout" if time.monotonic() > deadline else ""
            if reason := "died" if first.died else "cancelled" if cancel.is_set() else late:
                return {"ok": False, "container": first.name, "reason": reason, "last": first.last}
            _rest(stream, interval)
    finally:
        stream.close()
    engine.sequence(then)
    return {"ok": True}


def ended(engine: Engine, container: str, timeout: float, cancel: Cancel) -> dict[str, Any]:
    """Wait until a container has ended; returns its exit code, or the reason timeout | cancelled."""
    deadline = time.monotonic() + timeout
    stream = engine.events([container])
    try:
        while (state := engine.inspect(container)["State"])["Status"] not in ("exited", "dead"):
            if cancel.is_set() or time.monotonic() > deadline:
                return {"reason": "cancelled" if cancel.is_set() else "timeout"}
            _rest(stream, 0.5)
    finally:
        stream.close()
    return {"code": state["ExitCode"]}


def _last_output(state: dict[str, Any]) -> str:
    log = (state.get("Health") or {}).get("Log") or [{}]
    return str(log[-1].get("Output", "")).strip()[-400:]


def _rest(stream: socket.socket, seconds: float) -> None:
    readable, _, _ = select.select([stream], [], [], seconds)
    if readable and not stream.recv(65536):
        raise OSError("the engine closed its event stream")


def _workers(master: int) -> list[int]:
    if not os.path.exists(f"/proc/{master}/stat"):
        raise OSError("nginx's processes cannot be seen: /proc is mounted with hidepid, and we are not in its gid= group")
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(int(entry)) == master]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _accepts(pid: int, master: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline") as line:
            return _parent(pid) == master and "shutting down" not in line.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def switch(engine: Engine, edge: str, staged: str, live: str, check: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Rename the staged nginx file into place (no staged: remove the live one), reload, and wait for the proof.

    The proof: fresh connections answer with the new generation several times in a row (none: 404) and every old worker
    has stopped accepting. check: address, port, host, answer, successes. Returns ok, seconds, old workers, last answer.
    """
    master = int(engine.inspect(edge)["State"]["Pid"])
    old = _workers(master)
    began = time.monotonic()
    if staged:
        keep(live, f"{staged}.back")
        move(staged, live)
    else:
        remove(live)
    engine.signal(edge, "HUP")
    streak, last = 0, ""
    while streak < check["successes"] or any(_accepts(pid, master) for pid in old):
        try:
            status, last = http_get(check["address"], check["port"], "/", check["host"], 1.0)
        except OSError as error:
            status, last = 0, str(error)
        streak = streak + 1 if last.strip() == check["answer"] or (not check["answer"] and status == 404) else 0
        if time.monotonic() - began > timeout:
            return {"ok": False, "seconds": timeout, "old": old, "last": last}
        select.select([], [], [], 0.0 if streak else 0.005)
    return {"ok": True, "seconds": time.monotonic() - began, "old": old, "last": last}


def workers_gone(engine: Engine, edge: str, old: list[int], timeout: float, cancel: Cancel) -> dict[str, Any]:
    """Wait until the old nginx workers have ended; returns whether they did and how long it took."""
    master = int(engine.inspect(edge)["State"]["Pid"])
    began = time.monotonic()
    while left := [pid for pid in old if _parent(pid) == master]:
        if time.monotonic() - began > timeout or cancel.wait(0.02):
            return {"ok": False, "seconds": time.monotonic() - began, "left": left}
    return {"ok": True, "seconds": time.monotonic() - began, "left": []}


def listening(engine: Engine, container: str) -> list[int]:
    """Return the TCP ports on which something listens inside a container."""
    pid = engine.inspect(container)["State"]["Pid"]
    found = set()
    for name in ("tcp", "tcp6") if pid else ():
        with open(f"/proc/{pid}/net/{name}") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return sorted(found)


def answers(address: str, port: int, timeout: float) -> bool:
    """Wait until something answers HTTP on a port, with whatever status; tells whether it did."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            http_get(address, port, "/", "localhost", 1.0)
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            select.select([], [], [], 0.05)
