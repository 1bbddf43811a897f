"""An SSH server in this process that runs what it is asked to, as a shell would that belongs to a server."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko

from ops.config import App, Environment, HostAddress


class ShellServer(paramiko.ServerInterface):
    """Lets everybody in; `profile` are shell lines that come before each command, None means that there is no shell."""

    def __init__(self, folder: Path, profile: str | None = "") -> None:
        self.profile = profile
        self.key = paramiko.ECDSAKey.generate()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._transports: list[paramiko.Transport] = []
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "identity"], check=True)
        port = self._listener.getsockname()[1]
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {self.key.get_name()} {self.key.get_base64()}\n")
        self.address = HostAddress(address="127.0.0.1", user="deploy", port=port, identity=folder / "identity")
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def environment(self) -> Environment:
        app = App(name="blog", port=3000)
        return Environment(name="test", app=app, hosts=(self.address,), domains=("a.example",), known_hosts=self.known_hosts)

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)  # it ends the wait in another thread, `close` does not
        self._listener.close()
        for transport in self._transports:
            transport.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._transports.append(paramiko.Transport(connection))
            self._transports[-1].add_server_key(self.key)
            self._transports[-1].start_server(event=threading.Event(), server=self)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self.profile is None:
            return False
        threading.Thread(target=self._run, args=(channel, f"{self.profile}\n{command.decode()}"), daemon=True).start()
        return True

    @staticmethod
    def _run(channel: paramiko.Channel, command: str) -> None:
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        channel.sendall(done.stdout)
        channel.sendall_stderr(done.stderr)
        channel.send_exit_status(done.returncode)
        channel.close()


@contextmanager
def shell_server(folder: Path, profile: str | None = "") -> Iterator[ShellServer]:
    """Serve for as long as the block runs."""
    server = ShellServer(folder, profile)
    try:
        yield server
    finally:
        server.close()
