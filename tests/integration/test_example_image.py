"""The example's image: the same from every clone, small, and with nothing in it that it does not need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.bases import ensure_base
from ops.stand_ins import DEBIAN
from tests.integration.project import REPOSITORY
from tests.integration.trial import Trial, built, clones, commit, remove

pytestmark = pytest.mark.integration
NAME = "tidegate-example-trial"


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("example")
    (folder / "origin").mkdir()
    sources = {"example": REPOSITORY / "example", "docker": REPOSITORY / "docker"}
    return clones(commit(folder / "origin", sources), folder)


@pytest.fixture(scope="module")
def image(cloned: tuple[Path, Path]) -> Iterator[Trial]:
    ensure_base(DEBIAN, print)
    yield example(cloned[0], "one")
    remove(f"{NAME}:")


def example(clone: Path, tag: str, *options: str) -> Trial:
    return built(clone / "example", clone / "docker/Dockerfile", f"{NAME}:{tag}", *options)


def test_the_same_commit_gives_the_same_layers_wherever_it_was_cloned(image: Trial, cloned: tuple[Path, Path]) -> None:
    assert example(cloned[1], "other").layers == image.layers


@pytest.mark.slow
def test_the_same_commit_gives_the_same_layers_when_nothing_is_remembered(image: Trial, cloned: tuple[Path, Path]) -> None:
    assert example(cloned[1], "anew", "--no-cache").layers == image.layers


def test_a_change_of_the_code_changes_the_last_layer_only(image: Trial, cloned: tuple[Path, Path]) -> None:
    file = cloned[1] / "example/blog/api.py"
    text = file.read_text()
    try:
        file.write_text(f"{text}# high water\n")
        changed = example(cloned[1], "changed").layers
    finally:
        file.write_text(text)
    assert (changed[:-1], changed[-1] != image.layers[-1]) == (image.layers[:-1], True)


def test_it_is_within_its_budget(image: Trial, tmp_path: Path) -> None:
    image.fits(tmp_path, "example")


def test_nothing_in_it_runs_but_python_and_its_dependencies(image: Trial) -> None:
    assert not image.tools
    assert {path for path in image.programs if not path.startswith(("opt/venv/bin/", "usr/lib/python"))} == {"usr/bin/python3.13"}


def test_its_user_is_a_number_and_may_write_to_the_data_and_to_tmp_only(image: Trial) -> None:
    assert image.configuration["User"] == "10001:10001"
    assert image.writable == {"app/data", "tmp"}
    assert image.files["app/data"].mode & 0o7777 == 0o700


def test_scanners_are_told_which_packages_there_are(image: Trial) -> None:
    known = {path.rpartition("/")[2] for path in image.files if path.startswith("var/lib/dpkg/status.d/")}
    assert {"libc6", "libsqlite3-0", "libssl3t64", "python3.13-minimal", "tzdata"} <= known
    assert "etc/os-release" in image.files
    assert any(path.endswith(".dist-info/METADATA") for path in image.files)


def test_certificates_time_zones_and_names_are_there(image: Trial) -> None:
    program = """if True:
        import socket, ssl, zoneinfo, psycopg
        assert len(ssl.create_default_context().get_ca_certs()) > 100
        assert zoneinfo.ZoneInfo("Asia/Tokyo").utcoffset(None) is None
        assert socket.getservbyname("https") == 443 and socket.gethostbyname("localhost") == "127.0.0.1"
        print(psycopg.pq.version() > 170000)"""
    assert image.run("python", "-c", program) == "True\n"


def test_it_serves_and_is_healthy_where_it_may_write_to_its_data_only(image: Trial) -> None:
    with image.running(3000, volumes=["/app/data"]) as blog:
        assert blog.made.exec_run(["python3", "-m", "blog", "migrate"])[0] == 0
        blog.becomes("healthy")
        assert blog.get("/posts")[::2] == (200, b'{"posts":[]}')
        assert blog.stops() == 0


def test_without_an_answer_it_is_not_healthy_and_says_why(image: Trial) -> None:
    with image.running(3000, volumes=["/app/data"], environment={"PORT": "3001"}) as blog:
        code, said = blog.made.exec_run(image.configuration["Healthcheck"]["Test"][1:])
    assert (code, b"Connection refused" in said) == (1, True)
