"""One signal stops the work, and nothing disturbs what must be brought to an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading
from ops.interrupts import interrupt_once, no_more_interrupts

interrupt_once()
if sys.argv[1] == "decided":
    no_more_interrupts()
try:
    print("ready", flush=True)
    sys.stdin.readline()
except KeyboardInterrupt:
    print("undoing", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""


def program(moment: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, moment], text=True, bufsize=1,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_next_ones_only_get_an_answer(number: signal.Signals) -> None:
    with program("working") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        assert process.stdout.readline() == "undoing\n"
        os.kill(process.pid, number)
        assert "please wait" in process.stderr.readline()
        assert process.communicate("\n", timeout=30)[0] == "done\n"


def test_once_it_is_decided_no_signal_interrupts() -> None:
    with program("decided") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        assert "please wait" in process.stderr.readline()
        assert process.communicate("\n", timeout=30)[0] == "done\n"


WAITING = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from ops.interrupts import interrupt_once, wait_for

interrupt_once()
ended, main = threading.Event(), threading.get_ident()

def work():
    while sys._current_frames()[main].f_code.co_filename != threading.__file__:
        pass
    print("ready", flush=True)
    ended.wait()

for _ in range(3):
    threading.Thread(target=os.read, args=(0, 1), daemon=True).start()
with ThreadPoolExecutor(1) as pool:
    try:
        wait_for([pool.submit(work)])
    except KeyboardInterrupt:
        print("undoing", flush=True)
    ended.set()
"""


def test_several_signals_at_once_interrupt_a_wait_for_threads() -> None:
    for _ in range(10):
        command = [sys.executable, "-c", WAITING]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                process.send_signal(number)
            assert process.stdout.readline() == "undoing\n"
