from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.secret import MASK, Secret
from ops.shell import Command, as_root, chain, pipe, sh

HOSTILE = [
    "",
    " ",
    "two  spaces ",
    "it's",
    '"quoted"',
    "$(touch /tmp/tidegate-owned)",
    "`id`",
    "$HOME ${PATH}",
    "a\nb\n",
    "a\r\n\tb",
    "--help",
    "-n",
    "*",
    "~",
    "~root",
    "a;b&&c||d|e&f",
    "<in >out 2>&1",
    "{a,b}",
    "[a-z]",
    "!!",
    "#comment",
    "\\",
    "\\n",
    "trailing\\",
    "'\"'\"'",
    "%s%n",
    "A=B",
    "bücher 日本 🌊",
    "\x81\x82\u0081\u0088",
    "\x1b[31m\x07\x7f",
]
SHELLS = ["bash", "dash"]
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def printed(shell: str, command: Command) -> bytes:
    done = subprocess.run([shell, "-c", command.reveal().encode()], capture_output=True, check=True)
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_argument_arrives_byte_for_byte(shell: str, value: str) -> None:
    assert printed(shell, sh("printf", "%s", value)) == value.encode()


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60, deadline=None)
@given(values=st.lists(text, min_size=1, max_size=8))
def test_any_arguments_arrive_byte_for_byte(shell: str, values: list[str]) -> None:
    expected = b"".join(value.encode() + b"\0" for value in values)
    assert printed(shell, sh("printf", "%s\\0", *values)) == expected


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=30, deadline=None)
@given(value=text)
def test_arguments_survive_every_way_of_combining_commands(shell: str, value: str) -> None:
    once = sh("printf", "%s\\0", value)
    expected = value.encode() + b"\0"
    assert printed(shell, pipe(once, sh("cat"), sh("cat"))) == expected
    assert printed(shell, chain(once, once)) == expected * 2
    assert printed(shell, chain(pipe(once, sh("cat")), chain(once))) == expected * 2
    assert printed(shell, sh("sh", "-c", once.reveal())) == expected


def test_a_command_for_root_runs_literally_when_root() -> None:
    script = sh("printf", "%s", "$(id)'\n")
    done = subprocess.run(["bash", "-c", as_root(script).reveal()], capture_output=True, check=False)
    if done.returncode:
        assert b"sudo" in done.stderr
    else:
        assert done.stdout == b"$(id)'\n"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", ["A=B", "PATH+=x", "if", "coproc", "done", "a b", "$(id)", "{", "!"])
def test_the_program_is_a_program_and_never_shell_syntax(shell: str, program: str) -> None:
    line = sh(program, "true").reveal()
    done = subprocess.run([shell, "-c", line], capture_output=True, check=False)
    assert done.returncode == 127
    assert b"not found" in done.stderr


@pytest.mark.parametrize("program", ["install", "/usr/bin/env", "python3"])
def test_a_plain_program_is_left_readable(program: str) -> None:
    assert sh(program, "-m", 600).reveal() == f"{program} -m 600"


def test_a_pipe_fails_when_any_part_fails() -> None:
    line = pipe(sh("false"), sh("cat")).reveal()
    for shell in SHELLS:
        assert subprocess.run([shell, "-c", line], check=False).returncode == 1


def test_a_chain_stops_at_the_first_failure() -> None:
    line = chain(sh("false"), sh("echo", "never")).reveal()
    assert subprocess.run(["dash", "-c", line], capture_output=True, check=False).stdout == b""


@pytest.mark.parametrize("value", ["\0", "a\0b", Secret("a\0b")])
def test_a_nul_byte_is_refused(value: str | Secret) -> None:
    with pytest.raises(ValueError, match="NUL") as caught:
        sh("echo", value)
    assert "a\0b" not in str(caught.value)


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="program"):
        sh()


@given(value=text)
def test_a_secret_runs_but_is_never_shown(value: str) -> None:
    secret = Secret("s3cret" + value)
    command = sh("login", "--password", secret)
    for combined in (command, pipe(command, command), chain(command, sh("true")), as_root(command)):
        assert "s3cret" in combined.reveal()
        assert MASK in str(combined)
        assert "s3cret" not in f"{combined} {combined!r}"
