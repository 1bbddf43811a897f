"""What the tests of the audit share: locks of real releases, real advisories, and services that answer as they are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ADVISORIES = Path(__file__).with_name("advisories")
RUSTSEC = Path(__file__).with_name("rustsec")
NOW = datetime(2024, 7, 20, 12, tzinfo=UTC)
TODAY = date(2024, 10, 10)

VULNERABLE = """\
requests==2.30.0 \\
    --hash=sha256:10e94cc4f3121ee6da529d358cdaeaff2f1c409cd377dbc72b825852f2f7e294 \\
    --hash=sha256:239d7d4458afcb28a692cdd298d87542235f4ca8d36d03a15bfc128a6559a2f4
    # via -r requirements.in
"""
FIXED = """\
requests==2.31.0 \\
    --hash=sha256:58cd2187c01e70e6e26505bca751777aa9f2ee0b7f4300988b709f44e013003f \\
    --hash=sha256:942c5a758f98d790eaed1a29cb6eefc7ffb0d1cf7af05c3d2791656dbd6ad1e1
"""
FOR_ANOTHER_SYSTEM = """\
idna==3.6 ; sys_platform == 'nowhere' \\
    --hash=sha256:9ecdbbd083b06798ae1e86adcbfe8ab1479cf864e4ee30fe4e46a003d12491ca
idna==3.7 ; sys_platform != 'nowhere' \\
    --hash=sha256:82fee1fc78add43492d3a1898bfa6d8a904cc97d8427f683ed8e798d07761aa0
"""


def folder(place: Path, lock: str = "", ignores: str = "", name: str = "requirements.lock") -> Path:
    """Write a project's folder: a lock, and what its audit.toml says."""
    (place / name).write_text(lock)
    if ignores:
        (place / "audit.toml").write_text(ignores)
    return place


@contextmanager
def service(answers: dict[str, tuple[int, str]], otherwise: tuple[int, str] = (404, "")) -> Iterator[str]:
    """Answer requests to a path as told; hands out the address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answers.get(self.path, otherwise)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
