"""Commands on a server through Fabric, for what is neither the engine's nor the agent's: making a bare server ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from ops.config import Environment, HostAddress
from ops.errors import Failed, Unreachable
from ops.given_ssh import trusted_files
from ops.link import explain
from ops.shell import Command, as_root

if TYPE_CHECKING:
    from fabric import Connection


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and its output."""

    code: int
    stdout: str
    stderr: str


class Host:
    """A server's shell; a context manager. Unknown host keys are refused, as everywhere."""

    def __init__(self, environment: Environment, address: HostAddress) -> None:
        self.name = address.name
        self._environment = environment.name
        self._connection = _connection(environment, address)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hop in _hops(self._connection):
            hop.close()

    def run(self, command: Command, *, root: bool = False) -> Result:
        """Run a command and return how it ended, whatever the exit code. Raises Unreachable."""
        whole = as_root(command) if root else command
        try:
            done = self._connection.run(whole.reveal(), hide=True, warn=True, in_stream=False, pty=False)
        except Exception as error:  # noqa: BLE001  # paramiko, socket and DNS errors share no base class
            raise _unreachable(self.name, self._environment, error) from None
        return Result(done.exited, done.stdout, done.stderr)

    def check(self, command: Command, *, root: bool = False, fix: str = "") -> str:
        """Run a command and return its output. Raises Failed with its words and `fix` when it fails."""
        done = self.run(command, root=root)
        if done.code:
            why = (done.stderr or done.stdout).strip() or "it said nothing"
            raise Failed(f"`{command}` failed with exit code {done.code}", where=self.name, why=why, fix=fix)
        return done.stdout


def _connection(environment: Environment, address: HostAddress) -> Connection:
    from fabric import Connection

    key = {"key_filename": str(address.identity)} if address.identity else {}
    connection = Connection(address.address, user=address.user, port=address.port, connect_kwargs=key, connect_timeout=10)
    for hop in _hops(connection):
        _harden(hop, environment)
    return connection


def _hops(connection: Connection) -> Iterator[Connection]:
    """Yield the connection and those it goes through: Fabric makes one of its own, trusting, for each ProxyJump."""
    hop = connection
    while hop and not isinstance(hop, str):  # a ProxyCommand is a string: an ssh in it checks host keys by itself
        yield hop
        hop = hop.gateway


def _harden(hop: Connection, environment: Environment) -> None:
    from paramiko import RejectPolicy

    hop.client.set_missing_host_key_policy(RejectPolicy())
    for file in trusted_files(environment.known_hosts):
        if file.exists():
            hop.client.load_host_keys(str(file))


def _unreachable(name: str, environment: str, error: Exception) -> Unreachable:
    text = str(error) or repr(error)
    if "not found in known_hosts" in text or type(error).__name__ == "BadHostKeyException":
        text = f"host key verification failed: {text}"
    if type(error).__name__ == "AuthenticationException":
        text = f"permission denied: {text}"
    if type(error).__name__ == "ChannelException" or text == "Channel closed.":
        return Unreachable("the server opens no shell for us", where=name, why=text,
                           fix="let the user run commands: no ForceCommand, a shell such as /bin/bash")  # fmt: skip
    return explain(name, environment, [text])
