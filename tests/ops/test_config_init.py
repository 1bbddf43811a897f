from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.config import load
from ops.config_init import write_new
from ops.errors import ConfigError
from ops.templates import Template, template, templates


def test_a_new_file_loads(tmp_path: Path) -> None:
    write_new(tmp_path / "ops.toml", "my-shop", 8080)
    (tmp_path / "Dockerfile").touch()
    app = load(tmp_path / "ops.toml", {}).app
    assert (app.name, app.port) == ("my-shop", 8080)


def test_a_new_file_loads_with_every_suggestion_uncommented(tmp_path: Path) -> None:
    write_new(tmp_path / "ops.toml", "shop", 80)
    text = (tmp_path / "ops.toml").read_text()
    (tmp_path / "ops.toml").write_text(re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE))
    (tmp_path / "Dockerfile").touch()
    environment = load(tmp_path / "ops.toml", {}).environment("production")
    assert environment.domains == ("shop.example.com",)
    assert environment.app.migrate
    assert environment.app.secrets == ("SECRET_KEY",)
    assert environment.notifications.urls == ("SLACK_URL",)


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ops.toml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_new(tmp_path / "ops.toml", "shop", 3000)
    assert (tmp_path / "ops.toml").read_text() == "mine"


def test_a_dangling_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ops.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        write_new(tmp_path / "ops.toml", "shop", 3000)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_an_error_to_show(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        write_new(tmp_path / "none/ops.toml", "shop", 3000)


@pytest.mark.parametrize(
    "name",
    ["", "Shop", "a b", 'a"\nport = 1', "--flag", "$(id)", "a\n", "../a", "ü", "a\0", "{port}", "edge", "a" * 32, "a-"],
)
def test_a_hostile_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--name: expected a name"):
        write_new(tmp_path / "ops.toml", name, 3000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(ConfigError, match="--port: expected at"):
        write_new(tmp_path / "ops.toml", "shop", port)


def test_secrets_are_kept_out_of_the_image(tmp_path: Path) -> None:
    write_new(tmp_path / "ops.toml", "shop", 3000)
    lines = (tmp_path / ".dockerignore").read_text().splitlines()
    assert lines == [".git", ".tidegate", ".env", ".env.*", "ops.toml", "known_hosts"]
    assert not (tmp_path / ".gitignore").exists()


def test_files_that_are_there_keep_every_line(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("mine")
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9\n/.tidegate")
    write_new(tmp_path / "ops.toml", "shop", 3000)
    assert (tmp_path / ".dockerignore").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_bytes() == b"caf\xe9\n/.tidegate\n.env.*\n"


@pytest.mark.parametrize("text", [".tidegate/\n.env.*", ".env.*\n.tidegate\n!.env.example\n"])
def test_a_gitignore_that_says_it_all_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / ".gitignore").write_text(text)
    write_new(tmp_path / "ops.toml", "shop", 3000)
    assert (tmp_path / ".gitignore").read_text() == text


def test_a_repository_gets_a_gitignore_and_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "two/.gitignore").symlink_to(tmp_path / "elsewhere")
    write_new(tmp_path / "one/ops.toml", "shop", 3000)
    write_new(tmp_path / "two/ops.toml", "shop", 3000)
    assert (tmp_path / "one/.gitignore").read_text() == ".tidegate/\n.env.*\n"
    assert not (tmp_path / "elsewhere").exists()


def test_a_gitignore_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").mkdir()
    with pytest.raises(ConfigError, match=r"gitignore: cannot be written"):
        write_new(tmp_path / "ops.toml", "shop", 3000)
    assert [path.name for path in tmp_path.iterdir()] == [".gitignore"]


STATIC = Template(
    "static", "Files", 8080, {"Dockerfile": b"FROM scratch\n", "Dockerfile.dockerignore": b"*\n", "nginx.conf": b"{}"}
)


def test_without_a_port_it_is_the_usual_one(tmp_path: Path) -> None:
    write_new(tmp_path / "ops.toml", "shop")
    assert "port = 3000" in (tmp_path / "ops.toml").read_text()


def test_a_template_brings_its_files_and_its_port(tmp_path: Path) -> None:
    written = write_new(tmp_path / "ops.toml", "shop", template=STATIC)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    assert {name: (tmp_path / name).read_bytes() for name in STATIC.files} == STATIC.files
    app = load(tmp_path / "ops.toml", {}).app
    assert (app.name, app.port, app.health.path) == ("shop", 8080, "/health")


@pytest.mark.parametrize("there", ["ops.toml", "Dockerfile", "nginx.conf"])
def test_a_file_that_is_there_keeps_everything_from_being_written(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{there}: exists already"):
        write_new(tmp_path / "ops.toml", "shop", template=STATIC)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]


def test_what_was_written_goes_again_when_the_rest_cannot_be(tmp_path: Path) -> None:
    broken = Template("static", "", 80, {"Dockerfile": b"", "x" * 300: b""})
    with pytest.raises(ConfigError, match="cannot be written"):
        write_new(tmp_path / "ops.toml", "shop", template=broken)
    assert list(tmp_path.iterdir()) == []


def test_another_port_than_the_templates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="listens on 8080"):
        write_new(tmp_path / "ops.toml", "shop", 3000, STATIC)
    assert list(tmp_path.iterdir()) == []
    write_new(tmp_path / "ops.toml", "shop", 8080, STATIC)


@pytest.mark.parametrize("name", ["python", "rust", "node", "static"])
def test_every_template_makes_a_configuration_that_loads(tmp_path: Path, name: str) -> None:
    found = template(name)
    assert found.description
    write_new(tmp_path / "ops.toml", "shop", template=found)
    app = load(tmp_path / "ops.toml", {}).app
    assert app.port == found.port > 0
    assert app.health.path in found.files["Dockerfile"].decode()


def test_a_template_that_nobody_wrote_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="node, python, rust, static"):
        template("cobol")


def test_a_template_is_told_by_its_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/Dockerfile").write_text("# A thing for app.js. More.\nFROM scratch\nEXPOSE 80 443\n")
    found = templates(tmp_path)
    assert [(one.name, one.description, one.port) for one in found.values()] == [
        ("other", "A thing for app.js", 80),
        ("tiny", "", 0),
    ]
