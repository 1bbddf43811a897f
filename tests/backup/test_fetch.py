"""Backups brought here: over the real line, resumed, checked, and never half under a final name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backup import commands, fetch
from backup.by_hand import commands as by_hand
from backup.client import Client
from backup.hosts import Done
from backup.progress import Printer
from ops.config import Environment
from ops.console import Console
from ops.errors import ConfigError, Failed, Locked, Refused
from ops.shell import Command
from tests.backup.local_servers import TWO, Servers, make

ABSENT = "20260101T000000Z-abcdef"


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    return make(tmp_path, monkeypatch)


@pytest.fixture
def taken(servers: Servers) -> str:
    return take(servers)


def take(servers: Servers) -> str:
    with servers.client() as client:
        return str(client.call("run")["id"])


def printer(env: Environment) -> Printer:
    return Printer(Console(), len(env.hosts))


def get(servers: Servers, id: str = "") -> Done:
    to = str(servers.folder / "here")
    env = servers.env
    return commands.fetch(env, {}, printer(env), id, to) if id else commands.pull(env, {}, printer(env), to)


def here(servers: Servers) -> list[str]:
    folder = servers.folder / "here"
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.exists() else []


def cut_short(servers: Servers, name: str, size: int) -> None:
    """Leave what an interrupted fetch leaves."""
    (id,) = [path.name for path in (servers.app / "backups").iterdir() if path.name[0] != "." and path.is_dir()]
    partial = servers.folder / "here" / f".partial-{id}"
    partial.mkdir(parents=True)
    (partial / name).write_bytes((servers.app / "backups" / id / name).read_bytes()[:size])


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return the files that are asked for, each with its offset, as that happens."""
    asked: list[tuple[str, int]] = []
    real = Client.sender

    def sender(self: Client, id: str, file: str, offset: int) -> Command:
        asked.append((file, offset))
        return real(self, id, file, offset)

    monkeypatch.setattr(Client, "sender", sender)
    return asked


def data_file(servers: Servers, id: str) -> Path:
    manifest = json.loads((servers.app / "backups" / id / "manifest.json").read_text())
    return servers.app / "backups" / id / str(manifest["items"][0]["files"][0]["name"])


def test_a_fetched_backup_is_the_servers_byte_for_byte_and_only_ours_to_read(servers: Servers, taken: str) -> None:
    done = get(servers, taken)
    assert not done.errors
    for path in (servers.app / "backups" / taken).iterdir():
        assert (servers.folder / "here" / taken / path.name).read_bytes() == path.read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (servers.folder / "here" / taken).iterdir()} == {0o600}
    assert (servers.folder / "here" / taken).stat().st_mode & 0o777 == 0o700
    assert here(servers) == [taken]


def test_the_commands_that_it_prints_restore_it_with_stock_tools(servers: Servers, taken: str) -> None:
    (fetched,) = get(servers, taken).results["one.invalid"]["fetched"]
    folder = servers.folder / "here" / taken
    for line in fetched["by_hand"]:
        subprocess.run(["bash", "-e", "-o", "pipefail", "-c", line], cwd=folder, check=True, capture_output=True)
    with closing(sqlite3.connect(folder / "posts.sqlite")) as restored:
        assert restored.execute("SELECT * FROM posts").fetchall() == [("one",), ("two",)]


def test_what_arrived_before_is_not_sent_again(servers: Servers, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = data_file(servers, taken).name
    cut_short(servers, name, 50)
    asked = watched(monkeypatch)
    assert not get(servers, taken).errors
    assert (name, 50) in asked
    assert here(servers) == [taken]


def test_a_file_that_arrived_whole_is_not_asked_for_at_all(servers: Servers, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = data_file(servers, taken).name
    cut_short(servers, name, 10**9)
    asked = watched(monkeypatch)
    assert not get(servers, taken).errors
    assert name not in dict(asked)


@pytest.mark.parametrize("how", ["flipped here", "longer here", "damaged there"])
def test_damage_is_found_and_the_same_command_mends_it(servers: Servers, taken: str, how: str) -> None:
    path = data_file(servers, taken)
    good = path.read_bytes()
    if how == "damaged there":
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    else:
        cut_short(servers, path.name, 10**9)
        ours = servers.folder / "here" / f".partial-{taken}" / path.name
        ours.write_bytes(good + b"x" if how == "longer here" else bytes([good[0] ^ 1]) + good[1:])
    done = get(servers, taken)
    if how != "longer here":
        assert "is not what the manifest says" in done.errors["one.invalid"].what
        assert here(servers) == [f".partial-{taken}"]
        path.write_bytes(good)
        done = get(servers, taken)
    assert not done.errors
    assert here(servers) == [taken]


def test_a_line_that_is_cut_leaves_a_part_that_the_next_command_goes_on_from(servers: Servers, taken: str) -> None:
    name = data_file(servers, taken).name
    ssh = servers.folder / "bin" / "ssh"
    real = ssh.read_text()
    ssh.write_text(
        real.replace(
            'exec sh -c "$1"', f'case "$1" in *{name}*) sh -c "$1" | head -c 40; echo cut >&2; exit 255;; esac\nexec sh -c "$1"'
        )
    )
    done = get(servers, taken)
    assert done.exit_code == 3
    assert "cut" in done.errors["one.invalid"].why
    assert (servers.folder / "here" / f".partial-{taken}" / name).stat().st_size == 40
    ssh.write_text(real)
    assert not get(servers, taken).errors
    assert here(servers) == [taken]


def test_new_ones_are_all_good_ones_that_are_not_here(servers: Servers, taken: str) -> None:
    second, bad = take(servers), take(servers)
    (servers.app / "backups" / bad / "verified.jsonl").unlink()
    get(servers, taken)
    (found,) = get(servers).results.values()
    assert [one["id"] for one in found["fetched"]] == [second]
    assert found["already_here"] == [taken]
    assert here(servers) == sorted([taken, second])
    (servers.app / "backups").rename(servers.app / "gone")
    assert get(servers).results["one.invalid"]["fetched"] == []
    assert here(servers) == sorted([taken, second])


def test_several_servers_have_a_folder_each(servers: Servers, taken: str) -> None:
    servers.env = servers.env.model_copy(update={"hosts": (*servers.env.hosts, TWO)})
    assert set(get(servers, taken).results) == {"one.invalid", "two.invalid"}
    assert here(servers) == ["one.invalid", "two.invalid"]
    assert (servers.folder / "here" / "two.invalid" / taken / "manifest.json").exists()


def test_one_server_that_fails_hides_nothing_of_the_other(servers: Servers, taken: str) -> None:
    servers.env = servers.env.model_copy(update={"hosts": (*servers.env.hosts, TWO)})
    ssh = servers.folder / "bin" / "ssh"
    ssh.write_text(
        ssh.read_text().replace(
            "#!/bin/sh", '#!/bin/sh\ncase "$*" in *two.invalid*) echo "Connection refused" >&2; exit 255;; esac'
        )
    )
    done = get(servers, taken)
    assert list(done.results) == ["one.invalid"]
    assert list(done.errors) == ["two.invalid"]
    assert done.exit_code == 3


def test_one_that_no_server_has_is_an_error(servers: Servers, taken: str) -> None:
    done = get(servers, ABSENT)
    assert done.errors["one.invalid"].what == f"there is no backup {ABSENT}"


@pytest.mark.parametrize("id", ["..", "newest", "20260101T000000Z", f"{ABSENT}/../x", "$(id)"])
def test_what_is_no_id_never_becomes_a_path(servers: Servers, id: str) -> None:
    with pytest.raises(ConfigError, match="is not a backup's id"):
        get(servers, id)
    assert here(servers) == []


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", ".ssh", "", "manifest.json"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(servers: Servers, taken: str, name: str) -> None:
    path = servers.app / "backups" / taken / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["items"][0]["files"][0]["name"] = name
    path.write_text(json.dumps(manifest))
    done = get(servers, taken)
    assert "manifest" in done.errors["one.invalid"].what
    assert here(servers) == [f".partial-{taken}"]


def test_two_commands_do_not_write_into_one_folder(servers: Servers, taken: str) -> None:
    (servers.folder / "here").mkdir()
    with (servers.folder / "here" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert isinstance(get(servers, taken).errors["one.invalid"], Locked)
    assert not get(servers, taken).errors


def test_it_is_refused_where_there_is_no_room(servers: Servers, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Full", (), {"free": 10, "total": full.f_blocks}))
    assert isinstance(get(servers, taken).errors["one.invalid"], Refused)


def test_an_interruption_keeps_what_is_here(servers: Servers, taken: str) -> None:
    with servers.client() as client:
        one = fetch._Fetch(servers.env, client, printer(servers.env), servers.folder / "here", threading.Event())
        one.stop.set()
        with pytest.raises(Failed, match="interrupted") as caught:
            one.all([taken])
    assert "goes on" in caught.value.fix
    assert not get(servers, taken).errors


def test_by_hand_every_kind_has_its_tools() -> None:
    def item(kind: str, *names: str) -> Any:
        files = tuple(fetch_file(name) for name in names)
        return model.Item("a b", kind, files, {})

    from backup.agent import model

    def fetch_file(name: str) -> model.DataFile:
        return model.DataFile(name, 1, "0" * 64)

    items = (
        item("sqlite", "a b.sqlite.zst"),
        item("directory", "up.tar.gz.age"),
        item("postgres", "m.pgdump.xz", "m.globals.sql"),
        item("mariadb", "m.sql.age", "m.globals.sql.age"),
    )
    manifest = model.Manifest(ABSENT, "blog", "test", "one", ("manual",), "", "", 0.0, items)
    assert by_hand(manifest) == [
        "sha256sum -c SHA256SUMS",
        "zstd -q -d -c 'a b.sqlite.zst' > 'a b.sqlite'",
        "age -d -i KEY_FILE up.tar.gz.age | gzip -d -c | tar -x -p --numeric-owner --xattrs --xattrs-include='*' --acls -f - -C EMPTY_FOLDER",
        "cat m.globals.sql | psql -d postgres",
        "xz -q -d -c m.pgdump.xz | pg_restore --exit-on-error -d NEW_DATABASE",
        "age -d -i KEY_FILE m.globals.sql.age | grep -v '`root`@' | mariadb --force",
        "age -d -i KEY_FILE m.sql.age | mariadb NEW_DATABASE",
    ]


def test_what_is_said_of_the_bytes_has_their_rate_and_the_time_left() -> None:
    from backup.progress import EVERY, Meter

    meter = Meter()
    assert meter.line(0, 10**9, 100.0) == ""
    assert meter.line(10**7, 10**9, 101.0) == ""
    assert meter.line(10**8, 10**9, 100.0 + EVERY) == "100.0 MB of about 1.0 GB, 10.0 MB/s, 1 min left"
    assert meter.line(3 * 10**8, 0, 120.0) == "300.0 MB, 15.0 MB/s"
