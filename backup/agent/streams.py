"""Bytes from program to program to file by descriptors, never through Python, and every exit status counts."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backup.agent.errors import BackupError, Untried
from backup.agent.model import DataFile

Argv = Sequence[str]
BLOCK = 1 << 20
LOOK = 0.5  # seconds between two looks at the bytes written
FULL = ("No space left on device", "Wrote only")  # what programs say on a full disk; the second is tar


@dataclass(frozen=True)
class Codec:
    """A way to compress: the tool's name as ops.toml has it."""

    name: str
    level: int = 3

    @property
    def suffix(self) -> str:
        """Return what file names end in."""
        return {"zstd": ".zst", "gzip": ".gz", "xz": ".xz", "none": ""}[self.name]

    def encode(self) -> list[Argv]:
        """Return the programs that compress standard input to standard output."""
        tools = {"zstd": ["zstd", "-q", "-c", f"-{self.level}"], "gzip": ["gzip", "-c", f"-{min(self.level, 9)}"],
                 "xz": ["xz", "-q", "-c", f"-{min(self.level, 9)}"], "none": ["cat"]}  # fmt: skip
        return [tools[self.name]]


def choose(name: str, level: int) -> tuple[Codec, str]:
    """Return the codec asked for, else the best one whose tool is there, with a warning."""
    wanted = Codec(name, level)
    if shutil.which(wanted.encode()[0][0]):
        return wanted, ""
    other = Codec("gzip", min(level, 6)) if shutil.which("gzip") else Codec("none")
    return other, f"{name} is not installed here, {other.name} is used instead: inv server.bootstrap installs it"


def decoders(name: str, identity: int | None = None) -> list[Argv]:
    """Return the programs that turn a data file back into what was saved; `identity`: descriptor of an age identity."""
    found: list[Argv] = []
    stem, _, last = name.rpartition(".")
    if last == "age":
        if identity is None:
            raise BackupError(f"{name} is encrypted", "no identity was given", "name it as backup.identity in ops.toml")
        found.append(["age", "-d", "-i", f"/dev/fd/{identity}"])
        last = stem.rpartition(".")[2]
    plain = {"zst": ["zstd", "-q", "-d", "-c"], "gz": ["gzip", "-d", "-c"], "xz": ["xz", "-q", "-d", "-c"]}
    return [*found, plain[last]] if last in plain else found or [["cat"]]


def create(path: Path) -> int:
    """Create a file that nobody else has and return its descriptor. Raises FileExistsError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def pipe(
    stages: Sequence[Argv], stdin: int, stdout: int, *, watch: Callable[[], None] | None = None,
    keep: Sequence[int] = (), fine: Sequence[int] = (0,), env: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """Run programs joined by pipes from one descriptor to another; returns what each said on standard error.

    `watch` is called twice a second; `keep` are descriptors the programs may use, `env` variables besides ours;
    `fine` are the first one's good exit codes. Raises BackupError naming the program that failed; whatever happens, none is left running.
    """
    children: list[subprocess.Popen[bytes]] = []
    with _words(len(stages)) as words, ExitStack() as pipes:
        ends = [os.pipe() for _ in stages[1:]]
        for descriptor in (one for pair in ends for one in pair):
            pipes.callback(os.close, descriptor)
        try:
            for number, argv in enumerate(stages):
                source = ends[number - 1][0] if number else stdin
                target = ends[number][1] if number < len(ends) else stdout
                children.append(_start(argv, source, target, words[number], keep, env or {}))
            pipes.close()  # so that a program's end is seen by its neighbours
            codes = _wait(children, watch)
        finally:
            for child in children:
                _kill(child)
        said = [_said(file) for file in words]
    _judge(stages, codes, said, fine)
    return said


def fill(path: Path, stages: Sequence[Argv], stdin: int, *, told: Callable[[int], None] = lambda _: None,
         fine: Sequence[int] = (0,)) -> tuple[DataFile, list[str]]:  # fmt: skip
    """Write what comes from a descriptor, through programs, into a new file; durable. Returns also what they said.

    It is hashed while it grows, as programs only append to it; `told` is given its size twice a second.
    """
    digest, size = hashlib.sha256(), 0

    def follow() -> None:
        nonlocal size
        while block := os.pread(target, BLOCK, size):
            digest.update(block)
            size += len(block)
        told(size)

    target = create(path)
    try:
        said = pipe(stages, stdin, target, watch=follow, fine=fine)
        follow()
        os.fsync(target)
    finally:
        os.close(target)
    return DataFile(path.name, size, digest.hexdigest()), said


def _start(
    argv: Argv, stdin: int, stdout: int, words: IO[bytes], keep: Sequence[int], env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=words, pass_fds=tuple(keep), start_new_session=True,
                                env={**os.environ, "LC_ALL": "C", **env})  # fmt: skip
    except FileNotFoundError:
        raise Untried(f"{argv[0]} is not installed here", fix="inv server.bootstrap installs it") from None
    except OSError as error:
        raise Untried(f"{argv[0]} cannot be started", str(error)) from error


@contextmanager
def _words(number: int) -> Iterator[Sequence[IO[bytes]]]:
    with ExitStack() as files:
        yield [files.enter_context(tempfile.TemporaryFile()) for _ in range(number)]


def _said(file: IO[bytes]) -> str:
    file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
    return file.read().decode("utf-8", "replace").strip()


def _wait(children: Sequence[subprocess.Popen[bytes]], watch: Callable[[], None] | None) -> list[int | None]:
    """Wait for all and return their exit codes; None for those that still ran a while after one they feed had failed.

    Those would only notice with their next write, which may never come.
    """
    late = False
    while running := [child for child in children if child.poll() is None]:
        failed = any(child.returncode for child in children[1:])
        if failed and late:
            break
        late = failed
        try:
            running[0].wait(LOOK)
        except subprocess.TimeoutExpired:
            if watch:
                watch()
    return [child.returncode for child in children]


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _judge(stages: Sequence[Argv], codes: Sequence[int | None], said: Sequence[str], fine: Sequence[int]) -> None:
    """Name the program at fault: one that lost its reader (SIGPIPE) is a victim of a later one that failed.

    A program that was killed or had no room says nothing about the data that it read.
    """
    bad = {n: code for n, code in enumerate(codes) if code is not None and code not in (fine if n == 0 else (0,))}
    if bad:
        at = next((n for n, code in bad.items() if code != -signal.SIGPIPE), max(bad))
        code = bad[at]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        kind = Untried if code < 0 or any(one in said[at] for one in FULL) else BackupError
        raise kind(f"{stages[at][0]} {how}", said[at] or "it said nothing")


def measure(path: Path) -> DataFile:
    """Return a file's size and SHA-256 as they are on the disk."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
        return DataFile(path.name, os.fstat(file.fileno()).st_size, digest.hexdigest())


def sync(path: Path) -> None:
    """Make a file's or a folder's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
