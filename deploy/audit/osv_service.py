"""An OSV service on loopback for the records of a folder, so that the same program asks it that asks the public one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from deploy.audit.osv import ECOSYSTEM, Database

PATH = "/v1/query"


@contextmanager
def serving(database: Database) -> Iterator[str]:
    """Serve a database on a free port; hands out the address to ask."""

    class Handler(_Handler):
        asked = database

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{PATH}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    asked: Database

    def do_POST(self) -> None:
        """Answer which records are about a release."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != PATH:
            return self._tell(404, {"message": "there is only /v1/query"})
        try:
            query = json.loads(body)
            package = query["package"]
            if package["ecosystem"] != ECOSYSTEM:
                raise ValueError(f"there is only {ECOSYSTEM}")
            found = self.asked.query(package["name"], query["version"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return self._tell(400, {"message": str(error)})
        self._tell(200, {"vulns": found} if found else {})

    def _tell(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet: the answers are told by who asked."""
