"""What a deploy asks of the monitoring: no alerts of the containers that it swaps. tasks.py hands this to it.

The silence is of one app's containers and of nothing that its users feel, and ends by itself, whatever becomes of us.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from monitoring.alerts import OF_A_SWAP, Silence
from monitoring.files import PROJECT
from monitoring.live import Http
from monitoring.live_alertmanager import Alertmanager
from monitoring.silences import one_of, server_time
from ops.config import Environment
from ops.errors import Refused, TidegateError
from ops.link import Link
from ops.who import who

LASTS = timedelta(minutes=15)
AFTERWARDS = timedelta(minutes=2)
BUDGET = 2.0  # seconds that a deploy waits for us, in all, each time


@contextmanager
def watching_deploys(env: Environment, links: Sequence[Link]) -> Iterator[DeployWatch]:
    """Hand out what a deploy asks, over its own connection where the stack is on one of its servers."""
    link = next((link for link in links if link.host == env.watcher), None)
    if link:
        yield DeployWatch(Http(link))
        return
    own = Link(env, env.watcher)
    try:
        yield DeployWatch(Http(own))
    finally:
        own.close()


class DeployWatch:
    """The silence of one deploy. Nothing here fails a deploy: what goes wrong is a remark."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._silence: Silence | None = None

    def begin(self, app: str, servers: Sequence[str], release: str) -> str:
        """Open it for an app on these servers; returns a remark to show, and none where nothing is watched."""
        hosts = [server.rpartition("@")[2] for server in servers]  # as alerts name them
        about = (one_of("app", [app]), one_of("host", hosts), one_of("alertname", OF_A_SWAP))

        def opened(http: Http) -> str:
            if not _is_watched(self._http):
                return ""
            now = server_time(http)
            for one in Alertmanager(http).silences():
                if one.state == "active" and set(one.matchers) == set(about):  # of a deploy that was killed
                    Alertmanager(http).expire(one.id)
            self._silence = Alertmanager(http).silence(
                Silence(about, now, now + LASTS, who(), f"deploy of {app}, release {release}")
            )
            return f"alerts of {app}'s containers are silent until {_clock(self._silence)}"

        return self._tried(opened, f"alerts of {app}'s containers are not silenced")

    def end(self, *, ok: bool) -> str:
        """Let it end soon, so that the last of the old is gone; at once after a failure, since what is broken then is to be told."""
        silence = self._silence
        if silence is None:
            return ""

        def ended(http: Http) -> str:
            if not ok:
                Alertmanager(http).expire(silence.id)
                return ""
            known = Alertmanager(http).known(silence.id)
            shorter = replace(known, ends=min(known.ends, server_time(http) + AFTERWARDS))
            return f"alerts of its containers are told again from {_clock(Alertmanager(http).silence(shorter))}"

        return self._tried(ended, f"the silence of this deploy ends only at {_clock(silence)}")

    def _tried(self, what: Callable[[Http], str], else_: str) -> str:
        try:
            return what(_Hasty(self._http, BUDGET))
        except TimeoutError:
            return f"{else_}: no answer within {BUDGET:g} s"
        except TidegateError as error:
            return f"{else_}: {error.what}{f' ({error.why})' if error.why else ''}"
        except Exception as error:  # noqa: BLE001 - whatever the monitoring is up to, it is no reason for a deploy to fail
            return f"{else_}: {type(error).__name__}: {error}"


def _is_watched(http: Http) -> bool:
    """Return whether there is a stack at all: without one there is nothing to remark."""
    return http.link.send("state_of", container=f"{PROJECT}-alertmanager-1").result(BUDGET) is not None


class _Hasty(Http):
    """The same requests, none of which waits beyond what is left of a budget."""

    def __init__(self, http: Http, budget: float) -> None:
        self.name = http.name
        self._http = http
        self._ends = time.monotonic() + budget

    def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise Refused("the monitoring took too long", where=self.name, why=f"no answer within {BUDGET:g} s")
        return self._http.ask(method, port, path, body, timeout=min(timeout, left))


def _clock(silence: Silence) -> str:
    return f"{silence.ends:%H:%M} UTC"
