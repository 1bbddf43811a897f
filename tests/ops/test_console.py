"""The terminal: what scripts get is pure, what people get is harmless, and a terminal that is gone stops nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from ops.console import Console

if TYPE_CHECKING:
    import pytest

TALK = """
import sys
from ops.console import Console
console = Console()
for _ in range(20000):
    console.say("a line that nobody reads any more")
console.table("", ("a",), [("b",)])
sys.stderr.write("went on")
"""


def test_a_reader_that_has_gone_does_not_stop_the_work() -> None:
    with subprocess.Popen([sys.executable, "-c", TALK], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_scripts_get_one_document_and_people_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.say("for people")
    console.document({"b": 1, "a": [2]})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": [2], "b": 1}
    assert err == "for people\n"


def test_control_characters_of_servers_and_apps_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("\x1b[2Jgone\x07 [bold]kept[/bold] é\tü")
    assert capsys.readouterr().out == "\N{REPLACEMENT CHARACTER}[2Jgone\N{REPLACEMENT CHARACTER} [bold]kept[/bold] é\tü\n"


def test_without_a_terminal_the_answer_is_no_unless_it_was_given_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert not Console().confirm("deploy?")
    assert "--yes" in capsys.readouterr().out
    assert Console(assume_yes=True).confirm("deploy?")
    assert not Console(assume_yes=True).confirm("trust a changed key?", in_person=True)
