"""The stack's files on a server: the real program in a process of its own, with a folder of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring import on_server

PROGRAM = Path(on_server.__file__).read_text()
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
ME = os.getuid()
MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROCESS")}
pytestmark = pytest.mark.skipif(ME not in (0, os.getgid()), reason="a file is given to the group of its user's number as well")

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Return what the program answers."""

    def answer(act: str, umask: int = 0o077, within: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        places = {"folder": tmp_path / "monitoring", "home": tmp_path, "socket": tmp_path / "engine"}
        request = {"act": act, "there": [], "bind": [], **{name: str(path) for name, path in places.items()}, **more}
        done = subprocess.run(
            [*within, sys.executable, "-I", on_server.__file__], input=json.dumps(request) + "\n", text=True, capture_output=True,
            umask=umask, env={**MEASURED, "SUDO_UID": str(ME)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "engine"))
        yield answer


def file(path: str, content: str = "text", mode: int = 0o644, owner: int = ME, *, sent: bool = True) -> dict[str, Any]:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"path": path, "mode": mode, "owner": owner, "digest": digest} | ({"content": content} if sent else {})


def place(ask: Ask, *files: dict[str, Any]) -> dict[str, Any]:
    return ask("place", files=list(files))


def files(folder: Path) -> list[str]:
    """Return what is there, but for the note of what has changed."""
    root = folder / "monitoring"
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return [path for path in found if path != on_server.UNREAD]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_what_differs_has_to_be_sent(ask: Ask, tmp_path: Path) -> None:
    told = [file("gate/nginx.conf", sent=False), file("loki/loki.yaml", "é\r\n", sent=False)]
    assert place(ask, *told)["missing"] == ["gate/nginx.conf", "loki/loki.yaml"]
    assert not (tmp_path / "monitoring/gate").exists()
    assert place(ask, file("gate/nginx.conf"), file("loki/loki.yaml", "é\r\n"))["missing"] == []
    assert (tmp_path / "monitoring/loki/loki.yaml").read_bytes() == "é\r\n".encode()
    assert place(ask, *told)["missing"] == []
    assert place(ask, told[0], file("loki/loki.yaml", "other", sent=False))["missing"] == ["loki/loki.yaml"]


@pytest.mark.parametrize("umask", [0, 0o077])
def test_modes_are_as_wanted_whatever_the_umask(ask: Ask, tmp_path: Path, umask: int) -> None:
    ask("place", umask, files=[file("a/b/open"), file("a/secret", mode=0o400)])
    folder = tmp_path / "monitoring"
    assert [mode(folder / name) for name in (".", "a", "a/b", "a/b/open", "a/secret")] == [0o711, 0o755, 0o755, 0o644, 0o400]


def test_a_file_of_another_mode_is_not_as_wanted(ask: Ask, tmp_path: Path) -> None:
    place(ask, file("a/secret", mode=0o400))
    (tmp_path / "monitoring/a/secret").chmod(0o444)
    assert place(ask, file("a/secret", mode=0o400, sent=False))["missing"] == ["a/secret"]
    place(ask, file("a/secret", mode=0o400))
    assert mode(tmp_path / "monitoring/a/secret") == 0o400


@AS_ROOT
def test_a_secret_belongs_to_the_user_of_its_service(ask: Ask, tmp_path: Path) -> None:
    place(ask, file("a/secret", mode=0o400, owner=10001))
    known = (tmp_path / "monitoring/a/secret").stat()
    assert (known.st_uid, known.st_gid) == (10001, 10001)
    assert place(ask, file("a/secret", mode=0o400, owner=472, sent=False))["missing"] == ["a/secret"]


def test_a_file_is_replaced_by_a_new_one_so_that_a_reader_has_one_or_the_other(ask: Ask, tmp_path: Path) -> None:
    place(ask, file("a/b", "old"))
    with (tmp_path / "monitoring/a/b").open() as reader:
        place(ask, file("a/b", "new"))
        assert reader.read() == "old"
    assert [path.name for path in (tmp_path / "monitoring/a").iterdir()] == ["b"]


def test_what_a_dead_run_left_is_in_nobodys_way_and_never_written_through(ask: Ask, tmp_path: Path) -> None:
    folder = tmp_path / "monitoring/a"
    folder.mkdir(parents=True)
    (tmp_path / "victim").write_text("precious")
    for name in ("b.new", "c"):
        (folder / name).symlink_to(tmp_path / "victim")
    (folder / "d.new").write_text("half")
    place(ask, file("a/b"), file("a/c"), file("a/d"))
    assert {path.name: path.is_symlink() for path in folder.iterdir()} == {"b": False, "c": False, "d": False}
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_link_to_what_is_wanted_is_not_what_is_wanted(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "monitoring/a").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("text")
    (tmp_path / "monitoring/a/b").symlink_to(tmp_path / "elsewhere")
    assert place(ask, file("a/b", sent=False))["missing"] == ["a/b"]


def test_what_is_not_wanted_any_more_goes_once_all_that_is_wanted_is_there(ask: Ask, tmp_path: Path) -> None:
    place(ask, file("a/b"), file("old/c"), file("old/deep/d"))
    place(ask, file("a/b", sent=False), file("a/new", sent=False))
    assert files(tmp_path) == ["a/b", "old/c", "old/deep/d"]
    assert place(ask, file("a/b", sent=False), file("a/new"))["missing"] == []
    assert files(tmp_path) == ["a/b", "a/new"]


def test_services_with_changed_files_are_told_until_they_have_read_them(ask: Ask) -> None:
    assert place(ask, file("a/b"), file("a/c"), file("old/d"))["changed"] == ["a", "old"]
    ask("read")
    assert place(ask, file("a/b", sent=False), file("a/c", sent=False), file("old/d", sent=False))["changed"] == []
    assert place(ask, file("a/b", "new"), file("a/c", sent=False), file("old/d", sent=False))["changed"] == ["a"]
    assert place(ask, file("a/b", "new", sent=False), file("a/c", sent=False))["changed"] == ["a", "old"], "the run before died"
    for _ in range(2):
        ask("read")
    assert place(ask, file("a/b", "new", sent=False), file("a/c", sent=False))["changed"] == []


def test_that_is_noted_before_anything_changes(ask: Ask, tmp_path: Path) -> None:
    """So a run that dies while it places files leaves them to the next one as well."""
    (tmp_path / "monitoring/a/b").mkdir(parents=True)  # in the way: the program fails there
    assert place(ask, file("gate/nginx.conf"), file("a/b")) == {"error": f"Is a directory: {tmp_path}/monitoring/a/b.new"}
    (tmp_path / "monitoring/a/b").rmdir()
    assert place(ask, file("gate/nginx.conf", sent=False))["changed"] == ["a", "gate"]


def test_what_is_to_be_kept_stays_as_it_is(ask: Ask, tmp_path: Path) -> None:
    place(ask, file("gate/tls/key.pem", "made here", mode=0o400))
    assert place(ask, file("a/b"), {"path": "gate/tls/key.pem", "keep": True})["missing"] == []
    assert (tmp_path / "monitoring/gate/tls/key.pem").read_text() == "made here"


def test_looking_makes_the_folders_that_lack_and_tells_what_files_say(ask: Ask, tmp_path: Path) -> None:
    found = ask("look", read=["owner.json", "a/b"])
    assert found["files"] == {"owner.json": None, "a/b": None}
    assert (mode(tmp_path), mode(tmp_path / "metrics")) == (0o711, 0o755)
    assert (found["engine_group"], found["journal"]) == (os.getgid(), Path("/var/log/journal").is_dir())
    place(ask, file("a/b", "grün"))
    assert ask("look", read=["a/b"])["files"] == {"a/b": "grün"}
    assert not (tmp_path / "monitoring/owner.json").exists()


def test_of_secrets_it_is_told_only_whether_they_are_there(ask: Ask) -> None:
    place(ask, file("grafana/secrets/password", "hunter2", mode=0o400))
    found = ask("look", read=[], there=["grafana/secrets/password", "gate/tls/key.pem"])
    assert found["there"] == ["grafana/secrets/password"]
    assert "hunter2" not in json.dumps(found)


def test_it_is_told_where_something_listens_already_and_what_is_no_address_of_the_server(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        ports = [one.getsockname()[1] for one in (taken, free)]
        free.close()
        asked = [("127.0.0.1", ports[0]), ("127.0.0.1", ports[1]), ("192.0.2.1", 0), ("127.0.0.1", 0), ("2001:db8::1", 0)]
        found = ask("look", read=[], bind=asked)["unbound"]
    assert found == [f"127.0.0.1:{ports[0]}", "192.0.2.1:0", "2001:db8::1:0"]


def test_who_only_looks_is_told_what_differs_and_changes_nothing(ask: Ask, tmp_path: Path) -> None:
    place(ask, file("gate/nginx.conf"), file("node/old"))
    ask("read")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    wanted = [file("gate/nginx.conf", sent=False), file("prometheus/prometheus.yml", sent=False), file("node/old", "new")]
    assert ask("place", files=wanted, only_look=True) == {"missing": ["prometheus/prometheus.yml", "node/old"]}
    assert ask("place", files=wanted[:1], only_look=True) == {"missing": []}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@AS_ROOT
def test_deploys_may_write_what_they_tell_though_root_made_the_folder(ask: Ask, tmp_path: Path) -> None:
    """Whoever owns the home is the user that deploys; an older bootstrap, or root, may have made the folder of figures."""
    (tmp_path / "metrics").mkdir()
    os.chown(tmp_path, 1000, -1)
    ask("look", read=[])
    assert [(tmp_path / name).stat().st_uid for name in (".", "metrics")] == [1000, 1000]


SHARED, SLAVE, PRIVATE = (("unshare", "--mount", "--propagation", kind) for kind in ("shared", "slave", "private"))
STAYS = ("sh", "-c", '"$@"; exit $?', "sh")  # or nobody is left of whom to be a slave


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not here")
@pytest.mark.parametrize(
    ("within", "told"),
    [
        pytest.param(SHARED, "rslave", id="shared"),
        pytest.param((*SHARED, *STAYS, *SLAVE), "rslave", id="slave"),
        pytest.param(PRIVATE, "rprivate", id="private"),
    ],
)
def test_it_is_told_how_the_root_may_be_handed_on(ask: Ask, within: tuple[str, ...], told: str) -> None:
    """The engine takes a slave of what is shared, or is a slave itself; of a private root, as in some containers, it does not."""
    if subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("mounts cannot be made here")
    assert ask("look", within=within, read=[])["propagation"] == told


@AS_ROOT
def test_a_volume_is_given_to_its_services_user_with_all_in_it_and_through_no_link(ask: Ask, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "wal/deep").mkdir(parents=True)
    (volume / "wal/deep/000").touch()
    (volume / "link").symlink_to(tmp_path / "engine")
    assert ask("own", volumes=[[str(volume), 65534]]) == {"owned": [str(volume)]}
    assert {path.lstat().st_uid for path in (volume, *volume.rglob("*"))} == {65534}
    assert (tmp_path / "engine").stat().st_uid == 0
    assert ask("own", volumes=[[str(volume), 65534]]) == {"owned": []}


def test_a_server_runs_it_as_a_text_with_nothing_of_its_own_around(tmp_path: Path) -> None:
    request = json.dumps({"act": "place", "folder": str(tmp_path / "monitoring"), "files": [file("a/b")]})
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM], input=f"{request}\n", text=True, capture_output=True, env={}
    )
    assert json.loads(done.stdout) == {"missing": [], "changed": ["a"]}
    assert (tmp_path / "monitoring/a/b").read_text() == "text"


def test_what_it_runs_on_is_the_standard_library_alone() -> None:
    imported = {line.split()[1] for line in PROGRAM.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= {"__future__", *sys.stdlib_module_names}
