"""The wheel in an environment of its own, with what its lock names: the main job, in a folder that holds only an app."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo_project import remove_images
from deploy.sandbox import Sandbox
from ops import releasing, version
from tests.release.installed import ROOT, Program

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made from a git repository"),
]
OPS = """
[app]
name = "{name}"
context = "apps"
dockerfile = "apps/Dockerfile"
port = 3000
environment = {{ BEHAVIOUR = "healthy" }}
drain = {{ idle = "1s", grace = "2s" }}

[environments.sandbox]
domain = "shop.localhost"
"""


def environment(folder: Path) -> Path:
    """Make an empty environment; return its bin folder."""
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin"


def install(bin: Path, *what: str) -> None:
    uv = shutil.which("uv")
    command = (
        [uv, "pip", "install", "--quiet", "--python", str(bin / "python")] if uv else [str(bin / "pip"), "install", "--quiet"]
    )
    subprocess.run([*command, *what], check=True)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed as a release is."""
    bin = environment(tmp_path_factory.mktemp("installed") / "venv")
    install(bin, "--require-hashes", "-r", str(ROOT / "requirements/runtime.txt"))
    install(bin, "--no-deps", str(releasing.build(ROOT, tmp_path_factory.mktemp("built")).wheel))
    return bin / "tidegate"


@pytest.fixture(scope="module")
def shop(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The command in the folder of an app, which has a server."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(ROOT / "tests/apps", folder / "apps", ignore=shutil.ignore_patterns("__pycache__"))
    name = f"shop-{Sandbox(folder).id.partition('-')[0]}"
    (folder / "ops.toml").write_text(OPS.format(name=name))
    tidegate = Program((str(script),), folder)
    try:
        up = tidegate("sandbox.up")
        assert up.code == 0, up.err
        yield tidegate
    finally:
        down = tidegate("sandbox.down")
        remove_images(name)
    assert down.code == 0, down.err
    assert not list((folder / ".tidegate").rglob("id_*"))


def serving(shop: Program) -> str:
    """Return the release that answers."""
    (server,) = Sandbox(shop.folder).status()
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=5)
    try:
        connection.request("GET", "/version", headers={"Host": "shop.localhost"})
        return str(json.loads(connection.getresponse().read())["release"])
    finally:
        connection.close()


def test_it_is_installed_with_all_that_it_imports(script: Path, tmp_path: Path) -> None:
    tidegate = Program((str(script),), tmp_path)
    assert tidegate("--version").out.startswith(f"Tidegate {version.version()} from {script.parents[1].resolve()}")
    assert tidegate("--list").code == 0


def test_it_deploys_an_app_and_takes_the_deploy_back(shop: Program) -> None:
    assert shop("deploy").code == 0
    first = serving(shop)
    config = shop.folder / "ops.toml"
    config.write_text(config.read_text().replace('"healthy"', '"healthy", CHANGE = "one"'))
    assert shop("deploy").code == 0
    assert serving(shop) != first
    back = shop("deploy.rollback")
    assert (back.code, serving(shop)) == (0, first), back.err
    assert first in shop("deploy.status").out


def test_a_deploy_that_fails_is_undone_and_names_its_own_command(shop: Program) -> None:
    assert shop("deploy").code == 0
    before, config = serving(shop), shop.folder / "ops.toml"
    text = config.read_text()
    config.write_text(text.replace('"healthy"', '"crash"'))
    failed = shop("deploy")
    config.write_text(text)
    assert (failed.code, serving(shop)) == (1, before)
    assert "✗" in failed.err
    assert "inv " not in failed.err


def test_ctrl_c_ends_it_without_a_traceback(shop: Program) -> None:
    assert shop("deploy").code == 0
    command = [*shop.command, "deploy.logs", "--follow"]
    with subprocess.Popen(
        command, cwd=shop.folder, env=shop.environment(PYTHONUNBUFFERED="1"), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as follows:  # fmt: skip
        assert follows.stdout is not None
        assert follows.stdout.readline()
        os.killpg(follows.pid, signal.SIGINT)
        _, err = follows.communicate(timeout=30)
    assert (follows.returncode, err) == (1, "interrupted\n")
