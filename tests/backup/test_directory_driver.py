"""Folders and volumes: every kind of name and file saved and restored, and swapped with whatever dies in between."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backup.agent.directory import Directory
from backup.agent.errors import BackupError, NeedsPerson, Untried
from backup.agent.model import Source
from backup.agent.places import Missing, find
from backup.agent.source import Saved
from ops.agent.engine import Engine
from tests.backup.driving import dies, directory_of, saved_in, settings_of, stage_in, tree

NAMES = ["plain", "with space", "it's \"quoted\" $HOME `id`", "new\nline", "-rf", "--checkpoint-action=exec=sh x", "back\\slash\\n",
         os.fsdecode(b"caf\xe9"), "é", "*", "x" * 255]  # fmt: skip


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "uploads"
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name, errors="surrogateescape")
        (folder / "sub" / name).mkdir()
    (folder / "link").symlink_to("/etc")
    os.link(folder / "plain", folder / "hard link")
    with (folder / "sparse").open("wb") as file:
        file.truncate(50 * 1024**2)
        file.seek(20 * 1024**2)
        file.write(b"island")
    return folder


def take(live: Path, folder: Path, **more: object) -> Saved:
    return saved_in(folder, directory_of(live, **more).dump(stage_in(folder)))


def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir(exist_ok=True)
    return tmp_path / "work"


def names_in(saved: Saved) -> set[str]:
    done = subprocess.run(["tar", "-tf", saved.folder / saved.item.files[0].name], check=True, capture_output=True, text=True)
    return {one.removeprefix("./").rstrip("/") for one in done.stdout.splitlines()} - {""}


def test_every_kind_of_name_and_file_is_saved_counted_and_restored(live: Path, tmp_path: Path) -> None:
    saved = take(live, tmp_path / "stage")
    assert saved.item.warnings == ()
    assert saved.item.counts == {"entries": 1 + len(list(live.rglob("*")))}
    assert os.listdir(tmp_path / "stage") == ["uploads.tar.zst"]
    directory_of(live).decode(saved, work(tmp_path))
    with directory_of(live).trial(saved, work(tmp_path)) as trial:
        assert trial.counts() == saved.item.counts
        with pytest.raises(BackupError, match="cannot be asked"):
            trial.query("SELECT 1")
    restored = tmp_path / "work" / "uploads"
    assert tree(restored) == tree(live)
    assert (restored / "plain").stat().st_ino == (restored / "hard link").stat().st_ino
    assert (restored / "sparse").stat().st_blocks * 512 < 1024**2
    assert saved.item.bytes < 1024**2


def test_a_socket_is_no_data_and_no_warning(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "run" / "app.sock"))
        saved = take(tmp_path / "run", tmp_path / "stage")
    assert (saved.item.counts, saved.item.warnings) == ({"entries": 1}, ())


def test_an_empty_folder_is_saved_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert directory_of(tmp_path / "empty").state().present
    directory_of(tmp_path / "empty").decode(take(tmp_path / "empty", tmp_path / "stage"), work(tmp_path))
    assert not directory_of(tmp_path / "none").state().present
    with pytest.raises(BackupError, match=r"there is no .*none"):
        take(tmp_path / "none", tmp_path / "stage")
    assert os.listdir(tmp_path / "stage") == ["uploads.tar.zst"]


@pytest.mark.parametrize("path", ["file", "link", "link/sub"])
def test_neither_links_nor_files_are_taken_for_folders(live: Path, path: str) -> None:
    (live.parent / "file").write_text("")
    (live.parent / "link").symlink_to(live)
    for act in (
        directory_of(live.parent / path).state,
        lambda: directory_of(live.parent / path).dump(stage_in(live.parent / "stage")),
    ):
        with pytest.raises(BackupError, match=r"not a folder|symbolic link"):
            act()


@pytest.mark.parametrize("path", ["", ".", "/", "relative", "/srv/../etc", "/srv/\0"])
def test_a_path_that_could_be_anything_else_is_refused(path: str) -> None:
    with pytest.raises(BackupError):
        directory_of(path).state()


def test_excludes_with_a_slash_are_paths_and_those_without_are_names(tmp_path: Path) -> None:
    for name in ("cache/a", "users/cache/photo", "x.tmp", "users/y.tmp", "keep", "top", "users/top"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("")
    saved = take(tmp_path / "data", tmp_path / "stage", exclude=("cache/*", "*.tmp", "/top"))
    assert names_in(saved) == {"cache", "users", "users/cache", "users/cache/photo", "keep", "users/top"}
    assert saved.item.counts == {"entries": 7}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owners_modes_times_and_attributes_come_back(tmp_path: Path) -> None:
    live = tmp_path / "data"
    live.mkdir(mode=0o750)
    (live / "file").write_text("x")
    os.chown(live / "file", 1234, 1235)
    os.chown(live, 1236, 1237)
    (live / "file").chmod(0o4711)
    os.utime(live / "file", ns=(1, 1_600_000_000_123_456_789))
    os.setxattr(live / "file", "user.note", b"hello")
    replacement = directory_of(live).beside(take(live, tmp_path / "stage"), "t")
    replacement.swap()
    (live.parent / "data.before-t" / "file").unlink()
    known, folder = (live / "file").stat(), live.stat()
    assert (known.st_uid, known.st_gid, known.st_mode & 0o7777, known.st_mtime_ns) == (
        1234,
        1235,
        0o4711,
        1_600_000_000_123_456_789,
    )
    assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o7777) == (1236, 1237, 0o750)
    assert os.getxattr(live / "file", "user.note") == b"hello"


def test_files_that_change_and_vanish_meanwhile_are_warnings_and_the_archive_is_whole(tmp_path: Path) -> None:
    live = tmp_path / "data"
    live.mkdir()
    ended = threading.Event()

    def churn() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            with (live / f"{number % 50}").open("wb") as file:
                file.truncate(number % 7 * 100_000)
            (live / f"{(number + 25) % 50}").unlink(missing_ok=True)

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        taken = [take(live, tmp_path / f"stage{number}") for number in range(20)]
    finally:
        ended.set()
        writer.join()
    for number, saved in enumerate(taken):
        (tmp_path / f"work{number}").mkdir()
        directory_of(live).decode(saved, tmp_path / f"work{number}")
    told = [one for saved in taken for one in saved.item.warnings]
    assert told
    assert all("tar:" not in one for one in told)


def test_another_file_system_below_is_left_out_and_told(tmp_path: Path, small_disk: Path) -> None:
    (small_disk / "inside").write_text("x")
    saved = take(small_disk.parent, tmp_path / "stage")
    assert "different filesystem" in " ".join(saved.item.warnings)
    assert names_in(saved) == {"small"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mounts" / "small"
    path.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_mount_is_not_replaced_and_its_subfolder_is(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "inside").mkdir()
    with pytest.raises(BackupError, match="a mount of its own"):
        directory_of(small_disk).beside(take(small_disk, tmp_path / "stage"), "t")
    inside = small_disk / "inside"
    directory_of(inside).beside(take(inside, tmp_path / "stage2"), "t").swap()
    assert sorted(os.listdir(small_disk)) == ["inside", "inside.before-t"]


def test_a_full_disk_fails_the_restore_and_leaves_nothing_beside(small_disk: Path, tmp_path: Path) -> None:
    inside = small_disk / "inside"
    inside.mkdir()
    (inside / "big").write_bytes(os.urandom(700_000))
    saved = take(inside, tmp_path / "stage")
    with pytest.raises(Untried, match=r"tar ended with exit code 2: .*(No space left|Wrote only)"):
        directory_of(inside).beside(saved, "t")
    assert os.listdir(small_disk) == ["inside"]


@pytest.mark.parametrize("wrong", [-1, 1])
def test_an_archive_with_another_number_of_entries_fails_the_proof(live: Path, tmp_path: Path, wrong: int) -> None:
    saved = take(live, tmp_path / "stage")
    entries = saved.item.counts["entries"]
    with pytest.raises(BackupError, match=f"has {entries} entries"):
        directory_of(live).decode(replace(saved, item=replace(saved.item, counts={"entries": entries + wrong})), work(tmp_path))


def test_an_archive_cut_between_two_entries_fails_the_proof(live: Path, tmp_path: Path) -> None:
    """Tar itself takes the missing end for the end."""
    item = directory_of(live).dump(stage_in(tmp_path / "stage", "none"))
    path = tmp_path / "stage" / "uploads.tar"
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(BackupError):
        directory_of(live).decode(saved_in(tmp_path / "stage", item), work(tmp_path))


def changed(live: Path, tmp_path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """A backup restored beside what has changed since; returns both trees."""
    before = dict(tree(live))
    replacement = directory_of(live).beside(take(live, tmp_path / "stage"), "20261123")
    assert replacement.counts() == {"entries": len(before) + 1}
    (live / "new").write_text("since then")
    return before, dict(tree(live))


def small(folder: Path) -> Path:
    live = folder / "uploads"
    live.mkdir(parents=True)
    (live / "a").write_text("a")
    return live


def test_a_restored_folder_takes_the_place_and_the_old_one_comes_back(live: Path, tmp_path: Path) -> None:
    before, since = changed(live, tmp_path)
    replacement = directory_of(live).replaced("20261123")
    assert replacement.swap() == replacement.swap() == f"{live}.before-20261123"
    assert tree(live) == before
    replacement.discard()
    replacement.swap_back()
    assert tree(live) == since
    replacement.discard()
    assert os.listdir(live.parent) == ["uploads"]


def test_wherever_a_swap_or_its_undoing_dies_the_live_folder_can_be_had_back(tmp_path: Path) -> None:
    for undoing in (False, True):
        at, died = 0, True
        while died:
            at += 1
            folder = tmp_path / f"{undoing}{at}"
            live = small(folder)
            before, since = changed(live, folder)
            replacement = directory_of(live).replaced("20261123")
            if undoing:
                replacement.swap()
            died = dies(replacement.swap_back if undoing else replacement.swap, at)
            assert not live.exists() or tree(live) in (before, since)
            directory_of(live).replaced("20261123").swap_back()
            assert tree(live) == since
            dies(directory_of(live).replaced("20261123").discard, at)
            directory_of(live).replaced("20261123").discard()
            assert tree(live) == since
            assert sorted(os.listdir(folder)) == ["stage", "uploads"]
        assert at > 5


def test_a_folder_made_anew_half_way_is_left_for_a_person_to_decide(tmp_path: Path) -> None:
    live = small(tmp_path)
    _, since = changed(live, tmp_path)
    live.rename(f"{live}.before-20261123")
    live.mkdir()
    for act in (directory_of(live).replaced("20261123").swap, directory_of(live).replaced("20261123").swap_back):
        with pytest.raises(NeedsPerson, match="made anew"):
            act()
    assert tree(Path(f"{live}.before-20261123")) == since


def test_a_folder_that_was_not_there_is_not_there_again(tmp_path: Path) -> None:
    live = small(tmp_path)
    before = tree(live)
    saved = take(live, tmp_path / "stage")
    shutil.rmtree(live)
    replacement = directory_of(live).beside(saved, "t")
    assert replacement.swap() == replacement.swap() == ""
    assert tree(live) == before
    replacement.swap_back()
    replacement.discard()
    assert os.listdir(tmp_path) == ["stage"]


@pytest.fixture
def volume() -> Iterator[str]:
    from ops.bases import ensure_base
    from ops.local_engine import ensure

    ensure(print)
    ensure_base("debian:trixie-slim", print)
    name = f"tidegate-test-{uuid.uuid4().hex[:8]}"
    yield name
    subprocess.run(["docker", "volume", "rm", "-f", name], check=True, capture_output=True)


def in_container(volume: str, command: str) -> str:
    run = ["docker", "run", "--rm", "--network", "none", "-v", f"{volume}:/data", "debian:trixie-slim", "sh", "-c", command]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout


@pytest.mark.integration
@pytest.mark.skipif(os.geteuid() != 0, reason="volumes are root's")
def test_a_container_started_after_the_swap_of_a_volume_sees_the_restored_data(volume: str, tmp_path: Path) -> None:
    in_container(volume, "echo old > /data/file; mkdir /data/sub; echo below > /data/sub/file; ln -s /etc /data/link")
    source = Source("uploads", "directory", volume=volume)
    driver = Directory(settings_of(source), source, Engine("/var/run/docker.sock"))
    assert driver.state().present
    saved = saved_in(tmp_path / "stage", driver.dump(stage_in(tmp_path / "stage")))
    in_container(volume, "echo new > /data/file; rm -r /data/sub")
    replacement = driver.beside(saved, "t")
    assert in_container(volume, "ls /data") == "file\nlink\n"
    replacement.swap()
    assert in_container(volume, "cat /data/file /data/sub/file") == "old\nbelow\n"
    replacement.swap_back()
    assert in_container(volume, "cat /data/file") == "new\n"
    replacement.discard()
    for inside, wrong in (("link", "symbolic link"), ("../../x", "leaves"), ("file", "not a folder")):
        with pytest.raises(BackupError, match=wrong):
            Directory(settings_of(source), replace(source, path=inside), Engine("/var/run/docker.sock")).state()


@pytest.mark.integration
def test_a_volume_that_is_not_there_or_not_mounted_is_told_apart(volume: str) -> None:
    engine, source = Engine("/var/run/docker.sock"), Source("uploads", "directory", volume=volume)
    with pytest.raises(Missing, match="no volume"):
        find(source, engine)
    assert not Directory(settings_of(source), source, engine).state().present
    subprocess.run(
        ["docker", "volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", volume], check=True, capture_output=True
    )
    with pytest.raises(BackupError, match="not mounted now"):
        find(source, engine)
    with pytest.raises(BackupError, match="cannot be looked up"):
        find(replace(source, volume="x"), Engine("/nowhere"))
