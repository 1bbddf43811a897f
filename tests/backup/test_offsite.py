"""The second store, with a real restic: `apt-get install restic` (and openssh-server for the one over SFTP)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup.agent import offsite
from backup.agent.errors import BackupError, NeedsPerson
from backup.agent.model import FULL, DataFile, Item, Manifest, Offsite, Proof, Settings, Source, written
from backup.agent.offsite import Stored, expired, upkeep_due
from backup.agent.report import Report
from backup.agent.restic import Restic
from backup.agent.retention import DEFAULTS, Rule
from backup.agent.store import Backup, Store

NOW = datetime.now(UTC).replace(microsecond=0)
PASSWORD = "pass word'$(id)"
ROWS = "".join(f"{hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(20_000)).encode()

restic = pytest.mark.skipif(not shutil.which("restic"), reason="restic is not installed: apt-get install restic")


def settings_of(folder: Path, repository: str | None = None, **changes: object) -> Settings:
    where = Offsite(repository or str(folder / "repository"), PASSWORD, {"AWS_SECRET_ACCESS_KEY": "k3y-of-cloud"})
    sources = (Source("posts", "sqlite"), Source("up loads", "directory"))
    known = Settings("blog", "production", "web-1", sources, offsite=where, home=str(folder / "home"))
    return replace(known, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty repository: making one takes a second of computing."""
    folder = tmp_path_factory.mktemp("template")
    if shutil.which("restic"):
        ask(settings_of(folder), "init")
    return folder / "repository"


@pytest.fixture
def settings(tmp_path: Path, template: Path) -> Settings:
    if template.exists():
        shutil.copytree(template, tmp_path / "repository")
    return settings_of(tmp_path)


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def report(said: io.StringIO) -> Report:
    return Report(said)


def local_of(settings: Settings) -> Store:
    local = Store(settings.folder / "backups")
    local.folder.mkdir(parents=True, exist_ok=True)
    return local


def data(folder: Path, name: str, content: bytes) -> DataFile:
    tool = {".zst": ["zstd", "-q", "-c"], ".gz": ["gzip", "-c"], ".xz": ["xz", "-c"]}.get(Path(name).suffix, ["cat"])
    (folder / name).write_bytes(subprocess.run(tool, input=content, check=True, capture_output=True).stdout)
    stored = (folder / name).read_bytes()
    return DataFile(name, len(stored), hashlib.sha256(stored).hexdigest())


def make(
    settings: Settings, taken: datetime = NOW, types: tuple[str, ...] = ("daily",), content: bytes = ROWS,
    names: tuple[str, str] = ("posts.sqlite.zst", "up loads.tar.zst"), nonce: str = "abcdef", encrypted: bool = False,
) -> Backup:  # fmt: skip
    local = local_of(settings)
    id = f"{taken:%Y%m%dT%H%M%SZ}-{nonce}"
    staged = local.stage(id)
    items = (
        Item("posts", "sqlite", (data(staged, names[0], content),), {"posts": 2}),
        Item("up loads", "directory", (data(staged, names[1], b"tar of " + content),), {"entries": 1}),
    )
    manifest = Manifest(id, "blog", "production", settings.server, types, written(taken), written(taken), 1.0, items,
                        compression="zstd", encrypted=encrypted)  # fmt: skip
    local.publish(staged, manifest, Proof(written(taken), FULL, True, 1.0))
    return local.get(id)


def ask(settings: Settings, *arguments: str) -> str:
    """Ask the repository as its owner would, with stock restic."""
    assert settings.offsite
    env = {**os.environ, "RESTIC_PASSWORD": settings.offsite.password, "RESTIC_REPOSITORY": settings.offsite.repository}
    return subprocess.run(["restic", *arguments], env=env, check=True, capture_output=True, text=True).stdout


def decoded(path: Path) -> bytes:
    tool = {".zst": "zstd", ".gz": "gzip"}.get(path.suffix)
    return subprocess.run([tool, "-dc", path], check=True, capture_output=True).stdout if tool else path.read_bytes()


@restic
def test_a_backup_comes_back_from_the_repository_with_every_byte(settings: Settings, report: Report, tmp_path: Path) -> None:
    backup = make(settings)
    offsite.store(settings, local_of(settings), backup, report)
    (one,) = offsite.listed(settings)
    assert (one.id, one.server, one.types, one.taken) == (backup.id, "web-1", frozenset({"daily"}), backup.taken)
    (target := tmp_path / "back").mkdir()
    manifest = offsite.fetch(settings, backup.id, target, report)
    assert (manifest.id, manifest.types, manifest.items[0].counts) == (backup.id, ("daily",), {"posts": 2})
    assert decoded(target / "posts.sqlite.zst") == ROWS
    assert decoded(target / "up loads.tar.zst") == b"tar of " + ROWS
    for item in manifest.items:
        for file in item.files:
            stored = (target / file.name).read_bytes()
            assert (file.bytes, file.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
            assert stat.S_IMODE((target / file.name).stat().st_mode) == 0o600


@restic
def test_what_is_stored_can_be_read_with_stock_restic_and_is_not_compressed_by_us(settings: Settings, report: Report) -> None:
    backup = make(settings)
    offsite.store(settings, local_of(settings), backup, report)
    known = json.loads(ask(settings, "snapshots", "--json", "--host", "blog", "--tag", f"app:blog,id:{backup.id}"))
    (posts,) = [one for one in known if one["paths"] == ["/posts.sqlite"]]
    assert ask(settings, "dump", posts["id"], "/posts.sqlite") == ROWS.decode()


@pytest.mark.slow
@restic
def test_the_same_data_takes_room_only_once(settings: Settings, report: Report) -> None:
    assert settings.offsite
    sizes = []
    for number in range(3):
        backup = make(settings, NOW - timedelta(minutes=number))
        offsite.store(settings, local_of(settings), backup, report)
        files = [one for one in Path(settings.offsite.repository).rglob("*") if one.is_file()]
        sizes.append(sum(one.stat().st_size for one in files))
    assert sizes[2] - sizes[0] < sizes[0] / 10
    assert len(offsite.listed(settings)) == 3


@pytest.mark.slow
@restic
def test_storing_a_backup_twice_stores_it_once(settings: Settings, report: Report, said: io.StringIO) -> None:
    backup = make(settings)
    for _ in range(2):
        offsite.store(settings, local_of(settings), backup, report)
    assert len(json.loads(ask(settings, "snapshots", "--json"))) == 3
    assert "off-site already" in said.getvalue()


@restic
@pytest.mark.slow
def test_a_truncated_file_becomes_no_backup_and_leaves_no_snapshot(settings: Settings, report: Report) -> None:
    broken = "up loads.tar.zst"
    offsite.store(settings, local_of(settings), make(settings, NOW - timedelta(hours=1)), report)
    backup = make(settings)
    whole = (backup.folder / broken).read_bytes()
    (backup.folder / broken).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BackupError, match="zstd ended with exit code 1"):
        offsite.store(settings, local_of(settings), backup, report)
    assert [one.id for one in offsite.listed(settings)] != [backup.id]
    assert len(offsite.listed(settings)) == 1
    assert len(json.loads(ask(settings, "snapshots", "--json"))) == 3
    with pytest.raises(BackupError, match="no backup"):
        offsite.fetch(settings, backup.id, settings.folder, report)
    (backup.folder / broken).write_bytes(whole)
    offsite.store(settings, local_of(settings), backup, report)
    assert len(offsite.listed(settings)) == 2


@pytest.mark.slow
@restic
def test_files_without_compression_are_compared_byte_for_byte(settings: Settings, report: Report, tmp_path: Path) -> None:
    names = ("posts.sqlite", "up loads.tar")
    backup = make(settings, names=names)
    whole = (backup.folder / names[1]).read_bytes()
    (backup.folder / names[1]).write_bytes(whole[:-1])
    with pytest.raises(BackupError, match="bytes instead of"):
        offsite.store(settings, local_of(settings), backup, report)
    (backup.folder / names[1]).write_bytes(whole)
    offsite.store(settings, local_of(settings), backup, report)
    (target := tmp_path / "back").mkdir()
    assert offsite.fetch(settings, backup.id, target, report).items == backup.manifest.items


@pytest.mark.slow
@restic
def test_an_encrypted_backup_is_stored_as_it_is(settings: Settings, report: Report, tmp_path: Path) -> None:
    backup = make(settings, names=("posts.sqlite.zst.age", "up loads.tar.zst.age"), encrypted=True)
    offsite.store(settings, local_of(settings), backup, report)
    (target := tmp_path / "back").mkdir()
    manifest = offsite.fetch(settings, backup.id, target, report)
    assert (manifest.items, manifest.encrypted) == (backup.manifest.items, True)
    assert (target / "posts.sqlite.zst.age").read_bytes() == ROWS


@pytest.mark.slow
@restic
def test_a_backup_comes_back_in_the_compression_of_today(settings: Settings, report: Report, tmp_path: Path) -> None:
    backup = make(settings, names=("posts.sqlite.gz", "up loads.tar.xz"))
    offsite.store(settings, local_of(settings), backup, report)
    (target := tmp_path / "back").mkdir()
    manifest = offsite.fetch(replace(settings, compression="gzip"), backup.id, target, report)
    assert manifest.compression == "gzip"
    assert sorted(one.name for one in target.iterdir()) == ["posts.sqlite.gz", "up loads.tar.gz"]


@restic
def test_a_killed_run_leaves_no_backup_and_the_next_run_sweeps_it(settings: Settings, report: Report, tmp_path: Path) -> None:
    backup = make(settings)
    (settings.folder / "settings.json").write_text(settings.to_json())
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "zstd").write_text(f'#!/bin/sh\n{shutil.which("zstd")} "$@" && touch {tmp_path}/at-it && exec sleep 60\n')
    (slow / "zstd").chmod(0o755)
    code = """
import sys
from pathlib import Path
from backup.agent import offsite
from backup.agent.model import Settings
from backup.agent.report import Report
from backup.agent.restic import Restic
from backup.agent.store import Store
settings = Settings.from_json(Path(sys.argv[1]).read_text())
local = Store(settings.folder / "backups")
offsite.store(settings, local, local.get(sys.argv[2]), Report())
"""
    run = subprocess.Popen([sys.executable, "-c", code, settings.folder / "settings.json", backup.id],
                           env={**os.environ, "PATH": f"{slow}:{os.environ['PATH']}"}, cwd=Path(__file__).parents[2])  # fmt: skip
    _until((tmp_path / "at-it").exists)
    decoder = _children(run.pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    for one in decoder:
        os.kill(one, signal.SIGKILL)  # restic, left alone, sees the end of its input and saves a snapshot that looks whole
    _until(lambda: len(json.loads(ask(settings, "snapshots", "--json"))) == 1)
    assert offsite.listed(settings) == []
    offsite.store(settings, local_of(settings), backup, report)
    assert [one.id for one in offsite.listed(settings)] == [backup.id]
    assert len(json.loads(ask(settings, "snapshots", "--json"))) == 3


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    """Return the decoder among the children of a process, and what it runs."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((one / "stat").read_text().rpartition(")")[2].split()[1])
            words = (one / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and "restic" not in words:
            found.append(int(one.name))
    return found


@restic
def test_no_secret_is_in_an_argument_or_a_file_that_stays(settings: Settings, report: Report, tmp_path: Path) -> None:
    spy = tmp_path / "spy"
    spy.mkdir()
    (spy / "restic").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/arguments\nexec {shutil.which("restic")} "$@"\n')
    (spy / "restic").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{spy}:{before}"
    try:
        offsite.store(settings, local_of(settings), make(settings), report)
    finally:
        os.environ["PATH"] = before
    arguments = (tmp_path / "arguments").read_text()
    assert "backup" in arguments
    for secret in (PASSWORD, "k3y-of-cloud", str(tmp_path / "repository")):
        assert secret not in arguments
        files = [one for one in Path(settings.home).rglob("*") if one.is_file()]
        assert not any(secret.encode() in one.read_bytes() for one in files)


@pytest.mark.slow
@restic
def test_a_repository_that_was_there_and_is_gone_is_not_made_anew(settings: Settings, report: Report, tmp_path: Path) -> None:
    backup = make(settings)
    offsite.store(settings, local_of(settings), backup, report)
    (tmp_path / "repository").rename(tmp_path / "unmounted")
    with pytest.raises(NeedsPerson, match="gone") as caught:
        offsite.store(settings, local_of(settings), backup, report)
    assert "mounted" in caught.value.why
    assert not (tmp_path / "repository").exists()


@pytest.mark.slow
@restic
def test_a_wrong_password_or_an_unreachable_place_makes_no_repository(settings: Settings, report: Report, tmp_path: Path) -> None:
    backup = make(settings)
    offsite.store(settings, local_of(settings), backup, report)
    where = Offsite(str(tmp_path / "repository"), "another")
    with pytest.raises(BackupError, match="restic ended with") as caught:
        offsite.store(replace(settings, offsite=where), local_of(settings), backup, report)
    assert "wrong password" in caught.value.why
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"sftp://backup:s3cr3tpass@127.0.0.1:{nobody.getsockname()[1]}//srv/restic"
        with pytest.raises(BackupError, match="restic ended with") as caught:
            offsite.store(settings_of(tmp_path, url), local_of(settings), backup, report)
    assert "s3cr3tpass" not in str(caught.value)


@pytest.mark.slow
@restic
def test_apps_environments_and_servers_share_a_repository_and_leave_each_other_alone(tmp_path: Path, report: Report) -> None:
    mine, old = settings_of(tmp_path), NOW - timedelta(days=4000)
    other = replace(mine, app="shop", home=str(tmp_path / "a")), replace(mine, server="web-2", home=str(tmp_path / "s"))
    for one in other:
        offsite.store(one, local_of(one), make(one, old), report)
    for number in range(2):
        offsite.store(mine, local_of(mine), make(mine, NOW - timedelta(hours=number)), report, NOW + timedelta(days=8 * number))
    assert [one.taken for one in offsite.listed(other[0])] == [old]
    assert sorted(one.server for one in offsite.listed(mine)) == ["web-1", "web-1", "web-2"]
    assert offsite.listed(replace(mine, environment="staging")) == []


@pytest.mark.slow
@restic
def test_the_weekly_upkeep_forgets_what_is_expired_frees_room_and_checks(
    settings: Settings, report: Report, said: io.StringIO
) -> None:
    settings = replace(settings, minimum=1)
    local = local_of(settings)
    old = make(settings, NOW - timedelta(days=40), content=os.urandom(500_000))
    young = make(settings, NOW - timedelta(days=10))
    for one in (old, young):
        offsite.store(settings, local, one, report, NOW + timedelta(days=6))
        local.delete(one.id)
    before = _size(settings)
    assert "checking" not in said.getvalue()
    newest = make(settings)
    offsite.store(settings, local, newest, report, NOW + timedelta(days=13))
    assert "checking" in said.getvalue()
    assert [one.id for one in offsite.listed(settings)] == [young.id, newest.id]
    assert _size(settings) < before - 400_000


@pytest.mark.slow
@restic
def test_nothing_is_forgotten_off_site_while_expiry_is_frozen(settings: Settings, report: Report) -> None:
    settings = replace(settings, minimum=1)
    local = local_of(settings)
    old = make(settings, NOW - timedelta(days=40))
    offsite.store(settings, local, old, report, NOW)
    local.delete(old.id)
    make(settings, NOW + timedelta(days=30))
    offsite.store(settings, local, make(settings), report, NOW + timedelta(days=8))
    assert old.id in {one.id for one in offsite.listed(settings)}


@pytest.mark.slow
@restic
def test_a_damaged_repository_is_found_by_its_check(settings: Settings, report: Report) -> None:
    assert settings.offsite
    offsite.store(settings, local_of(settings), make(settings), report, NOW)
    pack = max((Path(settings.offsite.repository) / "data").rglob("*"), key=lambda one: one.stat().st_size * one.is_file())
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:-100])
    with pytest.raises(BackupError, match="restic ended with"):
        offsite.store(settings, local_of(settings), make(settings, NOW - timedelta(1)), report, NOW + timedelta(days=8))


def _size(settings: Settings) -> int:
    assert settings.offsite
    return sum(one.stat().st_size for one in Path(settings.offsite.repository).rglob("*") if one.is_file())


@restic
def test_a_record_that_names_a_path_outside_is_refused(
    settings: Settings, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = make(settings)
    evil = replace(backup.manifest.items[0].files[0], name="../posts.sqlite.zst")
    original = offsite._record

    def record(repository: Restic, manifest: Manifest, *rest: object) -> None:
        items = (replace(manifest.items[0], files=(evil,)),)
        original(repository, replace(manifest, items=items), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(offsite, "_record", record)
    offsite.store(settings, local_of(settings), backup, report)
    (target := tmp_path / "back").mkdir()
    with pytest.raises(BackupError, match="none of a backup"):
        offsite.fetch(settings, backup.id, target, report)


@pytest.mark.slow
@restic
@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="sshd is not installed: apt-get install openssh-server")
def test_a_backup_travels_over_sftp(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    with _sshd(tmp_path) as port:
        (bin := tmp_path / "bin").mkdir()
        (bin / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/client "$@"\n')
        (bin / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
        settings = settings_of(tmp_path, f"sftp://127.0.0.1:{port}/{tmp_path}/far away/restic")
        (tmp_path / "far away").mkdir()
        backup = make(settings)
        offsite.store(settings, local_of(settings), backup, report)
        (target := tmp_path / "back").mkdir()
        offsite.fetch(settings, backup.id, target, report)
        assert decoded(target / "posts.sqlite.zst") == ROWS


class _sshd:
    """An SSH server of this test's own, with its keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        key = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"[127.0.0.1]:{self._port} {key}")
        shutil.copy(folder / "user.pub", folder / "authorized")
        (folder / "client").write_text(f"IdentityFile {folder}/user\nUserKnownHostsFile {folder}/known\nIdentitiesOnly yes\n")
        (folder / "server").write_text(
            f"ListenAddress 127.0.0.1:{self._port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
        )

    def __enter__(self) -> int:
        Path("/run/sshd").mkdir(exist_ok=True)
        self._server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", self._folder / "server"], stderr=subprocess.DEVNULL)
        _until(self._answers)
        return int(self._port)

    def _answers(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self._port)) == 0

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait()


def stored(id: str, days: float, *types: str) -> Stored:
    taken = NOW - timedelta(days=days)
    return Stored(f"{taken:%Y%m%dT%H%M%SZ}-{id:0>6}", "web-1", frozenset(types), "r")


def test_what_is_kept_here_or_young_or_among_the_newest_stays_off_site() -> None:
    known = [stored("1", 400, "daily"), stored("2", 40, "daily"), stored("3", 40, "daily", "weekly"), stored("4", 29, "daily"),
             stored("5", 40, "daily"), stored("6", 300, "monthly"), stored("7", 40), stored("8", 40, "new-type")]  # fmt: skip
    gone = expired(known, {known[4].id}, DEFAULTS, 1, NOW)
    assert [one.id for one in gone] == [known[0].id, known[1].id]


def test_the_last_ones_stay_off_site_however_old() -> None:
    known = [stored(str(number), 1000 + number, "daily") for number in range(5)]
    assert {one.id for one in expired(known, (), DEFAULTS, 3, NOW)} == {known[3].id, known[4].id}


def test_a_rule_of_a_number_alone_is_decided_here() -> None:
    known = [stored(str(number), number, "daily") for number in range(5)]
    rules = {"daily": Rule(count=2)}
    here = {known[0].id, known[1].id}
    assert {one.id for one in expired(known, here, rules, 1, NOW)} == {one.id for one in known[2:]}


def test_upkeep_is_due_once_a_week_and_when_the_clock_went_back() -> None:
    assert not upkeep_due(written(NOW), NOW + timedelta(days=6))
    assert upkeep_due(written(NOW), NOW + timedelta(days=7))
    assert upkeep_due(written(NOW), NOW - timedelta(days=1))


def test_what_is_not_off_site_yet_is_known_from_the_history(settings: Settings) -> None:
    local = local_of(settings)
    assert offsite.pending(settings, local) is None
    backup = make(settings)
    assert offsite.pending(settings, local) == backup
    local.note({"event": "offsite", "id": backup.id, "ok": False})
    assert offsite.pending(settings, local) == backup
    local.note({"event": "offsite", "id": backup.id, "ok": True})
    assert offsite.pending(settings, local) is None
    assert offsite.pending(replace(settings, offsite=None), local) is None
