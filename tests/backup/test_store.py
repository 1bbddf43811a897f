"""The store: a backup is there whole or not at all, whatever dies, and nothing that is not ours is touched."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backup.agent.errors import BackupError, Busy
from backup.agent.model import CHECKSUMS, FULL, RESTORE, DataFile, Item, Manifest, Proof
from backup.agent.store import Store
from tests.backup.driving import dies

ID, LATER = "20261123T030000Z-0a1b2c", "20261124T030000Z-0a1b2c"
PASSED = Proof("2026-11-23T03:01:00Z", FULL, True, 1.5, "decoded when it was taken")


def manifest(id: str = ID, **more: object) -> Manifest:
    items = (Item("posts", "sqlite", (DataFile("posts.sqlite.zst", 4, "0" * 64),), {"posts": 3}),)
    known = Manifest(id, "blog", "production", "one", ("daily",), "2026-11-23T03:00:00Z", "2026-11-23T03:01:00Z", 60.0, items)
    return replace(known, **more)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "blog" / "backups")
    with made.locked("a test"):
        pass
    return made


def add(store: Store, id: str = ID) -> Path:
    staged = store.stage(id)
    (staged / "posts.sqlite.zst").write_bytes(b"data")
    return store.publish(staged, manifest(id), PASSED)


def ids(store: Store) -> list[str]:
    return [one.id for one in store.backups()[0]]


def test_a_published_backup_is_read_as_it_was_written(store: Store) -> None:
    folder = add(store)
    found = store.get(ID)
    assert (found.manifest, found.proofs, found.pinned, found.good) == (manifest(), (PASSED,), "", True)
    assert (folder / "SHA256SUMS").read_text() == f"{'0' * 64}  posts.sqlite.zst\n"
    assert store.backups() == ([found], [])


def test_nobody_but_the_owner_can_look_into_it(store: Store) -> None:
    folder = add(store)
    store.pin(ID, "before the migration")
    store.prove(ID, PASSED)
    store.note({"what": "run"})
    assert {stat.S_IMODE(one.stat().st_mode) for one in (store.folder, folder)} == {0o700}
    files = [
        folder / "manifest.json",
        folder / "SHA256SUMS",
        folder / "verified.jsonl",
        folder / "pinned",
        store.folder / "history.jsonl",
    ]
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}


def test_wherever_a_publication_dies_the_backup_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    at, died, seen = 0, True, set()
    while died:
        at += 1
        store = Store(tmp_path / f"{at}")
        with store.locked("a test"):
            add(store)
        died = dies(lambda store=store: add(store, LATER), at)  # type: ignore[misc]
        found, problems = store.backups()
        assert problems == []
        assert [one.manifest for one in found] == [manifest(one.id) for one in found]
        assert all(one.good for one in found)
        with store.locked("the next run"):
            assert not list(store.folder.glob(".partial-*"))
        seen.add(tuple(ids(store)))
    assert seen == {(ID,), (ID, LATER)}
    assert at > 10


def test_wherever_a_deletion_dies_no_half_of_a_backup_is_seen(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        store = Store(tmp_path / f"{at}")
        with store.locked("a test"):
            add(store)
            add(store, LATER)
        died = dies(lambda store=store: store.delete(ID), at)  # type: ignore[misc]
        assert store.backups()[1] == []
        assert ids(store) in ([ID, LATER], [LATER])
        with store.locked("the next run"):
            assert not list(store.folder.glob(".trash-*"))
    assert ids(store) == [LATER]


def test_wherever_a_new_note_dies_the_backup_stays_pinned(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        store = Store(tmp_path / f"{at}")
        with store.locked("a test"):
            add(store)
        store.pin(ID, "first")
        died = dies(lambda store=store: store.pin(ID, "second"), at)  # type: ignore[misc]
        assert store.get(ID).pinned in ("first", "second")
    store.pin(ID, "")
    store.pin(ID, "")
    assert store.get(ID).pinned == ""


def test_what_killed_runs_left_is_swept_and_nothing_else(store: Store, tmp_path: Path) -> None:
    add(store)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("not ours")
    for left in (f".partial-{LATER}", f".trash-{LATER}", "my own folder", ".hidden"):
        (store.folder / left).mkdir()
        (store.folder / left / "link").symlink_to(tmp_path / "outside")
    with store.locked("a run"):
        assert sorted(os.listdir(store.folder)) == sorted([".hidden", ".lock", ID, "my own folder"])
    assert (tmp_path / "outside" / "file").read_text() == "not ours"


def test_links_and_files_under_the_names_of_leftovers_are_swept_without_following(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (store.folder / ".partial-link").symlink_to(tmp_path / "outside")
    (store.folder / ".trash-file").write_text("")
    with store.locked("a run"):
        assert os.listdir(store.folder) == [".lock"]
    assert (tmp_path / "outside").is_dir()


@pytest.fixture
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    code = ("import sys\nfrom pathlib import Path\nfrom backup.agent.store import Store\n"
            "with Store(Path(sys.argv[1])).locked('run --types daily'):\n print('held', flush=True)\n sys.stdin.read()")  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code, str(store.folder)], text=True, stdin=-1, stdout=-1) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_run_at_a_time_and_the_kernel_frees_the_lock_of_a_killed_one(store: Store, holder: subprocess.Popen[str]) -> None:
    store.folder.joinpath(".partial-of-the-other").mkdir()
    with pytest.raises(Busy, match=f"run --types daily, process {holder.pid}"), store.locked("mine"):
        pass
    assert store.folder.joinpath(".partial-of-the-other").exists()
    holder.kill()
    holder.wait()
    with store.locked("mine"), pytest.raises(Busy, match=f"mine, process {os.getpid()}"), Store(store.folder).locked("again"):
        pass


def test_programs_that_a_run_starts_do_not_keep_its_lock(store: Store) -> None:
    with store.locked("mine"), subprocess.Popen(["sleep", "60"]) as program:
        listed = os.listdir(f"/proc/{program.pid}/fd")
        assert not any(".lock" in str(Path(f"/proc/{program.pid}/fd/{one}").readlink()) for one in listed)
        program.kill()


def test_a_backup_that_is_there_already_is_not_replaced(store: Store) -> None:
    add(store)
    with pytest.raises(BackupError, match="already"):
        add(store)
    staged = store.stage(LATER)
    with pytest.raises(OSError, match="not empty"):
        store.publish(staged, manifest(ID), PASSED)
    assert store.get(ID).manifest == manifest()
    store.discard(staged)
    store.discard(staged)
    assert sorted(os.listdir(store.folder)) == [".lock", ID]


def test_files_that_are_in_the_way_of_the_manifest_are_not_overwritten(store: Store) -> None:
    staged = store.stage(ID)
    (staged / "manifest.json").symlink_to(store.folder / "elsewhere")
    with pytest.raises(FileExistsError):
        store.publish(staged, manifest(), PASSED)
    assert ids(store) == []
    assert not (store.folder / "elsewhere").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 2}', "\x00" * 300, '{"format": 1, "id": "x"}', "\xff"])
def test_a_damaged_manifest_is_told_and_hides_no_other_backup(store: Store, text: str) -> None:
    add(store)
    folder = add(store, LATER)
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    found, problems = store.backups()
    assert [one.id for one in found] == [ID]
    assert problems[0].startswith(f"{LATER} is damaged and not touched")
    for act in (lambda: store.get(LATER), lambda: store.delete(LATER)):
        with pytest.raises(BackupError, match="damaged"):
            act()
    assert folder.exists()


def test_a_manifest_in_another_s_folder_is_damage(store: Store) -> None:
    add(store).rename(store.folder / LATER)
    assert store.backups()[0] == []
    assert "its manifest is that of" in store.backups()[1][0]


@pytest.mark.parametrize("id", ["", "..", "../blog", ".", "/etc", f"{ID}/../..", f"{ID}\n", ".lock", "2026"])
def test_what_is_no_id_is_no_path_either(store: Store, id: str) -> None:
    add(store)
    for act in (lambda: store.get(id), lambda: store.delete(id), lambda: store.pin(id, "x")):
        with pytest.raises(BackupError, match="there is no backup"):
            act()


def test_other_things_in_the_folder_are_no_backups(store: Store) -> None:
    add(store)
    (store.folder / "notes.txt").write_text("")
    (store.folder / "20261123").mkdir()
    (store.folder / f"{ID}.old").mkdir()
    assert (ids(store), store.backups()[1]) == ([ID], [])


def test_a_store_that_was_never_used_is_empty(tmp_path: Path) -> None:
    assert Store(tmp_path / "none").backups() == ([], [])
    assert Store(tmp_path / "none").history() == []


@pytest.mark.parametrize("half", [b'{"what": "ru', b"\x00\x00\x00", b'{"caf\xc3', b"[1]\n", b"\n\n"])
def test_a_line_after_half_of_one_is_read_and_the_half_is_left_out(store: Store, half: bytes) -> None:
    store.note({"what": "first"})
    with (store.folder / "history.jsonl").open("ab") as file:
        file.write(half)
    assert store.history() == [{"what": "first"}]
    store.note({"what": "café"})
    assert store.history() == [{"what": "first"}, {"what": "café"}]


def test_proofs_after_half_of_one_are_read_and_the_half_is_left_out(store: Store) -> None:
    folder = add(store)
    with (folder / "verified.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-11-2')
    failed = Proof("2026-11-24T03:00:00Z", CHECKSUMS, False, 0.1, "other bytes")
    store.prove(ID, failed)
    assert store.get(ID).proofs == (PASSED, failed)


def test_a_record_of_proofs_that_is_not_ours_is_damage_and_hides_no_other_backup(store: Store) -> None:
    add(store)
    (add(store, LATER) / "verified.jsonl").write_text(json.dumps({"passed": "all"}) + "\n")
    found, problems = store.backups()
    assert ([one.id for one in found], len(problems)) == ([ID], 1)


def proof(level: str, ok: bool) -> Proof:
    return Proof("2026-11-24T03:00:00Z", level, ok, 0.1)


@pytest.mark.parametrize(("proofs", "good"), [
    ([], False), ([(FULL, True)], True), ([(FULL, False)], False), ([(CHECKSUMS, True)], False), ([(FULL, False), (FULL, True)], True),
    ([(FULL, True), (CHECKSUMS, False)], False), ([(FULL, True), (CHECKSUMS, True), (CHECKSUMS, False)], False),
    ([(FULL, True), (CHECKSUMS, False), (CHECKSUMS, True)], True), ([(FULL, True), (CHECKSUMS, False), (RESTORE, True)], True),
    ([(FULL, True), (RESTORE, False)], True), ([(FULL, True), (RESTORE, False), (CHECKSUMS, False)], False),
])  # fmt: skip
def test_a_backup_is_good_when_it_was_decoded_and_the_latest_look_found_its_files_unharmed(
    store: Store, proofs: list[tuple[str, bool]], good: bool
) -> None:
    (add(store) / "verified.jsonl").unlink()
    for level, ok in proofs:
        store.prove(ID, proof(level, ok))
    assert store.get(ID).good is good


def test_a_partial_backup_is_not_good(store: Store) -> None:
    store.publish(store.stage(ID), manifest(failed={"uploads": "gone"}), PASSED)
    assert not store.get(ID).good


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield Store(path / "backups")
    subprocess.run(["umount", path], check=True)


def fill(folder: Path, leave: int) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(file.tell() - leave)


def test_on_a_full_disk_nothing_is_published_and_what_is_there_stays(full_disk: Store) -> None:
    with full_disk.locked("a run"):
        add(full_disk)
        staged = full_disk.stage(LATER)
        fill(full_disk.folder, 4096)
        with pytest.raises(OSError, match="No space left"):
            full_disk.publish(staged, manifest(LATER), PASSED)
        full_disk.discard(staged)
    assert (ids(full_disk), full_disk.get(ID).good) == ([ID], True)


def test_a_line_that_a_full_disk_took_only_a_part_of_is_an_error(full_disk: Store) -> None:
    with full_disk.locked("a run"):
        full_disk.note({"what": "first"})
        fill(full_disk.folder, 0)
        with pytest.raises(OSError, match="No space left"):
            full_disk.note({"what": "x" * 5000})
        (full_disk.folder / "filler").unlink()
        full_disk.note({"what": "second"})
    assert full_disk.history() == [{"what": "first"}, {"what": "second"}]
