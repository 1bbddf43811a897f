"""Reading logs: what is asked of Loki, and what becomes of its answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from monitoring import logs
from monitoring.logs import Line
from ops.errors import ConfigError


class Kept:
    """Lines as Loki gives them: a page at a time, start included, end not."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        self.asked: list[str] = []

    def query_range(self, query: str, start: int, end: int, limit: int, direction: str) -> list[dict[str, Any]]:
        assert direction == "backward"
        self.asked.append(query)
        found = sorted((line for line in self.lines if start <= line.time < end), key=lambda line: -line.time)[:limit]
        return [{"stream": dict(line.labels), "values": [[str(line.time), line.text]]} for line in found]


def line(time: int, text: str = "hello", **labels: str) -> Line:
    return Line(time, labels or {"container": "blog-web", "host": "203.0.113.10"}, text)


@pytest.mark.parametrize(
    ("wanted", "query"),
    [
        ("", '{app="blog"}'),
        ("out of memory", '{app="blog"} |= "out of memory"'),
        ('say "hi" \\o/', '{app="blog"} |= "say \\"hi\\" \\\\o/"'),
        ("grün", '{app="blog"} |= "grün"'),
        ('{job="host"} |~ "oom"', '{job="host"} |~ "oom"'),
    ],
)
def test_a_question_is_the_apps_logs_or_a_text_in_them_or_what_was_asked(wanted: str, query: str) -> None:
    assert logs.question("blog", wanted) == query


def test_the_newest_lines_come_oldest_first() -> None:
    kept = Kept([line(time) for time in range(10)])
    assert [one.time for one in logs.read(kept, "{}", 2, 9, 3)] == [6, 7, 8]


def test_more_lines_than_a_page_come_whole_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PAGE", 4)
    known = [line(number // 3, str(number)) for number in range(20)]  # three of each time, so that pages end between equals
    assert sorted(one.text for one in logs.read(Kept(known), "{}", 0, 99, 99)) == sorted(one.text for one in known)


def test_lines_are_followed_even_those_that_come_late() -> None:
    kept, clock = Kept([line(5, "first")]), [10]
    later = iter([line(12, "second"), line(3, "late"), line(13, "third")])

    def wait() -> None:
        clock[0] += 1
        kept.lines.append(next(later))

    assert [one.text for one in islice(_follow(kept, clock, wait), 4)] == ["first", "second", "late", "third"]


def _follow(kept: Kept, clock: list[int], wait: Callable[[], None]) -> Any:
    return logs.follow(kept, "{}", 0, lambda: clock[0], wait)


def test_a_line_says_when_which_container_and_what() -> None:
    said = logs.text(line(1_700_000_000_123_456_789, "GET /"))
    assert re.fullmatch(r"2023-11-1\d \d\d:\d\d:20\.123 blog-web@203\.0\.113\.10 GET /", said)


def test_a_line_for_programs_has_its_labels() -> None:
    assert logs.document(line(7, "x", app="blog")) == {"time": 7, "labels": {"app": "blog"}, "line": "x"}


def test_a_query_of_numbers_is_refused_in_words() -> None:
    class Numbers:
        def query_range(self, query: str, start: int, end: int, limit: int, direction: str) -> list[dict[str, Any]]:
            return [{"metric": {}, "values": [[1, "2"]]}]

    with pytest.raises(ConfigError, match="numbers, not lines"):
        logs.read(Numbers(), "rate({}[1m])", 0, 1, 1)
