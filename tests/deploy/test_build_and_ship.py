"""Images built by a docker client that does as a test says, and brought to a server through our registry, or piped whole."""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deploy import rehearsal
from deploy.image import SPARE, build, read_source
from deploy.intent import Options
from deploy.session import Session, reserve
from deploy.ship import Shipper, pipe_whole
from deploy.show import Printer
from ops import build_client, local_engine
from ops.config import App
from ops.console import Console
from ops.errors import ConfigError, Failed, Refused
from ops.menu import environment_of
from ops.names import LABEL_APP, LABEL_CONTENT
from ops.this_machine import local_client
from tests.deploy.a_project import Project, a_project
from tests.deploy.a_server import FORWARD, Engine
from tests.deploy.test_registry import KIND, MANIFEST
from tests.programs import Programs

# A build leaves its image on the engine: it is asked to pull it, which adds it.
BUILT = f"""
case "$1" in
--version) echo "Docker version 20.10.24, build x" ;;
build)
  while [ "$1" != -t ]; do shift; done
  {sys.executable} -c '
import socket, sys
name, _, tag = sys.argv[1].rpartition(":")
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[2])
line.sendall(f"POST /images/create?fromImage={{name}}&tag={{tag}} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
while line.recv(4096): pass' "$2" "${{DOCKER_HOST#unix://}}"
  echo "#7 DONE 0.1s" ;;
save) printf 'the whole image' ;;
-H) echo "$2" > "$0.socket"; cat > "$0.loaded" ;;
esac
"""
FAILING = """
case "$1" in
--version) echo "Docker version 20.10.24, build x" ;;
build) echo "#7 RUN false"; echo "exit code 7"; exit 1 ;;
save) echo "no such image" >&2; exit 1 ;;
-H) cat > /dev/null; echo "cannot connect" >&2; exit 1 ;;
esac
"""
ALLOCATED = 'for word; do case "$word" in 127.0.0.1:0:*) echo "Allocated port 45678 for remote forward to 127.0.0.1:${word##*:}" >&2 ;; esac; done'
REFUSED = 'echo "Warning: remote port forwarding failed for listen port 0" >&2'


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Serve as this machine's engine."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/local.sock")
    monkeypatch.setattr(local_engine, "ensure", lambda report: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("deploy.intent.ensure", lambda report: None)
    build_client._version_line.cache_clear()
    with Engine(tmp_path / "local.sock") as found:
        Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Have a docker client that builds."""
    programs = Programs(tmp_path, monkeypatch)
    programs.add("docker", BUILT)
    return programs


@pytest.fixture
def app(tmp_path: Path) -> App:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return App(name="blog", port=3000, context=context, dockerfile=context / "Dockerfile", keep_releases=2)


def built(app: App, version: str = "v1") -> tuple[Any, list[str]]:
    """Return the image and what was said."""
    said: list[str] = []
    return build(app, read_source(app, version), local_client().api, said.append), said


def test_a_build_is_told_line_by_line_and_what_it_made_is_known(local: Engine, docker: Programs, app: App) -> None:
    made, said = built(app)
    assert said == ["#7 DONE 0.1s"]
    assert (made.name, made.version, made.size, made.id) == ("tidegate/blog:v1", "v1", 1000, "sha256:tidegate/blog:v1")
    (line,) = [one for one in docker.called if one.startswith("docker build")]
    assert f"--label {LABEL_CONTENT}={made.content}" in line
    assert "--build-arg VERSION=v1" in line


def test_the_same_content_is_not_built_again_and_another_under_its_version_is_refused(
    local: Engine, docker: Programs, app: App
) -> None:
    content = read_source(app, "v1").content
    local.add_image("tidegate/blog:v1", Labels={LABEL_CONTENT: content}, Volumes={"/data": {}})
    made, said = built(app)
    assert said == ["tidegate/blog:v1 is built already"]
    assert made.volumes == ("/data",)
    local.add_image("tidegate/blog:v1", Labels={LABEL_CONTENT: "other"})
    with pytest.raises(Refused, match="version v1 was already built from other content") as caught:
        built(app)
    assert (caught.value.where, "choose another --version" in caught.value.fix) == ("tidegate/blog:v1", True)


def test_a_build_that_fails_is_told_with_its_last_lines(local: Engine, docker: Programs, app: App) -> None:
    docker.add("docker", FAILING)
    with pytest.raises(Failed, match="building tidegate/blog:v1 failed") as caught:
        built(app)
    assert caught.value.why == "#7 RUN false\n    exit code 7"
    assert caught.value.where == str(app.dockerfile)


def test_a_build_does_not_outlive_whoever_listens_to_it(local: Engine, docker: Programs, app: App, tmp_path: Path) -> None:
    docker.add(
        "docker", 'case "$1" in --version) echo "Docker version 20.10.24, build x" ;; build) echo $$; exec sleep 600 ;; esac'
    )
    pids: list[int] = []

    def interrupted(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(app, read_source(app, "v1"), local_client().api, interrupted)
    assert not Path(f"/proc/{pids[0]}/cmdline").exists()


def test_a_base_of_ours_that_is_missing_is_brought_first(
    local: Engine, docker: Programs, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[str] = []
    monkeypatch.setattr("ops.bases.ensure_base", lambda name, say: brought.append(name))
    app.dockerfile.write_text("FROM debian:trixie-slim\n")
    built(app)
    assert brought == ["debian:trixie-slim"]


def test_old_images_go_and_one_that_is_in_use_stays_and_is_told(local: Engine, docker: Programs, app: App) -> None:
    spare = app.keep_releases + SPARE - 1
    for number in range(spare + 3):
        name = f"tidegate/blog:w{number:02}"
        local.add_image(name, Labels={LABEL_APP: "blog"})
        local.images[name]["Metadata"] = {"LastTagTime": f"2026-01-{number + 1:02}"}
    local.answers["DELETE /images/tidegate/blog:w00"] = (409, "image is being used")
    local.answers["DELETE /images/tidegate/blog:w01"] = 404
    _, said = built(app)
    assert said[-1] == "tidegate/blog:w00 stays: image is being used"
    assert "tidegate/blog:w02" not in local.images
    assert {f"tidegate/blog:w{number:02}" for number in range(3, spare + 3)} < local.images.keys()


def test_without_git_the_content_names_the_version(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = read_source(app, None)
    assert (found.revision, found.version.endswith(f"-{found.content[:7]}")) == ("unknown", True)


def test_an_image_is_piped_whole_from_one_engine_to_the_other(docker: Programs, local: Engine, tmp_path: Path) -> None:
    pipe_whole("tidegate/blog:v1", tmp_path / "server.sock", where="one", stop=threading.Event())
    assert Path(f"{docker.folder}/docker.loaded").read_text() == "the whole image"
    assert Path(f"{docker.folder}/docker.socket").read_text() == f"unix://{tmp_path}/server.sock\n"


def test_what_both_ends_of_a_pipe_say_is_told(docker: Programs, local: Engine, tmp_path: Path) -> None:
    docker.add("docker", FAILING)
    with pytest.raises(Failed, match="the image could not be piped to the server") as caught:
        pipe_whole("tidegate/blog:v1", tmp_path / "server.sock", where="one", stop=threading.Event())
    assert sorted(caught.value.why.splitlines()) == ["cannot connect", "no such image"]
    assert caught.value.where == "one"


def test_a_pipe_ends_when_it_is_told_to_stop(docker: Programs, local: Engine, tmp_path: Path) -> None:
    docker.add("docker", 'case "$1" in --version) echo "Docker version 20.10.24, build x" ;; *) exec sleep 600 ;; esac')
    stop = threading.Event()
    stop.set()
    with pytest.raises(Failed, match="could not be piped"):
        pipe_whole("tidegate/blog:v1", tmp_path / "server.sock", where="one", stop=stop)


def test_an_engine_that_cannot_reach_us_gets_no_offer_and_keeps_no_name_of_ours(local: Engine, tmp_path: Path) -> None:
    local.add_image("tidegate/blog:v1")
    with Shipper(reserve(tmp_path / "state"), tmp_path / "state", lambda: local_client().api) as shipper:
        assert shipper.offer("tidegate/blog:v1") is None
        assert shipper.offer("tidegate/blog:v1") is None
    assert list(local.images) == ["tidegate/blog:v1"]
    assert len([one for one in local.asked if one.endswith("/push")]) == 1


def test_a_cache_that_cannot_be_written_is_told_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ConfigError, match="the cache cannot be written") as caught:
        reserve(tmp_path / "state")
    assert "XDG_CACHE_HOME" in caught.value.fix


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local: Engine, docker: Programs
) -> Iterator[Project]:
    """Have a project whose image is built here."""
    with a_project(tmp_path, monkeypatch, capsys) as found:
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        text = (tmp_path / "ops.toml").read_text()
        (tmp_path / "ops.toml").write_text(text.replace('image = "registry.invalid/blog"', ""))
        yield found


def ssh(project: Project, before: str) -> None:
    """Have ssh say something of a port that leads back to us."""
    script = project.here.home.parent / "bin" / "ssh"
    script.write_text(script.read_text().replace(FORWARD, f"{FORWARD}\n{before}"))


def pushing(local: Engine) -> None:
    """Have this machine's engine push: one manifest, over HTTP."""

    def push(_: Any) -> bytes:
        name = next(name for name in local.images if name.startswith("localhost:"))
        where, _, path = name.partition("/")
        line = http.client.HTTPConnection(where, timeout=5)
        repository, _, tag = path.rpartition(":")
        line.request("PUT", f"/v2/{repository}/manifests/{tag}", MANIFEST, {"Content-Type": KIND})
        assert line.getresponse().status == 201
        line.close()
        return b'{"status": "Pushed"}\r\n'

    local.push = push


def test_a_deploy_builds_pushes_to_us_and_the_server_pulls_by_digest(project: Project, local: Engine) -> None:
    ssh(project, ALLOCATED)
    pushing(local)
    done = json.loads(project.deploy("v1", json=True))
    assert (done["result"], done["notes"]) == ("done", [])
    pulled = [one for one in project.here.engine.asked if one.startswith("POST /images/localhost:45678/")]
    assert len(pulled) == 1
    assert "@sha256:" in pulled[0]
    assert list(project.here.engine.images) == ["tidegate/blog:v1"]
    assert list(local.images) == ["tidegate/blog:v1"]


def test_where_no_port_leads_back_to_us_the_whole_image_is_piped_and_that_is_told(
    project: Project, local: Engine, docker: Programs
) -> None:
    ssh(project, REFUSED)
    pushing(local)
    said = project.deploy("v1")
    assert "the whole image had to be piped, its layers could not be pulled" in said
    assert "remote port forwarding failed" in said
    assert Path(f"{docker.folder}/docker.loaded").read_text() == "the whole image"


def test_a_plan_builds_nothing(project: Project, docker: Programs) -> None:
    assert "nothing was changed (--dry-run)" in project.deploy("v1", dry_run=True)
    assert docker.called == []


def test_a_migration_to_rehearse_is_built_and_brought_without_being_run(project: Project, local: Engine) -> None:
    ssh(project, ALLOCATED)
    pushing(local)
    env = environment_of("test")
    with Session(env, ships=True) as session:
        ahead = rehearsal.bring(session, Options(version="v7"), {}, Printer(Console()))
        assert (ahead.image, ahead.version, ahead.command) == ("tidegate/blog:v7", "v7", ("migrate",))
        assert list(project.here.engine.images) == ["tidegate/blog:v7"]
        without = env.model_copy(update={"app": env.app.model_copy(update={"migrate": None})})
        session.env = without
        with pytest.raises(Refused, match="there is no migration to rehearse") as caught:
            rehearsal.bring(session, Options(), {}, Printer(Console()))
    assert caught.value.fix == "app.migrate in ops.toml"
    assert not [one for one in project.here.engine.asked if "create" in one and "containers" in one]
