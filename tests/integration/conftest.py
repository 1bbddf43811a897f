"""Two servers for the whole run, with an edge each, and the apps that are deployed to them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.sandbox import Sandbox
from ops.this_machine import local_client
from tests.integration.project import REPOSITORY, App, Server, blog_configuration, shaky_configuration


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with copies of what the repository deploys."""
    root = tmp_path_factory.mktemp("project")
    for name, source in {"example": "example", "docker": "docker", "apps": "tests/apps"}.items():
        shutil.copytree(REPOSITORY / source, root / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    return root


@pytest.fixture(scope="session")
def tag(root: Path) -> Iterator[str]:
    """What keeps the names of this run's apps from those of others on this machine; its images go at the end."""
    tag = Sandbox(root).id.partition("-")[0]
    yield tag
    _remove_images(tag)


@pytest.fixture(scope="session")
def servers(root: Path, tag: str) -> Iterator[list[Server]]:
    first = App(root, [], blog_configuration(f"blog-{tag}"), "ops.toml")
    try:
        first.inv("sandbox.up", "--hosts", "2", timeout=400)
        yield [Server(known) for known in Sandbox(root).status()]
    finally:
        first.inv("sandbox.down")


def _remove_images(tag: str) -> None:
    api = local_client().api
    names = [name for image in api.images() for name in image["RepoTags"] or () if f"-{tag}:" in name]
    if names:
        subprocess.run(["docker", "rmi", *names], check=True, capture_output=True)


@pytest.fixture(scope="session")
def blog_app(root: Path, servers: list[Server], tag: str) -> App:
    return App(root, servers, blog_configuration(f"blog-{tag}"), "ops.toml")


@pytest.fixture
def blog(blog_app: App) -> App:
    """The bundled blog, serving, with its configuration and code as they come."""
    return _serving(blog_app, "example", REPOSITORY / "example")


@pytest.fixture(scope="session")
def shaky_app(root: Path, servers: list[Server], tag: str) -> App:
    return App(root, servers, shaky_configuration(f"shaky-{tag}"), "shaky.toml")


@pytest.fixture
def shaky(shaky_app: App) -> App:
    """The small app, serving and healthy."""
    return _serving(shaky_app, "apps", REPOSITORY / "tests/apps")


def _serving(app: App, folder: str, source: Path) -> App:
    app.with_code(folder, source)
    app.configure()
    app.go_home()
    return app
