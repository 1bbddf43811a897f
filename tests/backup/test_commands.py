"""What people type, from the task to the program on the server and back to the terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from invoke import Context, Exit

import tasks
from backup import package
from backup import tasks as backups
from backup.client import Client
from backup.hosts import Done, on_each
from deploy.servers import _program
from ops import menu
from ops.console import Console
from ops.errors import ConfigError, Failed, Locked, NeedsPerson, Partial, Refused
from ops.secret import Secret
from tests.backup.local_servers import ONE, TWO, Servers, configure, make

TETHERED = """
import sys
print("up", flush=True)
while sys.stdin.readline():
    pass
open(sys.argv[1], "a").write("undone\\n")
sys.exit(1)
"""


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = make(tmp_path, monkeypatch)
    configure(made, monkeypatch)
    return made


@pytest.fixture(autouse=True)
def _signals_as_before() -> Any:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def typed(task: str, **asked: Any) -> int:
    """Carry out a task and return its exit code."""
    try:
        getattr(backups, f"backup_{task}").body(Context(), env="test", **asked)
    except Exit as end:
        print(end.message, file=sys.stderr)
        return int(end.code)
    return 0


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_way_of_a_backup_from_the_first_to_the_last_command(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("status") == 3
    assert "no good backup" in capsys.readouterr().out
    assert typed("run", type="daily") == 0
    said = capsys.readouterr().out
    assert re.search(r"posts +sqlite .* 2 rows in 1 tables", said)
    (id,) = re.findall(r"one\.invalid: (\S+), .* decoded in full", said)
    assert typed("status") == 0
    assert id in capsys.readouterr().out
    assert typed("list") == 0
    assert re.search(rf"one\.invalid +{id} .* daily +good +full passed", capsys.readouterr().out)
    assert typed("verify", level="checksums") == 0
    assert f"{id} passed checksums" in capsys.readouterr().out
    assert typed("pin", id=id, note="before the move") == 0
    assert typed("list") == 0
    assert "before the move" in capsys.readouterr().out
    assert typed("explain") == 0
    assert re.search(rf"{id} +kept", capsys.readouterr().out)
    assert typed("prune", dry_run=True) == 0
    assert typed("unpin", id=id) == 0
    assert typed("fetch", id=id, to=str(servers.folder / "here")) == 0
    assert "sha256sum -c" in capsys.readouterr().out
    assert typed("pull", to=str(servers.folder / "here")) == 0
    assert f"{id} was here already" in capsys.readouterr().out


def test_scripts_get_one_document_with_every_server_and_every_error(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("run", json=True) == 0
    found = document(capsys)
    assert found["errors"] == {}
    assert found["servers"]["one.invalid"]["result"] == "complete"
    assert typed("verify", id="20260101T000000Z-abcdef", json=True) == 1
    error = document(capsys)["errors"]["one.invalid"]
    assert (error["error"], error["exit_code"]) == ("there is no backup 20260101T000000Z-abcdef", 1)


def test_a_source_that_cannot_be_saved_is_told_and_the_exit_code_says_partial(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (servers.folder / "ops.toml").read_text()
    broken = servers.folder / "broken.db"
    broken.write_bytes(b"no database " * 500)
    more = f'sources.other = {{ kind = "sqlite", path = "{broken}" }}\n'
    (servers.folder / "ops.toml").write_text(text.replace("[environments", f"{more}[environments"))
    assert typed("run") == 6
    assert "other" in capsys.readouterr().err


def test_without_backups_in_the_configuration_the_error_says_what_to_write(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.sub(r"\[app\.backup\].*(?=\[env)", "", (servers.folder / "ops.toml").read_text(), flags=re.DOTALL)
    (servers.folder / "ops.toml").write_text(text)
    assert typed("list") == 2
    assert "[app.backup.sources.NAME]" in capsys.readouterr().err


@pytest.mark.parametrize(("task", "asked"), [("run", {"type": "hourly"}), ("verify", {"level": "some"})])
def test_a_word_that_is_none_of_the_known_ones_is_told_before_anything_is_done(
    servers: Servers, task: str, asked: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(task, **asked) == 2
    assert "is not one of" in capsys.readouterr().err
    assert not servers.program.exists()


def test_a_missing_secret_ends_it_before_a_server_is_reached(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    text = (servers.folder / "ops.toml").read_text()
    (servers.folder / "ops.toml").write_text(text.replace("[environments", 'ping = "NO_SUCH_PING"\n[environments'))
    assert typed("run") == 2
    assert "NO_SUCH_PING" in capsys.readouterr().err
    assert not servers.program.exists()


def test_the_bootstrap_puts_program_and_settings_there_and_the_check_tells_its_version(servers: Servers) -> None:
    tasks._install_backups(Console(), menu.environment_of("test"))
    assert (servers.app / "backup.json").exists()
    with servers.client() as client:
        there = client._link.call("digest", path=str(servers.program))
        assert client._link.call("digest", path="/nowhere") is None
    ours = package.digest()
    assert _program(there, ours) == ("backup program", True, ours[:12])
    assert "ours is " + "f" * 12 in _program(there, "f" * 64)[2]
    assert "inv server.bootstrap" in _program(None, ours)[2]


def test_the_worst_of_several_exit_codes_counts() -> None:
    def code(*errors: Any) -> int:
        return Done({}, {str(number): error for number, error in enumerate(errors)}).exit_code

    assert code() == 0
    assert code(Refused("x"), Locked("x")) == 4
    assert code(Locked("x"), Partial("x")) == 6
    assert code(Partial("x"), Failed("x")) == 1
    assert code(Failed("x"), NeedsPerson("x"), Refused("x")) == 5
    assert code(ConfigError("x"), Refused("x")) == 2


def test_a_backup_that_only_some_servers_have_is_no_error() -> None:
    absent = {"two": Failed("there is no backup X")}
    assert Done({"one": 1}, absent).where_it_is("X").errors == {}
    assert Done({}, absent).where_it_is("X").errors == absent
    assert set(Done({"one": 1}, {**absent, "three": Failed("else")}).where_it_is("X").errors) == {"three"}


def test_ctrl_c_cancels_on_all_servers_and_waits_until_all_is_undone(servers: Servers) -> None:
    env = servers.env.model_copy(update={"hosts": (ONE, TWO)})
    up = threading.Barrier(3)
    journal = servers.folder / "journal"

    def work(client: Client) -> Any:
        command = [sys.executable, "-c", TETHERED, str(journal)]
        return client._link.program(command, on_event=lambda _: print(up.wait(10)))

    def press() -> None:
        up.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(Failed, match="interrupted"):
        on_each(env, work, None)
    assert journal.read_text() == "undone\nundone\n"


def test_what_a_server_says_hides_the_secrets_that_it_was_told(servers: Servers) -> None:
    def work(client: Client) -> Any:
        raise Failed("hunter2hunter2 is wrong", why="it was hunter2hunter2")

    done = on_each(servers.env, work, {"DB": Secret("hunter2hunter2")})
    assert "hunter2" not in str(done.errors["one.invalid"])
