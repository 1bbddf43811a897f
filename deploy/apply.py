"""Carrying out a plan: phase by phase with a barrier between, every step journalled, undone on failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from deploy.plan import Phase, Plan
from deploy.server import Server
from deploy.steps import Step, Switch
from ops.errors import Failed, NeedsPerson, TidegateError
from ops.interrupts import no_more_interrupts, wait_for


class Reporter(Protocol):
    """Who tells people what is happening."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def phase_done(self, name: str, seconds: float) -> None:
        """A phase is over on all servers."""

    def step(self, server: str, title: str) -> None:
        """A step begins."""

    def note(self, text: str) -> None:
        """Something worth knowing."""


@dataclass
class Outcome:
    """How it went: seconds per phase and what could not be finished afterwards."""

    phases: dict[str, float] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)


class Run:
    """One execution of a plan on its servers."""

    def __init__(self, plan: Plan, servers: Mapping[str, Server], operation: str, reporter: Reporter) -> None:
        self._plan = plan
        self._servers = servers
        self._operation = operation
        self._reporter = reporter
        self._begun: dict[str, list[Step]] = {name: [] for name in servers}
        self._futures: list[Future[None]] = []
        self._stopping = threading.Event()
        self.outcome = Outcome()

    def apply(self) -> Outcome:
        """Carry the plan out. Raises what stopped it, once undone; NeedsPerson when the undo failed too."""
        with ThreadPoolExecutor(max(1, len(self._servers))) as pool:
            try:
                for phase in self._plan.phases:
                    if not phase.final:
                        self._advance(phase, pool)
                no_more_interrupts()
            except BaseException as error:
                no_more_interrupts()
                self._stop_all()
                self._undo(pool, error)
                raise
            for phase in self._plan.phases:
                if phase.final:
                    self._finish(phase, pool)
        return self.outcome

    def _advance(self, phase: Phase, pool: ThreadPoolExecutor) -> None:
        with self._timed(phase):
            self._futures = [pool.submit(self._steps, phase, name) for name in self._servers]
            wait_for(self._futures, FIRST_EXCEPTION)
            if failed := _failures(self._futures):
                raise failed[0]

    def _finish(self, phase: Phase, pool: ThreadPoolExecutor) -> None:
        """Clean up; what cannot be done now is left to the next deploy, since the new release is proven."""
        with self._timed(phase):
            futures = {name: pool.submit(self._steps, phase, name) for name in self._servers}
            wait(futures.values())
        for name, future in futures.items():
            if error := future.exception():
                self.outcome.leftovers.append(f"{name}: {phase.name} was not finished, the next deploy does it: {error}")

    def _timed(self, phase: Phase) -> _Timer:
        return _Timer(phase.name, self._reporter, self.outcome)

    def _steps(self, phase: Phase, name: str) -> None:
        server = self._servers[name]
        for step in phase.steps.get(name, ()):
            if self._stopping.is_set():
                return
            record = {"event": "step", "operation": self._operation, "phase": phase.name, "step": step.title}
            server.journal({**record, "state": "before"}, wait=False)
            self._begun[name].append(step)
            _tell(self._reporter.step, name, step.title)
            step.apply(server)
            # After a final phase nothing follows that would show what was only sent to have failed.
            server.journal({**record, "state": "after"}, wait=phase.final)

    def _stop_all(self) -> None:
        """End the waits on all servers, so that nobody is still at work when the undo begins."""
        self._stopping.set()
        for server in self._servers.values():
            _quietly(server.cancel)
        wait(self._futures)

    def _undo(self, pool: ThreadPoolExecutor, cause: BaseException) -> None:
        _tell(self._reporter.note, "undoing")
        futures = {name: pool.submit(self._undo_one, name) for name in self._servers}
        wait(futures.values())
        broken = {name: error for name, future in futures.items() if (error := future.exception())}
        if not broken:
            return
        switched = [name for name in broken if any(isinstance(step, Switch) for step in self._begun[name])]
        words = "\n  ".join(f"{name}: {error}" for name, error in broken.items())
        if switched:
            raise NeedsPerson(
                f"{self._plan.kind} failed and could not be undone on {', '.join(switched)}", why=f"{cause}\n  undo: {words}",
                fix=f"inv deploy.status -e {self._plan.environment} when the server is reachable, then deploy again",
            ) from cause  # fmt: skip
        raise Failed(f"{self._plan.kind} failed; what serves was not touched, but something is left to clean up",
                     why=f"{cause}\n  undo: {words}", fix="the next deploy cleans it up first") from cause  # fmt: skip

    def _undo_one(self, name: str) -> None:
        server, errors = self._servers[name], []
        for step in reversed(self._begun[name]):
            record = {"event": "step", "operation": self._operation, "step": step.title}
            server.resume()
            server.journal({**record, "state": "undo"}, wait=False, optional=True)
            try:
                step.undo(server)
            except TidegateError as error:
                errors.append(error)
                if isinstance(step, Switch):  # the new release may serve, so the rest of it must stay
                    break
            server.journal({**record, "state": "undone"}, wait=False, optional=True)
        if errors:
            raise errors[0]


class _Timer:
    def __init__(self, name: str, reporter: Reporter, outcome: Outcome) -> None:
        self._name, self._reporter, self._outcome = name, reporter, outcome

    def __enter__(self) -> None:
        self._began = time.monotonic()
        _tell(self._reporter.phase, self._name)

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = time.monotonic() - self._began
        self._outcome.phases[self._name] = round(seconds, 3)
        if kind is None:
            _tell(self._reporter.phase_done, self._name, seconds)


def _failures(futures: Iterable[Future[None]]) -> list[BaseException]:
    return [error for future in futures if future.done() and (error := future.exception())]


def _tell(report: Callable[..., None], *what: object) -> None:
    """Report; a terminal that is gone must not keep anything from being carried out or undone."""
    try:
        report(*what)
    except Exception:  # noqa: BLE001, S110  # whatever a reporter does, it is not why we are here
        pass


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except TidegateError:
        pass  # a connection that is gone has nothing to cancel; the undo reports it
