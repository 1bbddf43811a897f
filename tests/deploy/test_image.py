"""Versions and fingerprints of what an image is built from."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.image import SPARE, Source, bases_named, build, failure, fingerprint, image_name, read_source
from ops.config import App
from ops.errors import ConfigError, Failed, Refused
from ops.stand_ins import DEBIAN, NGINX
from ops.this_machine import local_client

WHEN = "2026-03-04T05:06:07+00:00"


@pytest.fixture
def app(tmp_path: Path) -> App:
    """Return an app of three files."""
    context = tmp_path / "context"
    (context / "src").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (context / "src" / "main.py").write_text("print('hello')\n")
    (context / "README").write_text("read me\n")
    return App(name="blog", port=3000, context=context, dockerfile=context / "Dockerfile")


def git(app: App, *arguments: str) -> str:
    about = {
        "GIT_AUTHOR_DATE": WHEN,
        "GIT_COMMITTER_DATE": WHEN,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "PATH": os.environ["PATH"],
    }
    who = ["-c", "user.name=ann", "-c", "user.email=ann@example.com"]
    return subprocess.run(
        ["git", "-C", app.context, *who, *arguments], env=about, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def committed(app: App) -> App:
    git(app, "init", "-q")
    git(app, "add", ".")
    git(app, "commit", "-q", "-m", "first")
    return app


def test_a_clean_commit_names_the_version_by_its_day_and_its_hash(committed: App) -> None:
    revision = git(committed, "rev-parse", "HEAD")
    assert read_source(committed, None) == Source(f"20260304-{revision[:7]}", revision, WHEN, 1772600767, fingerprint(committed))


def test_a_change_makes_the_version_dirty_and_two_changes_are_two_versions(committed: App) -> None:
    clean = read_source(committed, None).version
    (committed.context / "src" / "main.py").write_text("print('changed')\n")
    one = read_source(committed, None).version
    (committed.context / "new.py").write_text("")
    two = read_source(committed, None).version
    assert one.startswith(f"{clean}-dirty-")
    assert two.startswith(f"{clean}-dirty-")
    assert one != two
    git(committed, "add", ".")
    git(committed, "commit", "-q", "-m", "second")
    assert "dirty" not in read_source(committed, None).version


def test_without_git_the_newest_file_and_the_content_name_the_version(app: App) -> None:
    for path in app.context.rglob("*"):
        os.utime(path, (1772600767, 1772600767))
    found = read_source(app, None)
    assert (found.version, found.revision, found.epoch) == (f"20260304-{found.content[:7]}", "unknown", 1772600767)


def test_a_version_of_ones_own_is_taken(committed: App) -> None:
    assert read_source(committed, "v1.2_3-rc").version == "v1.2_3-rc"


@pytest.mark.parametrize(
    "version", ["", "-v", ".v", "a b", "a/b", "a:b", "$(id)", "v1\n", "ü", "--flag", "v" * 101, "a;b", "v1\0"]
)
def test_a_version_that_cannot_be_a_tag_is_refused(app: App, version: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_source(app, version)
    assert caught.value.exit_code == 2


def change(app: App, name: str) -> None:
    main = app.context / "src" / "main.py"
    changes: dict[str, Callable[[], object]] = {
        "a byte": lambda: main.write_text("print('hallo')\n"),
        "a mode": lambda: main.chmod(0o755),
        "a name": lambda: main.rename(main.with_name("other.py")),
        "a new empty file": lambda: (app.context / "src" / "__init__.py").touch(),
        "a removed file": main.unlink,
        "the Dockerfile": lambda: app.dockerfile.write_text("FROM scratch\n"),
        "a link": lambda: (app.context / "link").symlink_to("README"),
        "a broken link": lambda: (app.context / "link").symlink_to("/nowhere"),
        "the .dockerignore": lambda: (app.context / ".dockerignore").write_text("README\n"),
    }
    changes[name]()


CHANGES = [
    "a byte",
    "a mode",
    "a name",
    "a new empty file",
    "a removed file",
    "the Dockerfile",
    "a link",
    "a broken link",
    "the .dockerignore",
]


@pytest.mark.parametrize("name", CHANGES)
def test_the_fingerprint_changes_with(app: App, name: str) -> None:
    before = fingerprint(app)
    assert fingerprint(app) == before
    change(app, name)
    assert fingerprint(app) != before


def test_where_a_link_leads_counts_and_not_what_is_there(app: App) -> None:
    link, outside = app.context / "link", app.context.parent / "outside"
    outside.write_text("one")
    link.symlink_to(outside)
    before = fingerprint(app)
    outside.write_text("two")
    assert fingerprint(app) == before
    link.unlink()
    link.symlink_to("README")
    assert fingerprint(app) != before


def test_times_do_not_count(app: App) -> None:
    before = fingerprint(app)
    os.utime(app.context / "README", (0, 0))
    assert fingerprint(app) == before


def test_what_the_build_cannot_see_does_not_count(app: App) -> None:
    (app.context / ".dockerignore").write_text("# comment\n\n*.log\n.git\ndata/\n!data/keep.log\n")
    before = fingerprint(app)
    (app.context / "debug.log").write_text("noise")
    (app.context / "data").mkdir()
    (app.context / "data" / "db").write_text("noise")
    assert fingerprint(app) == before
    (app.context / "data" / "keep.log").write_text("seen")
    assert fingerprint(app) != before


def test_the_ignore_file_beside_the_dockerfile_comes_first(app: App) -> None:
    (app.context / ".dockerignore").write_text("README\n")
    with_common = fingerprint(app)
    Path(f"{app.dockerfile}.dockerignore").write_text("src\n")
    (app.context / "src" / "main.py").write_text("unseen")
    with_own = fingerprint(app)
    (app.context / "README").write_text("seen")
    assert len({with_common, with_own, fingerprint(app)}) == 3


def test_a_dockerfile_outside_of_the_context_counts(app: App) -> None:
    other = app.context.parent / "elsewhere.Dockerfile"
    other.write_text("FROM scratch\n")
    moved = app.model_copy(update={"dockerfile": other})
    before = fingerprint(moved)
    other.write_text("FROM scratch\nUSER 1\n")
    assert fingerprint(moved) != before


def test_names_that_are_no_text_and_odd_files_do_no_harm(app: App) -> None:
    before = fingerprint(app)
    (Path(os.fsdecode(os.fsencode(app.context) + b"/caf\xe9 $(id)\n"))).write_text("x")
    (app.context / "link").symlink_to(os.fsdecode(b"caf\xe9"))
    os.mkfifo(app.context / "pipe")
    assert fingerprint(app) != before


def test_two_checkouts_of_the_same_files_have_one_fingerprint(app: App, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(app.context, tmp_path / "copy")
    assert fingerprint(app.model_copy(update={"context": copy, "dockerfile": copy / "Dockerfile"})) == fingerprint(app)


def test_an_image_is_named_after_the_app_or_as_the_configuration_says() -> None:
    assert image_name(App(name="blog", port=3000), "v1") == "tidegate/blog:v1"
    assert (
        image_name(App(name="blog", port=3000, image="registry.example.com/team/blog"), "v1")
        == "registry.example.com/team/blog:v1"
    )


def test_a_dockerfile_outside_of_the_repository_still_lets_a_change_be_seen(committed: App) -> None:
    outside = committed.context.parent / "Dockerfile"
    outside.write_text("FROM scratch\n")
    moved = committed.model_copy(update={"dockerfile": outside})
    assert "dirty" not in read_source(committed, None).version
    (committed.context / "src" / "main.py").write_text("changed")
    assert "dirty" in read_source(moved, None).version


SECRET = [
    ".tidegate/sandbox/id_ed25519",
    ".git/config",
    ".env",
    ".env.production",
    "sub/.env.local",
    "sub/.git",
    ".env.d/key",
    "src/__pycache__/main.pyc",
]


def hide(app: App) -> None:
    """Write the files that no image may hold."""
    for name in SECRET:
        path = app.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")


PATTERNS = ["", "README\n", "*\n!src\n!.env\n!.env.*\n!.tidegate\n!sub/.git\n!.git/config\n!.env.d/key", "!**/.env*\n!.git\n"]


@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize("beside", [".dockerignore", "Dockerfile.dockerignore"])
def test_secrets_and_what_git_and_tidegate_keep_never_count(app: App, patterns: str, beside: str) -> None:
    (app.context / beside).write_text(patterns)
    before = fingerprint(app)
    hide(app)
    assert fingerprint(app) == before


def test_what_no_image_may_hold_makes_no_version_dirty(committed: App) -> None:
    clean = read_source(committed, None)
    for name in SECRET[:1] + SECRET[2:5]:
        (committed.context / name).parent.mkdir(parents=True, exist_ok=True)
        (committed.context / name).write_text("secret")
    assert read_source(committed, None) == clean
    (committed.context / "sub/new.py").touch()
    assert read_source(committed, None).version.startswith(f"{clean.version}-dirty-")


def test_the_umask_of_a_checkout_does_not_count(app: App) -> None:
    before = fingerprint(app)
    (app.context / "src" / "main.py").chmod(0o664)
    (app.context / "README").chmod(0o600)
    assert fingerprint(app) == before


def test_an_ignore_file_that_is_no_text_does_no_harm(app: App) -> None:
    (app.context / ".dockerignore").write_bytes(b"\xef\xbb\xbfREADME\r\ncaf\xe9\n")
    before = fingerprint(app)
    (app.context / "README").write_text("unseen")
    assert fingerprint(app) == before


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("FROM debian:trixie-slim\n", [DEBIAN]),
        ("ARG BASE=debian:trixie-slim\nFROM ${BASE} AS one\n", [DEBIAN]),
        ('arg BASE="debian:trixie-slim"\nfrom --platform=linux/amd64 docker.io/library/nginx:1.30 as web\n', [DEBIAN, NGINX]),
        ("ARG BASE=node:24-trixie-slim\nFROM ${BASE} AS system\n", ["node:24-trixie-slim"]),
        ("FROM debian:trixie\n# FROM nginx:1.30\nRUN echo FROM nginx:1.30\n", []),
        ("FROM scratch\nCOPY --from=caf\udce9 / /\n", []),
    ],
)
def test_the_bases_that_a_dockerfile_builds_on_are_known(app: App, text: str, named: list[str]) -> None:
    app.dockerfile.write_text(text, errors="surrogateescape")
    assert bases_named(app.dockerfile) == named


def test_a_base_image_that_nobody_has_is_named() -> None:
    ends = ["------", " > [internal] load metadata for docker.io/library/python:3.99:", "------", "failed to solve: no such host"]
    error = failure("tidegate/blog:v1", Path("Dockerfile"), ends)
    assert "base image docker.io/library/python:3.99" in error.what
    assert (error.why, "docker load" in error.fix) == ("failed to solve: no such host", True)
    assert failure("tidegate/blog:v1", Path("Dockerfile"), ends[2:]).what == "building tidegate/blog:v1 failed"


@pytest.fixture
def built_app(app: App) -> Iterator[App]:
    """Return the app under a name of its own; its images go at the end."""
    mine = app.model_copy(
        update={"name": f"test-{hashlib.sha256(os.fsencode(app.context)).hexdigest()[:12]}", "keep_releases": 2}
    )
    yield mine
    engine = local_client().api
    for tag in images_of(mine):
        engine.remove_image(tag)


def images_of(app: App) -> list[str]:
    found = local_client().api.images(filters={"label": f"dev.tidegate.app={app.name}"})
    return [tag for image in found for tag in image["RepoTags"] or ()]


def build_it(app: App, version: str) -> list[str]:
    lines: list[str] = []
    build(app, read_source(app, version), local_client().api, lines.append)
    return lines


@pytest.mark.integration
@pytest.mark.parametrize("patterns", PATTERNS)
def test_no_image_holds_secrets_and_the_users_files_stay_as_they_are(built_app: App, patterns: str) -> None:
    import io
    import tarfile

    (built_app.context / ".dockerignore").write_text(patterns)
    hide(built_app)
    before = sorted(built_app.context.rglob("*"))
    build_it(built_app, "v1")
    assert sorted(built_app.context.rglob("*")) == before
    engine = local_client().api
    container = engine.create_container(image_name(built_app, "v1"), ["none"])["Id"]
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(engine.export(container)))) as files:
            names = {member.name for member in files if member.isfile()}
    finally:
        engine.remove_container(container)
    assert not names & set(SECRET)
    assert "src/main.py" in names
    assert ("README" in names) == ("README" not in patterns and "*\n!src" not in patterns)


@pytest.mark.integration
def test_a_build_is_told_when_its_commit_was_made(built_app: App) -> None:
    built_app.dockerfile.write_text("FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL epoch=${SOURCE_DATE_EPOCH}\nCOPY src /src\n")
    build_it(built_app, "v1")
    labels = local_client().api.inspect_image(image_name(built_app, "v1"))["Config"]["Labels"]
    assert labels["epoch"] == str(read_source(built_app, "v1").epoch)


@pytest.mark.integration
def test_the_newest_images_stay_and_older_ones_go(built_app: App) -> None:
    engine = local_client().api
    kept = built_app.keep_releases + SPARE
    for number in range(kept + 2):
        (built_app.context / "README").write_text(f"{number}")
        build_it(built_app, f"v{number}")
        name = image_name(built_app, f"v{number}")
        if number == 0:
            engine.tag(name, f"localhost:1/token/{image_name(built_app, '')[:-1]}", "v0")
    assert set(images_of(built_app)) == {image_name(built_app, f"v{number}") for number in range(2, kept + 2)}


@pytest.mark.integration
def test_output_that_is_no_text_does_no_harm_and_a_failing_build_says_why(built_app: App) -> None:
    built_app.dockerfile.write_text(f"FROM {DEBIAN}\nRUN printf 'caf\\351\\n'; exit 7\n")
    with pytest.raises(Failed) as caught:
        build_it(built_app, "v1")
    assert "caf\N{REPLACEMENT CHARACTER}" in caught.value.why
    assert caught.value.where == str(built_app.dockerfile)
    built_app.dockerfile.write_text("FROM localhost:1/none:such\n")
    with pytest.raises(Failed, match="base image localhost:1/none:such is not here"):
        build_it(built_app, "v2")


@pytest.mark.integration
def test_a_base_of_ours_that_is_missing_is_obtained_before_the_build(built_app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.bases.BASES", ("tidegate-none:1",))
    built_app.dockerfile.write_text("ARG BASE=tidegate-none:1\nFROM $BASE\n")
    with pytest.raises(Refused, match="cannot pull tidegate-none:1"):
        build_it(built_app, "v1")
