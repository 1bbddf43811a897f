from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ops.notify import masked, notify
from ops.secret import MASK, Secret

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apprise.*")


class Receiver(ThreadingHTTPServer):
    """A service that notices are sent to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[dict[str, Any]] = []
        self.status = 200
        self.go = threading.Event()
        self.go.set()

    def url(self, rest: str = "") -> Secret:
        return Secret(f"json://user:s3cr3tpass@127.0.0.1:{self.server_port}/{rest}")


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.go.wait(10)
        self.server.received.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.go.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("failed", "kind"), [(True, "failure"), (False, "success")])
def test_a_notice_arrives_with_title_body_and_kind(receiver: Receiver, failed: bool, kind: str) -> None:
    assert notify([receiver.url()], "blog 1.2", "42 requests, 0 failed", failed) == []
    (message,) = receiver.received
    assert (message["title"], message["message"], message["type"]) == ("blog 1.2", "42 requests, 0 failed", kind)


@pytest.mark.parametrize("text", ["<b>&amp;</b>", "$(id) `id`", "a\nb", "--flag", "ünï 🌊", '"\\n"', "*bold* {x} %s"])
def test_hostile_text_arrives_literally(receiver: Receiver, text: str) -> None:
    assert notify([receiver.url()], text.replace("\n", " "), text, False) == []
    assert receiver.received[0]["message"] == text


def test_no_urls_send_nothing() -> None:
    assert notify([], "t", "b", False) == []


def test_an_empty_body_is_sent_with_the_title(receiver: Receiver) -> None:
    assert notify([receiver.url()], "title", "", False) == []
    assert receiver.received


def test_a_refusing_service_is_a_problem_with_its_reason_and_without_the_secret(receiver: Receiver) -> None:
    receiver.status = 500
    (problem,) = notify([receiver.url("hook/T0K3N")], "t", "b", True)
    assert problem.startswith("notice 1 of 1: ")
    assert "500" in problem
    assert "s3cr3tpass" not in problem
    assert "T0K3N" not in problem


def test_an_unreachable_service_is_a_problem_and_the_others_are_told(receiver: Receiver) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Secret(f"json://127.0.0.1:{free.getsockname()[1]}/T0K3N")
        (problem,) = notify([nobody, receiver.url()], "t", "b", False)
    assert problem.startswith("notice 1 of 2: ")
    assert "T0K3N" not in problem
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "url", ["", "T0K3N", "nonsense://T0K3N", "slack://T0K3N", "json://", "\0", "ht tp://T0K3N", "json://[T0K3N"]
)
def test_a_wrong_url_is_a_problem_that_does_not_repeat_it(url: str) -> None:
    (problem,) = notify([Secret(url)], "t", "b", False)
    assert "T0K3N" not in problem


def test_a_hanging_service_holds_nothing_up(receiver: Receiver) -> None:
    receiver.go.clear()
    start = time.monotonic()
    (problem,) = notify([receiver.url()], "t", "b", False, deadline=0.5)
    assert "no answer within 0.5 s" in problem
    assert time.monotonic() - start < 2


def test_nothing_reaches_the_terminal_even_with_all_logging_on(receiver: Receiver) -> None:
    receiver.status = 404
    code = "import logging, sys; logging.basicConfig(level=logging.DEBUG)\n"
    code += "from ops.notify import notify; from ops.secret import Secret\n"
    code += "assert len(notify([Secret(url) for url in sys.argv[1:]], 't', 'b', False)) == 3"
    urls = [receiver.url("T0K3N").reveal(), "bad://T0K3N", "T0K3N"]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *urls], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_every_telling_part_of_a_url_is_masked_in_each_encoding() -> None:
    url = Secret("slack://T1JJ3T3L2/A1B%2FRTYTI/bot?key=a b+c")
    text = "cannot reach slack://T1JJ3T3L2/A1B%2FRTYTI/bot?key=a b+c: A1B/RTYTI at T1JJ3T3L2\x1b[31m"
    shown = masked(text, url)
    assert "T1JJ3T3L2" not in shown
    assert "RTYTI" not in shown
    assert "\x1b" not in shown
    assert MASK in shown
