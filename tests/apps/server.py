"""A web app that is broken or odd in the one way that the environment variable BEHAVIOUR names.

    healthy       nothing wrong
    crash         a traceback on stderr and exit code 3 at start
    unhealthy     /health answers 503 for ever
    slow          starts to listen after three seconds
    stubborn      ignores SIGTERM
    wrong_port    listens on 3001, not 3000
    oom           allocates a gibibyte at start: more than the memory limit the test gives
    broken_pages  /health answers 200, every other path 500
    migrate_fail  `server.py migrate` prints what it was doing and exits 1
    worker_fail   the web process is fine; `server.py worker` exits 4 at once

Commands: `server.py` serves; `server.py migrate`, `server.py worker`, and `server.py check` for HEALTHCHECK.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

BEHAVIOUR = os.environ.get("BEHAVIOUR", "healthy")


def main(command: str) -> None:
    """Run one command."""
    if BEHAVIOUR != "stubborn":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    {"serve": serve, "migrate": migrate, "worker": worker, "check": check}[command]()


def serve() -> None:
    """Serve after doing at start what BEHAVIOUR says."""
    if BEHAVIOUR == "crash":
        sys.excepthook = print_and_exit_3
        raise RuntimeError("could not read the configuration: no such option 'colour'")
    if BEHAVIOUR == "oom":
        hoard = [b"x" * 2**20 for _ in range(1024)]
        print(f"allocated {len(hoard)} MiB: there is no memory limit")
    if BEHAVIOUR == "slow":
        time.sleep(3)
    listen(3001 if BEHAVIOUR == "wrong_port" else 3000)


def print_and_exit_3(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Show the traceback as usual, but exit with code 3."""
    sys.__excepthook__(kind, error, trace)  # type: ignore[arg-type]
    sys.stderr.flush()
    os._exit(3)


def listen(port: int) -> None:
    """Answer every connection in a thread of its own."""
    listener = socket.create_server(("0.0.0.0", port), backlog=128)
    print(f"{BEHAVIOUR}: listening on {port}", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    """Read one request and answer it; its body does not matter."""
    connection.settimeout(10)
    try:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (received := connection.recv(65536)):
                return
            request += received
        path = request.split(b" ", 2)[1].decode("latin-1")
        connection.sendall(response(path))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # read the rest: closing on unread bytes would reset the connection
            pass
    except OSError as error:
        print(f"connection: {error}", file=sys.stderr, flush=True)
    finally:
        connection.close()


def response(path: str) -> bytes:
    """Return a whole HTTP response."""
    status = "200 OK"
    if path == "/health" and BEHAVIOUR == "unhealthy":
        status = "503 Service Unavailable"
    if path != "/health" and BEHAVIOUR == "broken_pages":
        status = "500 Internal Server Error"
    fields = {"version": "VERSION", "behaviour": "BEHAVIOUR", "release": "TIDEGATE_RELEASE", "slot": "TIDEGATE_SLOT"}
    pairs = (f'"{key}": "{os.environ.get(name, "")}"' for key, name in fields.items())
    body = "{" + ", ".join(pairs) + "}\n"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


def migrate() -> None:
    """Pretend to migrate."""
    print("migration 7: adding column colour", flush=True)
    if BEHAVIOUR == "migrate_fail":
        sys.exit("migration 7 failed: duplicate column name: colour")


def worker() -> None:
    """Pretend to work."""
    if BEHAVIOUR == "worker_fail":
        print("worker: cannot reach the queue", file=sys.stderr, flush=True)
        sys.exit(4)
    print("worker: working", flush=True)
    while True:
        signal.pause()


def check() -> None:
    """Exit 0 when /health on port 3000 answers 200."""
    connection = socket.create_connection(("127.0.0.1", 3000), timeout=1)
    connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
    found = b"".join(iter(lambda: connection.recv(4096), b""))
    sys.exit(None if b" 200 " in found[:16] else found.decode("latin-1"))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "serve")
