"""Pipelines: every exit status counts, the cause is named, nothing is left running and no descriptor open."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backup.agent import streams
from backup.agent.errors import BackupError, Untried
from backup.agent.model import DataFile
from backup.agent.streams import Argv, Codec, choose, create, decoders, measure, pipe
from tests.backup.driving import stage_in

CODECS = ["zstd", "gzip", "xz", "none"]
NOISE: Argv = ["sh", "-c", "while :; do echo noise noise noise; done"]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def descriptors() -> set[str]:
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{one.name} {one.readlink()}")
        except FileNotFoundError:
            pass  # the one that lists them
    return {one for one in found if "/proc/" not in one}


def run(tmp_path: Path, *stages: Argv, stdin: Path = Path(os.devnull), fine: tuple[int, ...] = (0,)) -> bytes:
    out = tmp_path / "out"
    with stdin.open("rb") as source, out.open("wb") as target:
        pipe(stages, source.fileno(), target.fileno(), fine=fine)
    return out.read_bytes()


def test_bytes_pass_through_many_programs(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(5_000_000))
    stages = [["cat"], ["gzip", "-1"], ["cat"], ["gzip", "-d"], ["cat"]]
    assert run(tmp_path, *stages, stdin=tmp_path / "in") == (tmp_path / "in").read_bytes()


def test_what_each_program_said_is_returned(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        said = pipe([["sh", "-c", "echo one >&2"], ["sh", "-c", "cat; printf 'caf\\351' >&2"], ["cat"]], 0, out.fileno())
    assert said == ["one", "caf\N{REPLACEMENT CHARACTER}", ""]


def test_only_the_end_of_many_words_is_kept(tmp_path: Path) -> None:
    with pytest.raises(BackupError) as failed:
        run(tmp_path, ["sh", "-c", "seq 100000 >&2; echo the reason >&2; exit 3"])
    assert failed.value.why.endswith("the reason")
    assert len(failed.value.why) <= 2000


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_program_that_fails_is_named_wherever_it_is(tmp_path: Path, at: int) -> None:
    stages: list[Argv] = [["cat"], ["cat"], ["cat"]]
    stages[at] = ["sh", "-c", "cat; echo for a reason >&2; exit 3"]
    with pytest.raises(BackupError, match="sh ended with exit code 3: for a reason"):
        run(tmp_path, *stages)


@pytest.mark.parametrize("victim", [NOISE, ["cat", "/dev/zero"], ["tar", "-cf", "-", "/usr/bin"], ["zstd", "-qc1"],
                                    ["gzip", "-c", "/dev/urandom"], ["xz", "-qc0", "/dev/urandom"]])  # fmt: skip
def test_the_cause_is_the_reader_that_failed_and_not_the_program_it_left_alone(tmp_path: Path, victim: Argv) -> None:
    for late in ([], [["cat"]]):
        with pytest.raises(BackupError, match="dd ended with exit code 1"):
            run(tmp_path, victim, ["dd", "count=1", "of=/no/such/folder/x"], *late, stdin=Path("/dev/urandom"))


def test_a_program_that_failed_before_the_others_starved_is_the_cause(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="sh ended with exit code 3"):
        run(tmp_path, ["sh", "-c", "exit 3"], ["zstd", "-d", "-q", "-c"])


def test_a_reader_that_is_content_early_is_still_no_whole_backup(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="killed by SIGPIPE"):
        run(tmp_path, NOISE, ["head", "-c", "10"])


def test_only_the_first_program_may_have_other_good_exit_codes(tmp_path: Path) -> None:
    assert run(tmp_path, ["sh", "-c", "echo x; exit 1"], ["cat"], fine=(0, 1)) == b"x\n"
    with pytest.raises(BackupError):
        run(tmp_path, ["cat"], ["sh", "-c", "cat; exit 1"], fine=(0, 1))
    with pytest.raises(BackupError):
        run(tmp_path, ["sh", "-c", "exit 2"], ["cat"], fine=(0, 1))


@pytest.mark.parametrize("stages", [[["no-such-tool"]], [NOISE, ["no-such-tool"]], [NOISE, ["cat"], ["/etc/passwd"], ["cat"]]])
def test_a_tool_that_is_not_there_ends_the_others_and_says_nothing_about_the_data(tmp_path: Path, stages: list[Argv]) -> None:
    with pytest.raises(Untried, match=r"not installed|cannot be started"):
        run(tmp_path, *stages)


def children() -> list[int]:
    return [int(one) for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_program_that_is_killed_ends_the_pipe_and_is_named(tmp_path: Path, at: int, how: signal.Signals) -> None:
    stages: list[Argv] = [["cat", "/dev/zero"], ["gzip", "-1"], ["zstd", "-q"]]

    def kill() -> None:
        if (found := children()) and len(found) == 3:
            os.kill(found[at], how)

    with (tmp_path / "out").open("wb") as out, pytest.raises(Untried, match=f"{stages[at][0]} was killed by {how.name}"):
        pipe(stages, 0, out.fileno(), watch=kill)


def test_a_writer_that_says_nothing_more_does_not_outlive_its_dead_reader(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(BackupError, match="sh ended with exit code 3: disk full"):
        run(tmp_path, ["sleep", "60"], ["sh", "-c", "echo disk full >&2; exit 3"])
    assert time.monotonic() - began < 20


def test_the_watcher_is_called_and_what_it_raises_ends_everything(tmp_path: Path) -> None:
    calls = []

    def watch() -> None:
        calls.append(len(children()))
        if len(calls) == 2:
            raise KeyboardInterrupt

    with (tmp_path / "out").open("wb") as out, pytest.raises(KeyboardInterrupt):
        pipe([["sh", "-c", "sleep 60 & sleep 60"], ["cat"]], 0, out.fileno(), watch=watch)
    assert calls == [2, 2]
    assert children() == []


def test_programs_inherit_only_what_they_are_to_use(tmp_path: Path) -> None:
    with (tmp_path / "key").open("wb+") as key, (tmp_path / "other").open("wb"), (tmp_path / "out").open("wb") as out:
        os.set_inheritable(key.fileno(), False)
        pipe([["cat"], ["ls", "-l", "/proc/self/fd"], ["cat"]], 0, out.fileno(), keep=[key.fileno()])
    listed = (tmp_path / "out").read_text()
    assert "key" in listed
    assert "other" not in listed
    assert listed.count("pipe:") == 2


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_compressed_is_decoded_again(tmp_path: Path, codec: str) -> None:
    (tmp_path / "in").write_bytes(os.urandom(100_000) + bytes(3_000_000))
    with (tmp_path / "in").open("rb") as file:
        saved = stage_in(tmp_path / "stage", codec).save("posts", "posts.raw", file.fileno())
    path = tmp_path / "stage" / saved.name
    assert path.stat().st_mode & 0o777 == 0o600
    assert saved == measure(path) == DataFile(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert run(tmp_path, *decoders(saved.name), stdin=path) == (tmp_path / "in").read_bytes()


@pytest.mark.parametrize("codec", CODECS[:3])
@pytest.mark.parametrize("harm", ["first byte", "bit in the middle", "last byte cut", "half", "empty"])
def test_what_is_cut_or_flipped_is_not_decoded(tmp_path: Path, codec: str, harm: str) -> None:
    (tmp_path / "in").write_bytes(os.urandom(500_000))
    with (tmp_path / "in").open("rb") as file:
        saved = stage_in(tmp_path / "stage", codec).save("posts", "posts.raw", file.fileno())
    path = tmp_path / "stage" / saved.name
    content = bytearray(path.read_bytes())
    content[{"first byte": 0, "bit in the middle": len(content) // 2}.get(harm, 0)] ^= harm in ("first byte", "bit in the middle")
    path.write_bytes(content[: {"last byte cut": -1, "half": len(content) // 2, "empty": 0}.get(harm, len(content))])
    with pytest.raises(BackupError):
        run(tmp_path, *decoders(saved.name), stdin=path)


def test_a_file_that_is_there_already_is_not_overwritten_nor_a_link_followed(tmp_path: Path) -> None:
    stage = stage_in(tmp_path / "stage")
    (stage.folder / "posts.raw.zst").write_text("mine")
    (stage.folder / "link").symlink_to(tmp_path / "elsewhere")
    with (Path(os.devnull)).open("rb") as nothing, pytest.raises(FileExistsError):
        stage.save("posts", "posts.raw", nothing.fileno())
    with pytest.raises(FileExistsError):
        create(stage.folder / "link")
    assert (stage.folder / "posts.raw.zst").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_compressor_is_replaced_with_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose("zstd", 3) == (Codec("zstd", 3), "")
    (tmp_path / "gzip").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    codec, warning = choose("zstd", 19)
    assert (codec.name, codec.level, "zstd is not installed" in warning) == ("gzip", 6, True)
    monkeypatch.setenv("PATH", "/nowhere")
    assert choose("zstd", 3)[0].name == "none"


def test_an_encrypted_file_is_not_read_without_an_identity() -> None:
    with pytest.raises(BackupError, match="encrypted"):
        decoders("posts.sqlite.zst.age")
    assert decoders("posts.sqlite.zst.age", 7) == [["age", "-d", "-i", "/dev/fd/7"], ["zstd", "-q", "-d", "-c"]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("codec", CODECS)
def test_a_full_disk_is_named_as_the_cause(small_disk: Path, codec: str) -> None:
    with Path("/dev/urandom").open("rb") as endless, pytest.raises(BackupError, match="No space left on device"):
        stage_in(small_disk / "stage", codec).save("posts", "posts.raw", endless.fileno())


def test_progress_is_told_while_bytes_are_written(tmp_path: Path) -> None:
    out = io.StringIO()
    reader, writer = os.pipe()
    ended = threading.Timer(1.6, os.close, [writer])
    ended.start()
    stage_in(tmp_path / "stage", "none", out).save("posts", "posts.raw", reader)
    ended.join()
    os.close(reader)
    assert '"event": "bytes"' in out.getvalue()
    assert streams.LOOK == 0.5


def test_what_is_hashed_while_it_is_written_is_what_lies_there_at_its_end(tmp_path: Path) -> None:
    bursts: Argv = ["sh", "-c", 'for n in 1 2 3; do head -c 2500000 /dev/urandom; sleep "$0"; done', f"{streams.LOOK * 0.8}"]
    sizes: list[int] = []
    with Path(os.devnull).open("rb") as nothing:
        filled, _ = streams.fill(tmp_path / "file", [bursts, ["cat"]], nothing.fileno(), told=sizes.append)
    assert filled == measure(tmp_path / "file")
    assert sizes == sorted(sizes)
    assert (sizes[-1], len(set(sizes)) > 1) == (7_500_000, True), "hashed in several steps"
