"""The connection to a server: a real agent in a real process, behind an `ssh` that runs the remote command here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import link as links
from ops.config import HostAddress
from ops.errors import Locked, Refused, Unreachable
from ops.link import ENGINE_SOCKET, AgentError, Link, explain, holder, packed_agent, require_engine, ssh_options
from tests.local_ssh import HOST, environment, install_ssh, until


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what puts an `ssh` first on the PATH that does something before it runs the remote command."""
    return install_ssh(tmp_path, monkeypatch)


@pytest.fixture
def connect(ssh: Callable[[str], None], tmp_path: Path) -> Iterator[Callable[[], Link]]:
    """Return what opens links; they are closed afterwards."""
    opened: list[Link] = []

    def one(callback_port: int | None = None) -> Link:
        opened.append(Link(environment(tmp_path), HOST, callback_port=callback_port))
        return opened[-1]

    yield one
    for link in opened:
        if link._folder.exists():
            link.close()


def lock(link: Link, path: Path, what: str = "a deploy") -> Any:
    return link.call("lock", path=str(path), holder={"what": what, "who": "ann@desk", "since": "noon"})


def test_the_agent_runs_on_nothing_but_python_and_says_hello(connect: Callable[[], Link]) -> None:
    hello = connect().hello()
    assert hello["python"] == ".".join(map(str, sys.version_info[:3]))
    assert abs(hello["skew"]) < 2
    assert {"engine", "disk", "memory"} <= set(hello)


def test_the_agent_is_small_enough_to_be_sent_before_anybody_reads() -> None:
    assert len(packed_agent(ENGINE_SOCKET)) < 20_000  # a pipe holds 65536


def test_the_agent_without_its_docstrings_is_the_same_program() -> None:
    text = zlib.decompress(packed_agent(ENGINE_SOCKET)).decode()
    sources = eval(text.splitlines()[0].removeprefix("SOURCES="))
    for name, source in sources.items():
        whole = compile((Path(links.__file__).parent / "agent" / f"{name}.py").read_text(), name, "exec", optimize=2)
        bare = compile(source, name, "exec", optimize=2)
        assert {one for one in bare.co_names if one != "__doc__"} == {one for one in whole.co_names if one != "__doc__"}


def test_a_program_cut_off_on_its_way_ends_instead_of_spinning() -> None:
    program = packed_agent(ENGINE_SOCKET)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-u", "-c", links._LOADER, str(len(program))],
        input=program[:1000],
        capture_output=True,
        timeout=10,
    )
    assert done.returncode != 0


def test_operations_are_carried_out_in_the_order_they_were_sent(connect: Callable[[], Link], tmp_path: Path) -> None:
    link, journal = connect(), tmp_path / "journal"
    for number in range(100):
        link.send("append", path=str(journal), lines=[str(number)])
    assert link.call("read", path=str(journal)) == "".join(f"{number}\n" for number in range(100))


def test_calls_are_counted_and_heartbeats_are_not(connect: Callable[[], Link]) -> None:
    link = connect()
    link.call("ping")
    link.call("read", path="/nowhere")
    assert link.calls == 1


def test_any_text_arrives_as_it_is(connect: Callable[[], Link], tmp_path: Path) -> None:
    link, path = connect(), str(tmp_path / "a file $(id)")
    for text in ("", "one\ntwo\n", "é ☃ \x00 $(id) ' \" \\ \u2028", "x" * 300_000):
        link.call("write", path=path, text=text)
        assert link.call("read", path=path) == text


def test_after_something_posted_has_failed_nothing_more_is_carried_out_until_resume(
    connect: Callable[[], Link], tmp_path: Path
) -> None:
    link, path = connect(), str(tmp_path / "file")
    link.post("settle", source="/nowhere/a", target="/nowhere/b")
    with pytest.raises(AgentError, match="settle failed before") as caught:
        link.call("write", path=path, text="too late")
    assert caught.value.kind == "AfterFailure"
    link.post("resume")
    assert link.call("read", path=path) is None
    link.post("settle", optional=True, source="/nowhere/a", target="/nowhere/b")
    link.call("write", path=path, text="in time")
    assert link.call("read", path=path) == "in time"


def test_an_error_on_the_server_is_told_with_its_kind_and_ends_nothing(connect: Callable[[], Link]) -> None:
    link = connect()
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("read", {"path": "/"}, "IsADirectoryError"),
        ("settle", {"source": "/nowhere/a", "target": "/nowhere/b"}, "FileNotFoundError"),
        ("no_such_operation", {}, "KeyError"),
        ("read", {"file": "/"}, "TypeError"),
    ]
    for op, arguments, kind in wrong:
        with pytest.raises(AgentError) as caught:
            link.call(op, **arguments)
        assert (caught.value.kind, caught.value.where, caught.value.exit_code) == (kind, "deploy@server.invalid", 1)
    assert link.call("read", path="/nowhere") is None


def test_a_second_command_is_told_who_holds_the_lock(connect: Callable[[], Link], tmp_path: Path) -> None:
    lock(connect(), tmp_path / "app" / "lock")
    with pytest.raises(Locked) as caught:
        lock(connect(), tmp_path / "app" / "lock", "another")
    assert caught.value.what == "another command is at work: a deploy by ann@desk since noon"
    assert caught.value.exit_code == 4


def test_the_lock_is_free_once_its_holder_closes(connect: Callable[[], Link], tmp_path: Path) -> None:
    first = connect()
    lock(first, tmp_path / "lock")
    first.close()
    lock(connect(), tmp_path / "lock")


def frees(second: Link, path: Path) -> Callable[[], bool]:
    def try_it() -> bool:
        try:
            lock(second, path)
        except Locked:
            return False
        return True

    return try_it


def test_the_lock_is_free_once_its_holder_was_killed(connect: Callable[[], Link], tmp_path: Path) -> None:
    first, second = connect(), connect()
    lock(first, tmp_path / "lock")
    os.killpg(first._process.pid, signal.SIGKILL)
    assert until(frees(second, tmp_path / "lock"))
    with pytest.raises(Unreachable):
        first.call("ping")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Return what shortens the silence that an agent bears, and how often we break it."""

    def shorten(silence: float, beat: float) -> None:
        text = zlib.decompress(packed_agent(ENGINE_SOCKET)).decode()
        assert "SILENCE = 60.0" in text
        program = zlib.compress(text.replace("SILENCE = 60.0", f"SILENCE = {silence}").encode())
        monkeypatch.setattr(links, "packed_agent", lambda path: program)
        monkeypatch.setattr(links, "HEARTBEAT", beat)

    return shorten


def test_an_agent_that_hears_nothing_ends_and_the_lock_is_free(
    impatient: Callable[[float, float], None], connect: Callable[[], Link], tmp_path: Path
) -> None:
    impatient(0.5, 3600)
    first = connect()
    lock(first, tmp_path / "lock")
    first._process.wait(10)
    lock(connect(), tmp_path / "lock")
    with pytest.raises(Unreachable):
        first.call("read", path="/nowhere")


def test_heartbeats_keep_an_idle_connection_alive(impatient: Callable[[float, float], None], connect: Callable[[], Link]) -> None:
    impatient(0.5, 0.05)
    link = connect()
    link.hello()
    threading.Event().wait(1.2)
    assert link.call("read", path="/nowhere") is None


def test_closing_leaves_no_process_no_folder_and_no_thread(connect: Callable[[], Link]) -> None:
    before = threading.active_count()
    link = connect()
    link.hello()
    assert link._folder.exists()
    link.close()
    assert link._process.returncode is not None
    assert not link._folder.exists()
    assert threading.active_count() == before
    with pytest.raises(Unreachable):
        link.call("ping")


def test_closing_before_the_first_word_is_fine(connect: Callable[[], Link]) -> None:
    link = connect()
    link.close()
    assert not link._folder.exists()


def test_what_was_sent_before_closing_is_done(connect: Callable[[], Link], tmp_path: Path) -> None:
    link = connect()
    for number in range(20):
        link.send("append", path=str(tmp_path / "journal"), lines=[str(number)])
    link.close()
    assert (tmp_path / "journal").read_text().count("\n") == 20


def test_closing_a_killed_connection_is_fine(connect: Callable[[], Link]) -> None:
    link = connect()
    link.hello()
    os.killpg(link._process.pid, signal.SIGKILL)
    link.close()
    assert not link._folder.exists()


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("deploy@server.invalid: Permission denied (publickey).", "authorized_keys"),
        ("Host key verification failed.", "inv server.trust"),
    ],
)
def test_a_connection_that_cannot_be_made_says_why_and_what_to_do(
    ssh: Callable[[str], None], connect: Callable[[], Link], words: str, fix: str
) -> None:
    ssh(f"echo '{words}' >&2; exit 255")
    link = connect()
    with pytest.raises(Unreachable) as caught:
        link.hello()
    assert caught.value.what == "cannot connect"
    assert words in caught.value.why
    assert fix in caught.value.fix
    assert caught.value.exit_code == 3


def test_an_ssh_that_does_not_even_read_is_explained_too(
    ssh: Callable[[str], None], connect: Callable[[], Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh("echo 'Bad configuration option: colour' >&2; exit 255")
    monkeypatch.setattr(links, "packed_agent", lambda path: bytes(1_000_000))
    with pytest.raises(Unreachable, match="connection was lost") as caught:
        connect().hello()
    assert "Bad configuration option" in caught.value.why


def test_what_a_servers_shell_prints_first_does_no_harm(ssh: Callable[[str], None], connect: Callable[[], Link]) -> None:
    noise = ["Welcome!", "42", "{}", "[]", "null", '{"id": 77, "result": 1}', '{"id": [], "result": 1}', "{"]
    ssh("\n".join(f"echo '{line}'" for line in noise))
    assert "python" in connect().send("facts", folders=[], ports=[]).result(timeout=10)


def test_the_port_that_leads_back_is_told_by_ssh(ssh: Callable[[str], None], connect: Callable[..., Link]) -> None:
    ssh("echo 'Allocated port 4711 for remote forward to 127.0.0.1:80' >&2")
    assert connect(callback_port=80).callback_port() == 4711


def test_without_such_a_port_the_wait_ends(connect: Callable[..., Link]) -> None:
    with pytest.raises(TimeoutError):
        connect(callback_port=80).callback_port(0.05)


def test_a_server_whose_engine_is_down_is_refused(connect: Callable[[], Link], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "ENGINE_SOCKET", "/nowhere/docker.sock")
    with pytest.raises(Refused, match="engine does not answer") as caught:
        require_engine(connect())
    assert "/nowhere/docker.sock" in caught.value.why


@pytest.mark.parametrize(
    ("line", "what", "word"),
    [
        ("Host key verification failed.", "cannot connect", "not trusted"),
        ("No ED25519 host key is known for x and you have requested strict checking.", "cannot connect", "not trusted"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "cannot connect", "not trusted"),
        ("deploy@x: Permission denied (publickey,password).", "cannot connect", "does not accept our key"),
        ("sh: 1: python3: not found", "cannot connect", "no python3"),
        ("bash: line 1: python3: command not found", "cannot connect", "no python3"),
        ("ssh: Could not resolve hostname x: Name or service not known", "cannot connect", "does not resolve"),
        ("ssh: connect to host x port 22: Connection refused", "cannot connect", "nothing answers"),
        ("ssh: connect to host x port 22: Connection timed out", "cannot connect", "nothing answers"),
        ("ssh: connect to host x port 22: No route to host", "cannot connect", "nothing answers"),
        ("Timeout, server x not responding.", "the connection was lost", "not responding"),
        ("", "the connection was lost", "without a word"),
    ],
)
def test_what_ssh_says_becomes_a_cause_and_a_next_step(line: str, what: str, word: str) -> None:
    error = explain("deploy@x", "staging", [line] if line else [])
    assert (error.what, error.where) == (what, "deploy@x")
    assert word in error.why
    assert error.fix
    assert "ENV" not in error.fix


@pytest.mark.parametrize("note", ["", "{", "[]", "7", "null", '{"what": "x"}', "\ufffd"])
def test_a_holder_that_left_no_words_is_no_riddle(note: str) -> None:
    assert holder(note) == "it left no note"


def test_ssh_checks_host_keys_asks_nothing_and_shares_no_connection(tmp_path: Path) -> None:
    options = ssh_options(environment(tmp_path), HostAddress(address="x", port=2222, user="ann", identity=tmp_path / "key"))
    for expected in (
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
        "UpdateHostKeys=no",
        "ForwardAgent=no",
        "ControlPath=none",
        "IdentitiesOnly=yes",
    ):
        assert options[options.index(expected) - 1] == "-o"
    assert f'UserKnownHostsFile="{tmp_path}/known_hosts"' in " ".join(options)
    assert ["-p", "2222", "-l", "ann", "-i", str(tmp_path / "key")] == [
        word for word in options if word in ("-p", "2222", "-l", "ann", "-i", str(tmp_path / "key"))
    ]
