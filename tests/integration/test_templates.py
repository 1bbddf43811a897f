"""The Dockerfiles that `inv init --template` writes, each tried with a small app of tests/templates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.image import bases_named
from deploy.images import lint
from ops.bases import ensure_base
from tests.integration.project import REPOSITORY
from tests.integration.trial import Trial, built, clones, commit, remove

pytestmark = [pytest.mark.integration, pytest.mark.slow]
NAME = "tidegate-template-trial"


@dataclass(frozen=True)
class Kind:
    """A template: a file of its app, words that are in it, the port, what can be executed, what may be written to."""

    name: str
    file: str
    text: str
    port: int
    programs: frozenset[str]
    writable: frozenset[str]
    answer: bytes


DATA = frozenset({"app/data", "tmp"})
NODE = Kind("node", "src/server.js", "Hello", 3000, frozenset({"usr/local/bin/node"}), DATA, b"Hello of 10001\n")
PYTHON = Kind("python", "app/__main__.py", "Hello", 3000, frozenset({"usr/bin/python3.13"}), DATA, b"Hello of 10001\n")
RUST = Kind("rust", "src/main.rs", "Hello", 3000, frozenset({"app/app", "healthcheck"}), DATA, b"Hello\n")
STATIC = Kind("static", "public/index.html", "High water", 8080, frozenset({"healthcheck", "usr/sbin/nginx"}), frozenset({"tmp"}),
              b"<!doctype")  # fmt: skip


@dataclass(frozen=True)
class Built:
    """A template's image, and two clones of what it was built from."""

    kind: Kind
    image: Trial
    clones: tuple[Path, Path]

    def again(self, clone: Path, tag: str, *options: str) -> list[str]:
        """Build once more; return the layers."""
        return built(clone, clone / "Dockerfile", f"{NAME}-{self.kind.name}:{tag}", *options).layers


@pytest.fixture(scope="module", params=[NODE, PYTHON, RUST, STATIC], ids=lambda kind: kind.name)
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp(kind.name)
    (folder / "origin").mkdir()
    files = [file for name in ("tests", "docker") for file in (REPOSITORY / name / "templates" / kind.name).iterdir()]
    cloned = clones(commit(folder / "origin", {file.name: file for file in files}), folder)
    for base in bases_named(cloned[0] / "Dockerfile"):
        ensure_base(base, print)
    image = built(cloned[0], cloned[0] / "Dockerfile", f"{NAME}-{kind.name}:one")
    yield Built(kind, image, cloned)
    remove(f"{NAME}-{kind.name}:")


def test_it_builds_on_a_base_that_this_machine_can_make(template: Built) -> None:
    assert bases_named(template.clones[0] / "Dockerfile")


def test_nothing_in_it_hurts_a_deploy(template: Built) -> None:
    file = template.clones[0] / "Dockerfile"
    assert not lint.lint(file, lint.setting_of(file, file.parent, health=False))
    if program := lint.hadolint():
        assert not lint.ask_hadolint(program, [file])


def test_the_same_commit_gives_the_same_layers_wherever_it_was_cloned_and_when_nothing_is_remembered(template: Built) -> None:
    assert template.again(template.clones[1], "other", "--no-cache") == template.image.layers


def test_a_change_of_the_code_changes_the_last_layer_only(template: Built) -> None:
    file = template.clones[1] / template.kind.file
    text = file.read_text()
    try:
        file.write_text(text.replace(template.kind.text, "Low tide"))
        changed = template.again(template.clones[1], "changed")
    finally:
        file.write_text(text)
    assert (changed[:-1], changed[-1] != template.image.layers[-1]) == (template.image.layers[:-1], True)


def test_it_is_within_its_budget(template: Built, tmp_path: Path) -> None:
    template.image.fits(tmp_path, "templates", template.kind.name)


def test_nothing_is_in_it_that_is_not_needed(template: Built) -> None:
    library = ("usr/lib/python", "opt/venv/bin/", "app/node_modules/")
    assert not template.image.tools
    assert {path for path in template.image.programs if not path.startswith(library)} == template.kind.programs


def test_its_user_is_a_number_that_may_write_to_few_places(template: Built) -> None:
    assert template.image.configuration["User"] == "10001:10001"
    assert template.image.writable == template.kind.writable
    assert all(template.image.files[path].mode & 0o7777 == 0o700 for path in template.kind.writable - {"tmp"})


def test_it_serves_and_is_healthy_where_it_may_write_nowhere_and_stops_when_told(template: Built) -> None:
    with template.image.running(template.kind.port) as app:
        app.becomes("healthy")
        status, _, body = app.get("/")
        assert (status, body.startswith(template.kind.answer)) == (200, True)
        if template.kind is not RUST:  # the trial's app leaves signals to the engine
            assert app.stops() == 0


def test_without_an_answer_it_is_not_healthy(template: Built) -> None:
    command = template.image.configuration["Healthcheck"]["Test"][1:]
    with pytest.raises(Exception, match="exit"):
        template.image.run(*command)


@pytest.mark.parametrize("template", [STATIC], ids=["static"], indirect=True)
def test_static_files_are_kept_or_asked_after_by_their_names(template: Built) -> None:
    with template.image.running(8080) as site:
        site.becomes("healthy")
        page, style = site.get("/")[1], site.get("/assets/style.3f9a1c7e.css", **{"Accept-Encoding": "gzip"})[1]
        assert (page["Cache-Control"], page["Last-Modified"]) == ("no-cache", "Sun, 15 Jun 2025 15:06:40 GMT")
        assert (style["Cache-Control"], style["Content-Encoding"]) == ("public, max-age=31536000, immutable", "gzip")
        assert [site.get(path)[0] for path in ("/nothing", "/.git/config", "/assets")] == [404, 404, 301]
        assert b"No such page" in site.get("/nothing")[2]


@pytest.mark.parametrize("template", [RUST], ids=["rust"], indirect=True)
def test_a_rust_program_without_libraries_finds_names(template: Built) -> None:
    with template.image.running(3000) as app:
        app.becomes("healthy")
        assert app.get("/resolve/localhost")[0::2] == (200, b"[127.0.0.1]\n")
