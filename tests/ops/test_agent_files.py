"""Files on a server: whole or not there, whatever stops the machine in between."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.agent import facts, files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        for wanted in (0o600, 0o644, 0o640):
            files.write(str(tmp_path / "file"), "text", wanted)
            assert mode(tmp_path / "file") == wanted
    finally:
        os.umask(old)


def test_a_file_is_for_us_alone_unless_said_otherwise_and_so_is_a_new_folder(tmp_path: Path) -> None:
    files.write(str(tmp_path / "new" / "file"), "text")
    assert (mode(tmp_path / "new"), mode(tmp_path / "new" / "file")) == (0o700, 0o600)


def test_a_file_is_replaced_as_a_whole_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        files.write(str(path), "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_a_dead_writer_left_is_written_over_but_never_through_a_link(tmp_path: Path) -> None:
    left = tmp_path / f"file.{os.getpid()}.new"
    left.write_text("a longer half of a file")
    files.write(str(tmp_path / "file"), "short")
    assert (tmp_path / "file").read_text() == "short"
    (tmp_path / "victim").write_text("precious")
    left.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        files.write(str(tmp_path / "file"), "evil")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write(str(path), "\ud800")
    assert path.read_text() == "old"


def test_settling_is_done_once_and_may_be_asked_again(tmp_path: Path) -> None:
    source, target = tmp_path / "v1.staged", tmp_path / "v1.json"
    source.write_text("manifest")
    for _ in range(2):
        files.settle(str(source), str(target))
        assert (source.exists(), target.read_text()) == (False, "manifest")
    target.unlink()
    with pytest.raises(FileNotFoundError):
        files.settle(str(source), str(target))


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    files.remove(str(tmp_path / "nothing"))
    files.remove(str(tmp_path / "no" / "folder"))
    (tmp_path / "link").symlink_to("/nowhere")
    files.remove(str(tmp_path / "link"))
    assert list(tmp_path.iterdir()) == []


def test_reading_tells_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("0123456789")
    (tmp_path / "b.json").write_bytes(b"\xff")
    (tmp_path / "c.json.1.new").write_text("half")
    assert files.read(str(tmp_path / "a.json")) == "0123456789"
    assert files.read(str(tmp_path / "a.json"), 4) == "6789"
    assert files.read(str(tmp_path / "a.json"), 400) == "0123456789"
    assert files.read(str(tmp_path / "none")) is None
    assert files.read_all(str(tmp_path), ".json") == {"a.json": "0123456789", "b.json": "\ufffd"}
    assert files.read_all(str(tmp_path / "none"), ".json") == {}


def test_journal_lines_stand_in_their_order_in_a_file_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    files.append(str(path), ["one", "two"])
    files.append(str(path), ["three"])
    files.append(str(path), [])
    assert path.read_text() == "one\ntwo\nthree\n"
    assert mode(path) == 0o600


@settings(max_examples=30)
@given(
    lines=st.lists(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5
    ),
    cut=st.integers(1, 50),
)
def test_after_a_torn_line_the_next_one_starts_anew(tmp_path_factory: pytest.TempPathFactory, lines: list[str], cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    files.append(str(path), lines)
    kept = path.read_bytes()[:-cut]
    os.truncate(path, len(kept))
    files.append(str(path), ["next"])
    assert path.read_bytes() == kept + (b"\n" if kept and not kept.endswith(b"\n") else b"") + b"next\n"


def test_a_journal_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        files.append(str(tmp_path / "journal"), ["x"])


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "app" / "lock")
    held = files.lock(path, {"what": "a deploy"})
    with pytest.raises(files.Busy, match=r'{"what": "a deploy"}'):
        files.lock(path, {"what": "another"})
    os.close(held)
    again = files.lock(path, {"what": "b"})
    assert Path(path).read_text() == '{"what": "b"}'
    os.close(again)


def test_a_failed_try_leaves_the_holders_words_and_no_open_file(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    held = files.lock(path, {"what": "a deploy"})
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(files.Busy):
            files.lock(path, {"what": "another"})
    assert len(os.listdir("/proc/self/fd")) == before
    assert Path(path).read_text() == '{"what": "a deploy"}'
    os.close(held)


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    program = f"import time; from ops.agent import files; files.lock({path!r}, {{}}); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(files.Busy):
            files.lock(path, {})
        process.kill()
    os.close(files.lock(path, {}))


def test_a_lock_is_not_inherited_by_what_the_holder_starts(tmp_path: Path) -> None:
    held = files.lock(str(tmp_path / "lock"), {})
    assert not os.get_inheritable(held)
    os.close(held)


def test_facts_tell_sizes_folders_and_ports(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o711)
    found = facts.facts([str(tmp_path / "folder"), str(tmp_path / "none")], [1])
    assert found["folders"][str(tmp_path / "folder")]["mode"] == 0o711
    assert found["folders"][str(tmp_path / "none")] is None
    assert 0 < found["memory"]["free"] <= found["memory"]["total"]
    assert 0 <= found["disk"]["free"] <= found["disk"]["total"]
    assert found["listening"] == []
    assert facts.disk("/nowhere/at/all") == facts.disk("/") or facts.disk("/nowhere/at/all")["total"] > 0
