from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.config import App, Environment, HostAddress, SecretSource
from ops.env_file import read_env_file
from ops.errors import ConfigError
from ops.secret import Secret
from ops.secrets import resolve_secrets


def environment(root: Path, **commands: list[str]) -> Environment:
    return Environment(
        name="production",
        app=App(name="blog", port=3000),
        hosts=(HostAddress(address="h"),),
        domains=("a.b",),
        secrets={name: SecretSource(command=tuple(command)) for name, command in commands.items()},
        project_root=root,
    )


def private(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / ".env.production"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_command_comes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    private(tmp_path, "A=file\nB=file\nC=file\n")
    found = resolve_secrets(environment(tmp_path, A=["echo", "command"]), ["A", "B", "C"], {"A": "env", "B": "env", **os.environ})
    assert found == {"A": Secret("command"), "B": Secret("env"), "C": Secret("file")}


def test_no_names_need_nothing(tmp_path: Path) -> None:
    private(tmp_path, "A=1", mode=0o644)
    assert resolve_secrets(environment(tmp_path), [], {}) == {}


def test_the_file_is_not_read_when_nothing_is_wanted_from_it(tmp_path: Path) -> None:
    private(tmp_path, "B=1", mode=0o644)
    assert resolve_secrets(environment(tmp_path), ["A"], {"A": "1"}) == {"A": Secret("1")}


def test_every_missing_secret_is_named_at_once_with_the_ways_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_secrets(environment(tmp_path, D=["false"]), ["A", "B", "C", "D"], {"A": "hunter2", "C": "", **os.environ})
    message = str(caught.value)
    assert "B is missing: export B=…, or a line B=… in .env.production (mode 0600), or in ops.toml [secrets.B]" in message
    assert "C is set but empty" in message
    assert "D: the command" in message
    assert "A is" not in message
    assert "hunter2" not in message


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o700, 0o666])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path, "A=1", mode)
    with pytest.raises(ConfigError, match=f"found {mode:04o}") as caught:
        resolve_secrets(environment(tmp_path), ["A"], {})
    assert caught.value.fix == f"chmod 600 {path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    os.chown(private(tmp_path, "A=1"), 65534, -1)
    with pytest.raises(ConfigError, match="belongs to user 65534"):
        resolve_secrets(environment(tmp_path), ["A"], {})


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env.production", 0o600)
    with pytest.raises(ConfigError, match="a regular file"):
        resolve_secrets(environment(tmp_path), ["A"], {})


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env.production").mkdir()
    with pytest.raises(ConfigError, match=r"directory|regular file"):
        resolve_secrets(environment(tmp_path), ["A"], {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only\n\n  # comments", {}),
        ("A=1", {"A": "1"}),
        ("export A=1\r\nB = two words \r\n", {"A": "1", "B": "two words"}),
        ("A=1 # one\nB=a#b\nC= # none", {"A": "1", "B": "a#b", "C": ""}),
        ("A='$x \"y\" \\n # z'", {"A": '$x "y" \\n # z'}),
        (r'A="a\nb\t\"c\" \$d \\ \x # e" # f', {"A": 'a\nb\t"c" $d \\ \\x # e'}),
        ('A="line 1\nline 2"\nB=$(id) `id` $HOME', {"A": "line 1\nline 2", "B": "$(id) `id` $HOME"}),
        ('A=it\'s="fine"\nB=ünï', {"A": 'it\'s="fine"', "B": "ünï"}),
        ("\ufeffA=''\nB=\"\"", {"A": "", "B": ""}),
    ],
)
def test_a_file_of_secrets_is_read_as_people_write_it(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    assert read_env_file(private(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nhunter2", "line 2: expected KEY=VALUE"),
        ("A='hunter2", "line 1: expected KEY=VALUE"),
        ('A="hunter2" x', "line 1: expected KEY=VALUE"),
        ("A='x\ny'\n1B=hunter2", "line 3: expected KEY=VALUE"),
        ("A=hunter2\nB=2\nA=hunter2", "line 3: A is set twice"),
        (b"A=\xffhunter2", "is not UTF-8"),
    ],
)
def test_an_unclear_file_is_refused_by_line_without_its_contents(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_env_file(private(tmp_path, text))
    assert "hunter2" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_any_value_in_double_quotes_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    path = private(tmp_path_factory.getbasetemp(), f'A="{quoted}"\nB=1')
    assert read_env_file(path) == {"A": value, "B": "1"}


def test_a_command_runs_without_a_shell_in_the_project_with_the_environment_named(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1], os.getcwd(), os.environ['TIDEGATE_ENVIRONMENT'], sep='|')"
    found = resolve_secrets(environment(tmp_path, A=[*python(code), "$(id); `id`"]), ["A"], {})
    assert found["A"].reveal() == f"$(id); `id`|{tmp_path}|production"


@pytest.mark.parametrize(("output", "value"), [("a\n", "a"), ("a\n\n", "a\n"), ("a", "a"), (" a \r\n", " a \r")])
def test_one_trailing_newline_of_a_command_is_left_out(tmp_path: Path, output: str, value: str) -> None:
    found = resolve_secrets(environment(tmp_path, A=["printf", "%s", output]), ["A"], os.environ)
    assert found["A"].reveal() == value


def test_a_failing_command_shows_its_last_complaint_and_never_its_output(tmp_path: Path) -> None:
    code = "import sys; print('hunter2'); print('first\\nnot \\x1b[31msigned in', file=sys.stderr); sys.exit(3)"
    with pytest.raises(ConfigError, match="failed with exit code 3") as caught:
        resolve_secrets(environment(tmp_path, A=[sys.executable, "-c", code]), ["A"], {})
    complaint = str(caught.value).rpartition("exit code 3")[2]
    assert "signed in" in complaint
    assert "first" not in complaint
    assert "hunter2" not in complaint
    assert "\x1b" not in complaint


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-program"], "cannot be started: No such file"),
        (["true"], "printed nothing"),
        (["printf", r"\377"], "other than UTF-8"),
        (["printf", r"a\0b"], "a NUL byte"),
    ],
)
def test_a_command_without_a_usable_value_is_an_error(tmp_path: Path, command: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_secrets(environment(tmp_path, A=command), ["A"], os.environ)


def test_a_command_that_hangs_is_ended_even_when_its_children_hold_its_output(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"did not end within 0\.3 s"):
        resolve_secrets(environment(tmp_path, A=["sh", "-c", "sleep 3 & wait"]), ["A"], os.environ, timeout=0.3)
    assert time.monotonic() - start < 2


def test_commands_run_side_by_side_and_the_same_one_only_once(tmp_path: Path) -> None:
    meet = "import os, sys; a, b = sys.argv[1:]; open(b, 'a').write('x')\n"
    meet += "while not os.path.exists(a): pass\n"
    meet += "print(b)"
    commands = {"A": [*python(meet), "a", "b"], "B": [*python(meet), "b", "a"], "C": [*python(meet), "b", "a"]}
    found = resolve_secrets(environment(tmp_path, **commands), ["A", "B", "C"], {}, timeout=10)
    assert [secret.reveal() for secret in found.values()] == ["b", "a", "a"]
    assert (tmp_path / "a").read_text() == "x"
