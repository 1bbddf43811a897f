"""Shipping's own small parts; that layers really travel is asked of real servers in tests/contract and tests/integration."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from deploy.session import reserve
from deploy.ship import failure, follow
from ops.errors import Failed

PULL = [
    {"status": "Pulling from 5ec0de/tidegate/blog", "id": "v2"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "a"},
    {"status": "Downloading", "progressDetail": {"current": 10, "total": 100}, "id": "a"},
    {"status": "Downloading", "progressDetail": {"current": 5, "total": 50}, "id": "b"},
    {"status": "Downloading", "progressDetail": {"current": 100, "total": 100}, "id": "a"},
    {"status": "Extracting", "progressDetail": {"current": 1, "total": 100}, "id": "a"},
    {"status": "Downloading", "progressDetail": {}, "id": "b"},
    {"status": "Pull complete", "progressDetail": {}, "id": "a"},
    {"status": "Digest: sha256:0"},
]


def test_bytes_of_all_layers_are_reported_as_they_come() -> None:
    seen: list[tuple[int, int]] = []
    follow(PULL, lambda done, total: seen.append((done, total)), where="one", stop=threading.Event())
    assert seen == [(10, 100), (15, 150), (105, 150)]


def test_the_engines_own_error_is_told() -> None:
    with pytest.raises(Failed) as caught:
        follow(
            [*PULL[:3], {"errorDetail": {"message": "no space left"}, "error": "no space left"}],
            lambda done, total: None,
            where="one",
            stop=threading.Event(),
        )
    assert (caught.value.where, caught.value.why) == ("one", "no space left")


def test_a_transfer_ends_when_it_is_told_to_stop() -> None:
    stop = threading.Event()
    with pytest.raises(Failed, match="stopped"):
        follow(PULL, lambda done, total: stop.set(), where="one", stop=stop)


@pytest.mark.parametrize("line", [{}, {"status": "x"}, [], "error", None, 7])
def test_what_is_no_error_is_none(line: object) -> None:
    assert failure(line) is None


def test_the_port_and_the_name_of_last_time_are_taken_again(tmp_path: Path) -> None:
    first = reserve(tmp_path)
    port = first.port
    first.listener.close()
    second = reserve(tmp_path)
    assert (second.port, second.token) == (port, first.token)
    second.listener.close()
    assert (tmp_path / "registry.json").stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken_by_now_is_given_up(tmp_path: Path) -> None:
    first = reserve(tmp_path)
    second = reserve(tmp_path)
    assert second.port != first.port
    assert second.token == first.token
    assert {one.listener.getsockname()[0] for one in (first, second)} == {"127.0.0.1"}
    for one in (first, second):
        one.listener.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"token": 7}', '{"port": "x"}', '{"token": "../..", "port": 99999}'])
def test_a_damaged_memory_of_last_time_is_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "registry.json").write_text(text)
    door = reserve(tmp_path)
    assert len(door.token) == 32
    assert json.loads((tmp_path / "registry.json").read_text()) == {"token": door.token, "port": door.port}
    door.listener.close()
