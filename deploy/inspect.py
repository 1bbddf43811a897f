"""Looking without touching: status, history, logs and one-off commands; no lock is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from deploy.docker_server import DockerServer
from deploy.model import WEB, Container, HostState
from deploy.observe import app_home, records
from deploy.plan import rollback_candidates
from ops.config import Environment, HostAddress
from ops.errors import Failed, Refused, TidegateError
from ops.link import Link

if TYPE_CHECKING:
    from docker import APIClient

_LAST_LINES = 2.0


@dataclass(frozen=True)
class Row:
    """One process on one server, as `deploy.status` shows it."""

    server: str
    process: str
    version: str
    release: str
    slot: str
    state: str
    image: str
    note: str = ""


@contextmanager
def connected(env: Environment, host: HostAddress) -> Iterator[tuple[Link, DockerServer]]:
    """Connect to a server for as long as the block runs."""
    link = Link(env, host)
    try:
        yield link, DockerServer(env, link, None, lambda done, total: None)
    finally:
        link.close()


def observe(env: Environment) -> tuple[list[HostState], list[TidegateError]]:
    """Look at all servers at once; those that cannot be reached are in the second list."""
    with ThreadPoolExecutor(len(env.hosts)) as pool:
        seen = list(pool.map(lambda host: _observe(env, host), env.hosts))
    return [one for one in seen if isinstance(one, HostState)], [one for one in seen if isinstance(one, TidegateError)]


def _observe(env: Environment, host: HostAddress) -> HostState | TidegateError:
    try:
        with connected(env, host) as (_, server):
            return server.observe()
    except TidegateError as error:
        return error


def rows(states: Sequence[HostState]) -> list[Row]:
    """Return what runs or should, per server and process. Pure."""
    return [row for state in states for row in _rows(state)]


def _rows(state: HostState) -> list[Row]:
    serving = state.of_release(state.serving)
    others = [one for one in state.containers if one.running and one not in serving]
    found = [_row(state, one, "serves" if one.process == WEB else "") for one in serving]
    found += [_row(state, one, "left by a deploy that did not finish") for one in others]
    why = _disagreement(state) if state.restoring else ""
    return found or [Row(state.host, "-", "-", state.serving or "-", "-", "nothing runs", "-", why)]


def _row(state: HostState, one: Container, note: str) -> Row:
    wrong = _disagreement(state) if one.process == WEB and not _agrees(state) else note
    return Row(
        state.host, one.process, one.version, one.release, one.slot, one.status, one.image.removeprefix("sha256:")[:12], wrong
    )


def _agrees(state: HostState) -> bool:
    return state.edge.answering == state.edge.generation and not state.restoring


def _disagreement(state: HostState) -> str:
    if state.restoring:
        return "a restore is under way, or died: inv backup.restore-undo"
    return "nginx answers with another generation: deploy again"


def drift(states: Sequence[HostState]) -> str:
    """Say how servers differ, or nothing. Pure."""
    serving = {state.host: state.serving or "nothing" for state in states}
    if len(set(serving.values())) < 2:
        return ""
    return "servers differ: " + ", ".join(f"{host} serves {release}" for host, release in serving.items())


def kept(states: Sequence[HostState]) -> list[str]:
    """Return the releases a rollback can go to. Pure."""
    if not states:
        return []
    serving = {state.serving for state in states}
    return [one.id for one in rollback_candidates(tuple(states)) if serving != {one.id}]


def history(env: Environment, limit: int) -> list[dict[str, Any]]:
    """Return the last operations of all servers, newest first, from their journals. Raises Unreachable."""

    def read(host: HostAddress) -> list[dict[str, Any]]:
        with connected(env, host) as (link, _):
            text = link.call("read", path=f"{app_home(env.app.name)}/journal.jsonl") or ""
        return [{"server": host.name, **one} for one in operations(records(text))]

    with ThreadPoolExecutor(len(env.hosts)) as pool:
        found = [one for journal in pool.map(read, env.hosts) for one in journal]
    return sorted(found, key=lambda one: str(one["time"]), reverse=True)[:limit]


def operations(journal: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the beginnings and ends in a journal; one without an end says so. Pure."""
    found: dict[str, dict[str, Any]] = {}
    for record in journal:
        if record["event"] == "begin":
            found[record["operation"]] = {**record, "result": "never finished"}
        elif record["event"] == "end" and record["operation"] in found:
            found[record["operation"]] |= {key: value for key, value in record.items() if key not in ("event", "time")}
    return list(found.values())


def logs(env: Environment, process: str, tail: int, follow: bool, show: Callable[[str, str], None]) -> None:  # noqa: FBT001
    """Pass on the log lines of the serving containers, all servers at once. Raises Refused when nothing serves."""
    pass_on([LogStream(env, host, process, tail, follow) for host in env.hosts], show)


class Stream(Protocol):
    """Lines of one server that end, at the latest, when it is closed."""

    @property
    def name(self) -> str:
        """Return how people know the server."""

    def lines(self) -> Iterator[str]:
        """Wait for lines. Raises TidegateError."""

    def close(self) -> None:
        """End it, from any thread."""


class LogStream:
    """The log of a process on one server, over a connection of its own."""

    def __init__(self, env: Environment, host: HostAddress, process: str, tail: int, follow: bool) -> None:  # noqa: FBT001
        self.name = host.name
        self._link = Link(env, host)
        self._server = DockerServer(env, self._link, None, lambda done, total: None)
        self._wanted = process, tail, follow

    def lines(self) -> Iterator[str]:
        """Yield the lines; raises Refused when nothing serves, Unreachable when the connection ends before the log."""
        process, tail, follow = self._wanted
        one = _serving(self._server.observe(), process)
        try:
            yield from _lines(self._server.engine, one.name, tail, follow=follow)
        except Exception as error:  # the SDK, requests and urllib3 share no base class
            self._link.call("ping")
            raise Failed("the log broke off", where=self.name, why=str(error), fix="inv deploy.status shows what runs") from error
        self._link.call("ping")  # a lost connection looks like the end of a log, too

    def close(self) -> None:
        """Cut the connection."""
        self._link.close()


def pass_on(streams: Sequence[Stream], show: Callable[[str, str], None]) -> None:
    """Show the lines of all streams until each has ended, then raise the first error; errors are shown as they come.

    Whatever ends the wait, such as Ctrl-C, closes the streams first: that is what ends those that wait for a line.
    """
    ended: SimpleQueue[tuple[str, Exception | None]] = SimpleQueue()

    def read(stream: Stream) -> None:
        try:
            for line in stream.lines():
                show(stream.name, line)
            ended.put((stream.name, None))
        except Exception as error:  # noqa: BLE001  # it is raised where the others have ended
            ended.put((stream.name, error))

    # Daemons: a pool would be waited for at the exit of the program, a thread that hangs with it.
    threads = [threading.Thread(target=read, args=(stream,), daemon=True, name=f"log {stream.name}") for stream in streams]
    try:
        for thread in threads:
            thread.start()
        errors = [error for _ in streams if (error := _told(*ended.get(), show, alone=len(streams) == 1))]
    finally:
        with ThreadPoolExecutor(len(streams)) as pool:
            list(pool.map(lambda stream: stream.close(), streams))
        for thread in threads:
            thread.join(_LAST_LINES)
    if errors:
        raise errors[0]


def _told(name: str, error: Exception | None, show: Callable[[str, str], None], *, alone: bool) -> Exception | None:
    if error and not alone:
        show(name, f"✗ {error}")
    return error


def _lines(engine: APIClient, name: str, tail: int, *, follow: bool) -> Iterator[str]:
    rest = b""
    for chunk in engine.logs(name, tail=tail, stream=True, follow=follow):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
    if rest:
        yield rest.decode("utf-8", "replace")


def run(env: Environment, process: str, command: Sequence[str], show: Callable[[str], None]) -> int:
    """Run a command in the serving container of the first server; returns its exit code. Raises Refused."""
    with connected(env, env.hosts[0]) as (_, server):
        one = _serving(server.observe(), process)
        made = server.engine.exec_create(one.name, list(command))
        for chunk in server.engine.exec_start(made["Id"], stream=True):
            show(chunk.decode("utf-8", "replace"))
        return int(server.engine.exec_inspect(made["Id"])["ExitCode"])


def _serving(state: HostState, process: str) -> Container:
    for one in state.of_release(state.serving):
        if one.process == process and one.running:
            return one
    known = ", ".join(sorted({one.process for one in state.of_release(state.serving)})) or "none"
    raise Refused(f"no {process} process serves", where=state.host, why=f"processes of the serving release: {known}",
                  fix="inv deploy.status shows what runs")  # fmt: skip
