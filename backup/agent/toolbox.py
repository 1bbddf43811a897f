"""One-off containers for a database's own programs, joined to ours by named pipes: bytes never pass through Python."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from backup.agent.errors import BackupError, Untried
from backup.agent.model import Settings
from backup.agent.programs import Place, Program, asked, called
from ops.agent.engine import Engine, EngineError

LABEL, FOLDER_LABEL = "dev.tidegate.backup", "dev.tidegate.backup.folder"
INSIDE = "/tidegate"  # where the work folder is in the container
PREFIX = ".toolbox-"
GONE = 600.0  # seconds for a container and all that a throwaway server had in its volume
OPENED = 60.0  # seconds a program gets to open its end of a pipe
SERVER_CAPS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
# The container's first process ends when we do, however we do: the kernel closes our end of the pipe it reads.
WAIT = f"exec cat <{INSIDE}/alive"
SERVE = f'{{ "$@" </dev/null >{INSIDE}/log 2>&1; : >{INSIDE}/ended; }} & {WAIT} >/dev/null'

T = TypeVar("T")


@dataclass(frozen=True)
class Kit:
    """What a toolbox is made of; with `server` the image's own command runs in it, with these arguments added."""

    image: str
    network: str = "none"
    environment: Mapping[str, str] | None = None
    files: Mapping[str, str] | None = None
    server: bool = False
    arguments: tuple[str, ...] = ()


class Talk:
    """A program that reads commands from us as long as we like."""

    def __init__(self, program: Program, pipe: FileIO) -> None:
        self._program, self._pipe = program, pipe

    def say(self, text: str) -> None:
        """Give it commands."""
        rest = memoryview(text.encode())
        try:
            while rest:
                rest = rest[self._pipe.write(rest) or 0 :]
        except BrokenPipeError:
            self._fail()

    def hear(self, end: str) -> str:
        """Wait for what it writes up to a line. Raises BackupError when it ends before."""
        found = self._program.take(f"{end}\n")
        if found is None:
            self._fail()
        return found or ""

    def ask(self, text: str, end: str) -> str:
        """Give it commands of which the last writes that line, and return what comes before."""
        self.say(text)
        return self.hear(end)

    def _fail(self) -> None:
        self._program.finish()
        raise BackupError(f"{self._program.name} ended early")


@dataclass(frozen=True)
class Toolbox(Place):
    """A container of ours and the folder that it shares with us."""

    folder: Path = field(kw_only=True)

    def write(self, name: str, text: str) -> str:
        """Put a private file into the folder; returns its path inside."""
        _write(self.folder / name, text)
        return f"{INSIDE}/{name}"

    def produce(self, argv: Sequence[str], receive: Callable[[int], T], begun: Callable[[Program], object] = lambda _: None) -> T:
        """Run a program and have what it writes received from a descriptor; the program's own failure goes first.

        `begun` is called with the program before anything is received.
        """
        with self._pipe() as (name, reader, writer):
            # Our writer keeps the pipe from ending before the program opens it, and ends it when the program is over.
            program = self.start(["sh", "-c", 'exec "$@" >"$0"', f"{INSIDE}/{name}", *argv], called(argv), writer.close)
            try:
                begun(program)
                received = receive(reader.fileno())
            except BackupError as error:
                raise program.failure() or error from error
            program.finish()
            return received

    def consume(self, argv: Sequence[str], feed: Callable[[int], object]) -> None:
        """Run a program on what is fed into a descriptor; the program's own failure goes first."""
        with self._pipe() as (name, reader, writer):
            # Our reader keeps the feeder from failing before the program opens the pipe, and from hanging once it is over.
            script = 'exec <"$0" && echo opened && "$@" && exec cat >/dev/null'
            program = self.start(["sh", "-c", script, f"{INSIDE}/{name}", *argv], called(argv), reader.close)
            try:
                feed(writer.fileno())
            except BackupError as error:
                raise program.failure() or error from error
            if not program.said("opened\n", OPENED) and not program.over:
                raise BackupError(f"{called(argv)} did not start to read within {OPENED:.0f} seconds", program.err)
            writer.close()
            program.finish()

    def ready(self, probe: str, seconds: float) -> None:
        """Wait until a shell command succeeds, as it does once the server that runs here answers."""
        script = f"until {probe} >/dev/null 2>&1; do [ ! -e {INSIDE}/ended ] || exit 1; sleep 0.05; done"
        try:
            self.start(["sh", "-c", script], "the server").finish(seconds)
        except BackupError as error:
            said = (self.folder / "log").read_bytes()[-2000:].decode("utf-8", "replace").strip()
            raise Untried("the throwaway server did not start", said or error.why) from error

    @contextmanager
    def talk(self, argv: Sequence[str]) -> Iterator[Talk]:
        """Run a program that takes commands, until the end of the block."""
        with self._pipe() as (name, reader, writer):
            script = 'exec <"$0" && echo opened && exec "$@"'
            program = self.start(["sh", "-c", script, f"{INSIDE}/{name}", *argv], called(argv), reader.close)
            talk = Talk(program, writer)
            talk.hear("opened")
            yield talk
            writer.close()
            program.finish(OPENED)

    @contextmanager
    def _pipe(self) -> Iterator[tuple[str, FileIO, FileIO]]:
        name = f"pipe-{os.urandom(4).hex()}"
        path = self.folder / name
        os.mkfifo(path, 0o600)
        with ExitStack() as stack:
            stack.callback(path.unlink)
            reader = stack.enter_context(FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "r"))
            writer = stack.enter_context(FileIO(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "w"))
            os.set_blocking(reader.fileno(), True)
            yield name, reader, writer


@contextmanager
def toolbox(engine: Engine, settings: Settings, kit: Kit) -> Iterator[Toolbox]:
    """Start a container for as long as the block takes; whatever happens, container and folder are gone after it."""
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=settings.folder))
        stack.callback(shutil.rmtree, folder)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.mkfifo(folder / "alive", 0o600)
        stack.callback(os.close, os.open(folder / "alive", os.O_RDWR | os.O_CLOEXEC))
        for name, text in (kit.files or {}).items():
            _write(folder / name, text)
        name = f"tidegate-backup-{settings.app}-{folder.name.removeprefix(PREFIX)}"
        stack.callback(_remove, engine, name)
        _start(engine, settings.app, name, folder, kit)
        yield Toolbox(engine, name, folder=folder)


def sweep(engine: Engine, settings: Settings) -> None:
    """Remove the containers and folders that killed runs of this app left; those of live ones are left alone."""
    filters = quote(json.dumps({"label": [f"{LABEL}={settings.app}"]}))
    known = asked(engine, "GET", f"/containers/json?all=1&filters={filters}")
    containers = {Path(one["Labels"].get(FOLDER_LABEL, "")): one["Id"] for one in known}
    for folder in {*containers, *settings.folder.glob(f"{PREFIX}*")}:
        if not _alive(folder):
            if folder in containers:
                _remove(engine, containers[folder])
            if folder.parent == settings.folder and folder.exists():
                shutil.rmtree(folder)


def _alive(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(lock)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)


def _start(engine: Engine, app: str, name: str, folder: Path, kit: Kit) -> None:
    image = image_config(engine, kit.image)
    volumes = {} if kit.server else dict.fromkeys(image.get("Volumes") or {}, "")
    command = [*(image.get("Entrypoint") or []), *(image.get("Cmd") or []), *kit.arguments] if kit.server else []
    body = {
        "Image": kit.image,
        "Entrypoint": ["sh", "-c", SERVE if kit.server else WAIT, "sh", *command],
        "User": "0:0",
        "WorkingDir": "/",
        "Env": [f"{key}={value}" for key, value in (kit.environment or {}).items()],
        "Labels": {LABEL: app, FOLDER_LABEL: str(folder)},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Mounts": [{"Type": "bind", "Source": str(folder), "Target": INSIDE}],
            "Tmpfs": volumes,  # a throwaway server has an anonymous volume for each, which goes with it
            "NetworkMode": kit.network,
            "AutoRemove": True,
            "CapDrop": ["ALL"],
            "CapAdd": list(SERVER_CAPS) if kit.server else [],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": not kit.server,
            "ShmSize": 256 << 20,
            "LogConfig": {"Type": "none"},
        },
    }
    asked(engine, "POST", f"/containers/create?name={quote(name)}", body)
    asked(engine, "POST", f"/containers/{quote(name)}/start")


def image_config(engine: Engine, image: str) -> dict[str, Any]:
    """Return what an image is set to run. Raises Untried when it is not on the server."""
    try:
        return dict(engine.call("GET", f"/images/{quote(image, safe=':@/')}/json", 30.0)["Config"])
    except EngineError as error:
        raise Untried(f"the image {image} is not on the server", str(error), f"docker pull {image}") from error


def _remove(engine: Engine, container: str) -> None:
    """Remove a container with its anonymous volumes and wait until it is gone; fine when it is already."""
    path = f"/containers/{quote(container)}"
    try:
        engine.sequence([["DELETE", f"{path}?force=1&v=1", None, [404, 409], GONE]])
        engine.sequence([["POST", f"{path}/wait?condition=removed", None, [404], GONE]])
    except EngineError as error:
        fix = f"docker rm -f -v {container}"
        raise Untried(f"the container {container} could not be removed", str(error), fix) from error
