"""A server without cron gets a schedule over SSH and sudo, and its own cron runs it; nothing is left when it is removed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backup import schedule
from backup.client import PROGRAM
from backup.schedule_files import for_cron, log_of, minute_of
from deploy.sandbox import Sandbox
from ops.config import App, Backup, Environment, HostAddress
from ops.host import Host
from tests.integration.project import Server

pytestmark = pytest.mark.integration
SMALL = "import os, sys; print(sys.argv[1:], sorted(os.environ), flush=True); sys.exit(6)\n"


@dataclass
class Bare:
    """A server with sshd and sudo, and without cron."""

    env: Environment
    server: Server

    @property
    def minute(self) -> int:
        """The minute of the schedule."""
        return minute_of(self.env.app.name, self.env.hosts[0].name)

    def install(self) -> tuple[schedule.Schedule, list[str]]:
        """Install the schedule; return it and what was done."""
        told: list[str] = []
        with Host(self.env, self.env.hosts[0]) as host:
            return schedule.install(self.env, host, lambda _, what: told.append(what), datetime.now(UTC)), told


@pytest.fixture(scope="module")
def bare(root: Path, servers: list[Server], tag: str) -> Bare:
    sandbox, server = Sandbox(root), servers[0]
    host = HostAddress(address="127.0.0.1", user="deploy", port=server.known.ssh_port, identity=sandbox.identity)
    backup = Backup.model_validate({"sources": {"posts": {"kind": "directory", "path": "/srv/posts"}}, "compression": "zstd"})
    app = App(name=f"scheduled-{tag}", port=3000, backup=backup)
    known_hosts = Path(sandbox.known_hosts)
    env = Environment(name="test", app=app, hosts=(host,), domains=("a.example",), known_hosts=known_hosts)
    return Bare(env, server)


def test_a_server_gets_what_is_needed_once(bare: Bare) -> None:
    found, told = bare.install()
    app = bare.env.app.name
    assert told == ["install cron", f"write /etc/cron.d/tidegate-{app}", *told[2:]]
    assert (found.by, found.minute, len(found.next)) == ("cron", bare.minute, 3)
    assert found.next[0] > datetime.now(UTC)
    again, told = bare.install()
    assert (again.minute, told) == (found.minute, [])
    (file,) = for_cron(app, bare.minute)
    assert bare.server.root(f"cat {file.path}") == file.text
    assert bare.server.root(f"stat -c '%a %U %G' {file.path}") == "644 root root\n"


def test_what_others_may_write_to_is_put_right_since_cron_would_not_read_it(bare: Bare) -> None:
    path = for_cron(bare.env.app.name, 0)[0].path
    bare.server.root(f"chmod 666 {path}")
    assert bare.install()[1] == [f"write {path}"]


@pytest.mark.slow  # cron begins with a minute
def test_cron_runs_the_line_as_it_is_installed(bare: Bare) -> None:
    bare.install()
    app, log = bare.env.app.name, log_of(bare.env.app.name)
    bare.server.root(f"mkdir -p {Path(PROGRAM).parent}; cat > {PROGRAM} <<'END'\n{SMALL}END")
    bare.server.root(f"sed -i 's/^{bare.minute} \\*/* */' /etc/cron.d/tidegate-{app}")
    lines = _lines(bare, log)
    assert datetime.fromisoformat(lines[0]).tzinfo == UTC
    assert lines[1].startswith(f"['scheduled', '--app', '{app}'] ")
    assert "'PATH'" in lines[1]
    assert bare.server.root(f"stat -c '%a %U' {log}") == "600 root\n"


def _lines(bare: Bare, log: str) -> list[str]:
    end = time.monotonic() + 65
    while True:
        lines = bare.server.root(f"cat {log} 2>/dev/null || true").splitlines()
        if len(lines) >= 2:
            return lines
        assert time.monotonic() < end, bare.server.root("cat /etc/cron.d/tidegate-*; ps -e 2>/dev/null || true")
        time.sleep(0.5)


def test_nothing_is_left_when_it_is_removed(bare: Bare) -> None:
    told: list[str] = []
    with Host(bare.env, bare.env.hosts[0]) as host:
        assert schedule.remove(bare.env, host, lambda _, what: told.append(what))
        assert told == [f"remove /etc/cron.d/tidegate-{bare.env.app.name}"]
        assert not schedule.remove(bare.env, host, lambda _, what: told.append(what))
    assert bare.server.root("ls /etc/cron.d | grep tidegate || true") == ""
