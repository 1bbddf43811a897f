"""Where secrets come from: a command, the process environment, or a private .env file beside ops.toml, or its text in a variable."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ops.config_problems import shown
from ops.env_file import read_env_file, read_env_text
from ops.errors import ConfigError
from ops.secret import Secret

if TYPE_CHECKING:
    from ops.config_models import Environment

COMMAND_TIMEOUT = 60.0
GIVEN = "TIDEGATE_SECRETS"

_CommandLine = tuple[str, ...]


def resolve_secrets(
    environment: Environment, names: Iterable[str], environ: Mapping[str, str], timeout: float = COMMAND_TIMEOUT
) -> dict[str, Secret]:
    """Find the values of secrets; raises one ConfigError that names all that are missing."""
    wanted = list(dict.fromkeys(names))
    commands = {name: environment.secrets[name].command for name in wanted if name in environment.secrets}
    rest = [name for name in wanted if name not in commands]
    values, problems = _from_commands(commands, environment, environ, timeout)
    values |= {name: environ[name] for name in rest if environ.get(name)}
    file = env_file(environment)
    kept = {} if values.keys() >= set(rest) else {**read_env_file(file), **read_env_text(environ.get(GIVEN, ""), GIVEN)}
    values |= {name: kept[name] for name in rest if name not in values and kept.get(name)}
    problems += [_missing(name, file, empty=name in environ or name in kept) for name in rest if name not in values]
    problems += [f"{name}: its value contains a NUL byte" for name, value in values.items() if "\0" in value]
    if problems:
        raise ConfigError("\n  ".join(["some secrets have no value", *problems]), where=environment.name)
    return {name: Secret(values[name]) for name in wanted}


@contextmanager
def given_secrets(environ: MutableMapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Take the variable of secrets out of the environment while it lasts, and hand out all that was there.

    No program that is started gets to see it. Raises ConfigError for a text that is not understood.
    """
    text = environ.pop(GIVEN, None)
    if text is None:
        yield environ
        return
    try:
        if environ.get("GITHUB_ACTIONS"):
            _mask(read_env_text(text, GIVEN).values())
        yield ChainMap({GIVEN: text}, environ)
    finally:
        environ[GIVEN] = text


def _mask(values: Iterable[str]) -> None:
    """Tell GitHub what to hide in its log, by its own command: of a secret it knows the lines, not the values in them."""
    for value in filter(None, values):
        escaped = value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        sys.stderr.write(f"::add-mask::{escaped}\n")  # which it reads as it reads stdout; that may be one JSON document
    sys.stderr.flush()


def env_file(environment: Environment) -> Path:
    """Return the path of an environment's private file of secrets."""
    return environment.project_root / f".env.{environment.name}"


def _missing(name: str, file: Path, *, empty: bool) -> str:
    state = "is set but empty" if empty else "is missing"
    command = f'[secrets.{name}] command = ["…"]'
    return f"{name} {state}: export {name}=…, or a line {name}=… in {file.name} (mode 0600), or in ops.toml {command}"


def _from_commands(
    commands: Mapping[str, _CommandLine], environment: Environment, environ: Mapping[str, str], timeout: float
) -> tuple[dict[str, str], list[str]]:
    """Run the commands side by side; each runs once, however many secrets name it."""
    deadline = time.monotonic() + timeout
    variables = {name: value for name, value in environ.items() if name != GIVEN} | {"TIDEGATE_ENVIRONMENT": environment.name}
    distinct = dict.fromkeys(commands.values())
    started = {command: _start(command, environment.project_root, variables) for command in distinct}
    results = {command: _finish(process, deadline, timeout) for command, process in started.items()}
    values: dict[str, str] = {}
    problems: list[str] = []
    for name, command in commands.items():
        value, trouble = results[command]
        values |= {} if trouble else {name: value}
        problems += [f"{name}: the command {shown(shlex.join(command))} {trouble}"] if trouble else []
    return values, problems


def _start(command: _CommandLine, folder: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes] | str:
    """Start a command; the reason as text when it does not start."""
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        return f"cannot be started: {error.strerror}"


def _finish(process: subprocess.Popen[bytes] | str, deadline: float, timeout: float) -> tuple[str, str]:
    """Wait for a command; returns its value and, when it failed, why (never what it printed on stdout)."""
    if isinstance(process, str):
        return "", process
    try:
        output, errors = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end(process)
        return "", f"did not end within {timeout:g} s"
    if process.returncode:
        last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return "", f"failed with exit code {process.returncode}" + (f": {shown(last, limit=200)}" if last else "")
    return _decoded(output)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a command without waiting for pipes that its own children may still hold."""
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()


def _decoded(output: bytes) -> tuple[str, str]:
    try:
        text = output.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        return "", "printed something other than UTF-8 text"
    return text, "" if text else "printed nothing"
