"""The operator dies or changes their mind in the middle of a deploy, while users are there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest

from tests.integration.project import App, assert_same, wait_until

pytestmark = pytest.mark.integration
Record = Callable[[str, object], None]
HALF_DONE = "find /srv/tidegate -name '*.staged' -o -path '*/staged/*.conf' -o -path '*/staged/*.test' -o -name '*.new'"
MOMENTS = (
    ("switch requests", 0.03),
    *(
        pytest.param(moment, delay, marks=pytest.mark.slow)
        for moment, delay in (
            ("ship", 0.0),
            ("start", 0.1),
            ("wait until", 0.0),
            ("switch requests", 0.0),
            ("let open requests finish", 0.0),
            ("stop", 0.05),
        )
    ),
)


def begin(app: App, moment: str, *words: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start a deploy and return when it begins the step with that title."""
    process = app.start("deploy", "--verbose", *words)
    lines: list[str] = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line)
        if f": {moment}" in line:
            return process, lines
    raise AssertionError(f"no step {moment!r} in:\n{''.join(lines)}{process.communicate()}")


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Signal the whole process group, as a terminal or a dying session does."""
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def change(app: App, value: str) -> None:
    """Change code and configuration, so that there is something to ship and to deploy."""
    app.configure(environment={"BEHAVIOUR": "healthy", "CHANGE": value})
    file = app.root / "apps/server.py"
    file.write_text(f"{file.read_text()}\n# {value}\n")


def runs_one_release(app: App) -> bool:
    """Tell whether exactly one release runs, whole, and it is the one that answers."""
    wanted = [sorted(f"{app.name}_{process}_{release}" for process in ("web", "worker")) for release in app.serving()]
    return [server.running(app.name) for server in app.servers] == wanted


@pytest.mark.parametrize(("moment", "delay"), MOMENTS)
def test_after_a_killed_deploy_nothing_is_locked_and_the_next_one_converges(
    shaky: App, moment: str, delay: float, record_property: Record
) -> None:
    change(shaky, f"{moment} {delay}")
    with shaky.users() as users:
        process, _ = begin(shaky, moment)
        threading.Event().wait(delay)
        code, _ = end(process, signal.SIGKILL)
        free = wait_until(lambda: all(server.lock_is_free(shaky.name) for server in shaky.servers), "the lock is held", 12)
        assert code == -signal.SIGKILL
        assert users.failures == 0
        done = shaky.deploy()
        assert runs_one_release(shaky)
    users.nobody_noticed()
    assert done.document["result"] in ("done", "unchanged")
    assert [server.root(HALF_DONE) for server in shaky.servers] == ["", ""]
    record_property("killed", {"moment": moment, "delay": delay, "lock_free_s": round(free, 2), "next_s": round(done.seconds, 2)})
    print(f"killed {delay} s into {moment!r}: lock free after {free:.2f} s, next deploy {done.seconds:.2f} s")


@pytest.mark.parametrize("moment", [pytest.param("wait until", marks=pytest.mark.slow), "switch requests"])
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow)]
)
def test_an_interrupted_deploy_is_undone(shaky: App, number: signal.Signals, moment: str) -> None:
    before, serving = shaky.look(), shaky.serving()
    change(shaky, f"{number} {moment}")
    with shaky.users() as users:
        process, _ = begin(shaky, moment)
        code, said = end(process, number)
    users.nobody_noticed()
    assert code == 1, said
    assert "undone" in said
    assert "Traceback" not in said
    assert shaky.serving() == serving
    assert_same(before, shaky.look())
    assert [one["result"] for one in shaky.last_operations()] == ["undone", "undone"]


@pytest.mark.slow  # the lock itself is part of the contract of servers
def test_a_second_deploy_at_the_same_time_is_told_who_holds_the_lock(shaky: App) -> None:
    shaky.configure(environment={"BEHAVIOUR": "slow"})
    process, _ = begin(shaky, "wait until")
    second = shaky.inv("deploy", "--json", "--force", code=4)
    assert json.loads(second.out)["error"].startswith("another command is at work: deploy of sandbox by ")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert runs_one_release(shaky)
