"""An SSH key and host keys that come in variables, as CI has them: the key lives in an agent's memory and in no file."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops.errors import ConfigError, Refused

KEY, HOSTS, HOSTS_FILE = "TIDEGATE_SSH_KEY", "TIDEGATE_KNOWN_HOSTS", "TIDEGATE_KNOWN_HOSTS_FILE"
LASTS = 6 * 3600  # seconds until the agent forgets the key, should it outlive us nevertheless
_WHILE_WE_LIVE = ("sh", "-c", 'echo; read -r _; kill "$SSH_AGENT_PID"')


@contextmanager
def given_ssh(environ: MutableMapping[str, str]) -> Iterator[None]:
    """Use the key and the host keys of the variables while it lasts; no program that is started gets to see the key.

    Raises ConfigError for a key that cannot be used.
    """
    key, hosts = environ.pop(KEY, ""), environ.pop(HOSTS, "")
    with ExitStack() as work:
        work.callback(environ.update, {name: text for name, text in ((KEY, key), (HOSTS, hosts)) if text})  # for the next task
        if key or hosts:
            folder = Path(work.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-ssh-")))
        if hosts:
            work.enter_context(_variable(environ, HOSTS_FILE, str(_written(folder / "known_hosts", hosts))))
        if key:
            work.enter_context(_variable(environ, "SSH_AUTH_SOCK", work.enter_context(_agent(folder / "agent", key))))
        yield


def trusted_files(known_hosts: Path) -> list[Path]:
    """Return the files whose host keys are accepted: the project's, the given one, the user's own."""
    given = os.environ.get(HOSTS_FILE)
    own = [Path.home() / ".ssh" / name for name in ("known_hosts", "known_hosts2")]
    return [known_hosts, *([Path(given)] if given else []), *own]


@contextmanager
def _variable(environ: MutableMapping[str, str], name: str, value: str) -> Iterator[None]:
    before = environ.get(name)
    environ[name] = value
    try:
        yield
    finally:
        del environ[name]
        if before is not None:
            environ[name] = before


@contextmanager
def _agent(socket: Path, key: str) -> Iterator[str]:
    """Run an agent that holds the key, in a session of its own: Ctrl-C must not take the key from whoever undoes."""
    try:
        agent = subprocess.Popen(["ssh-agent", "-a", str(socket), *_WHILE_WE_LIVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 start_new_session=True)  # fmt: skip
    except FileNotFoundError:
        raise Refused("ssh-agent is not installed on this machine", fix="install openssh-client") from None
    with agent:  # whose end closes the pipe, as does our death
        if agent.stdout:
            agent.stdout.readline()  # it listens already
        _add(socket, key)
        yield str(socket)


def _add(socket: Path, key: str) -> None:
    environ = {**os.environ, "SSH_AUTH_SOCK": str(socket), "SSH_ASKPASS_REQUIRE": "never"}
    done = subprocess.run(["ssh-add", "-q", "-t", str(LASTS), "-"], input=_lines(key), env=environ, start_new_session=True,
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise ConfigError("this SSH key cannot be used", where=KEY, why=done.stderr.strip() or "ssh-add refused it",
                          fix="give it the private key as it stands in its file, one without a passphrase")  # fmt: skip


def _written(path: Path, text: str) -> Path:
    path.write_text(_lines(text))
    return path


def _lines(text: str) -> str:
    """Return text as files have it: forms for secrets drop the last newline, and browsers send carriage returns."""
    return text.replace("\r\n", "\n").rstrip("\n") + "\n"
