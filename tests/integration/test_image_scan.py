"""Images as this machine's engine has them: the example is clean, what somebody copied and deleted again is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.images import bills
from deploy.intent import Options, make_intent
from ops.build_client import build_cli, build_environment
from ops.config import load
from ops.this_machine import local_client
from tests.deploy.images.test_release import Reporting
from tests.deploy.images.test_secret_rules import TOKENS, pem

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = """
[app]
name = "{name}"
context = "example"
dockerfile = "docker/Dockerfile"
port = 3000
[environments.production]
domain = "blog.example.com"
hosts = ["deploy@203.0.113.10"]
"""
DELETES = "import os, shutil; os.remove('/app/.env'); os.remove('/etc/tls.key'); shutil.rmtree('/app/.git')"
PLANTED = f"""
FROM {{base}}
USER 0
COPY secrets/env /app/.env
COPY secrets/key /etc/tls.key
COPY secrets/git /app/.git
COPY secrets/settings.py /app/settings.py
RUN ["/usr/bin/python3", "-c", "{DELETES}"]
ENV API_TOKEN=hunter2hunter2
USER 10001:10001
"""


@dataclass(frozen=True)
class Project:
    """A project folder and its image."""

    root: Path
    name: str
    cache: Path

    def inv(self, *words: str, code: int = 0, path: str = "") -> str:
        """Type a command; return what it prints for scripts. Fails when it ends otherwise than expected."""
        command = [sys.executable, "-m", "invoke", "-r", str(REPOSITORY), *words]
        paths = os.pathsep.join(filter(None, (path, os.environ["PATH"])))
        mine = {**os.environ, "PATH": paths, "XDG_CACHE_HOME": str(self.cache)}
        done = subprocess.run(command, cwd=self.root, env=mine, text=True, capture_output=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        assert "hunter2" not in done.stdout + done.stderr
        return done.stdout

    def document(self, *words: str, code: int = 0) -> Any:
        """Type a command and read its JSON document."""
        return json.loads(self.inv(*words, "--json", code=code))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("scanned")
    name = f"scan-{uuid.uuid4().hex[:6]}"
    (root / "ops.toml").write_text(CONFIGURATION.format(name=name))
    for folder in ("example", "docker"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "bases", "templates"))
    yield Project(root, name, tmp_path_factory.mktemp("cache"))
    for tag in ("v1", "planted"):
        subprocess.run(["docker", "rmi", f"tidegate/{name}:{tag}"], capture_output=True)


@pytest.fixture(scope="module")
def built(project: Project) -> str:
    return str(project.document("docker.build", "--version", "v1", "--no-verbose")["image"])


def test_the_example_is_clean_and_its_bill_of_materials_goes_with_the_next_deploy(project: Project, built: str) -> None:
    found = project.document("docker.scan", "--version", "v1", "--without-vulnerabilities", "--sbom", "bill.json")
    assert (found["secrets"], found["clean"], found["notes"]) == ([], None, ["known vulnerabilities were not looked for"])
    text = (project.root / "bill.json").read_text()
    assert {"libc6", "starlette"} <= {one["name"] for one in json.loads(text)["components"]}
    assert bills.known(project.root, found["id"]) == text
    env = load(project.root / "ops.toml", {}).environment("production")
    wanted = make_intent(env, Options(version="v1"), {}, Reporting())
    assert (wanted.image.name, wanted.bill) == (built, text)


def test_what_was_copied_and_deleted_again_is_found_where_it_was(project: Project, built: str) -> None:
    secrets = project.root / "secrets"
    (secrets / "git").mkdir(parents=True)
    (secrets / "env").write_text("SECRET_KEY=hunter2hunter2\n")
    (secrets / "key").write_text(pem())
    (secrets / "git/config").write_text("[core]\n")
    (secrets / "settings.py").write_text(f"DEBUG = False\nTOKEN = '{TOKENS['GitHub token']}'\n")
    (project.root / "planted").write_text(PLANTED.format(base=built))
    image = f"tidegate/{project.name}:planted"
    command = [*build_cli(), "build", "-q", "-t", image, "-f", "planted", "."]
    subprocess.run(command, cwd=project.root, env=build_environment(), check=True, capture_output=True)
    found = project.document("docker.scan", "--image", image, "--without-vulnerabilities", code=1)
    assert [(one["path"], one["kind"], one["line"], one["deleted"]) for one in found["secrets"]] == [
        ("app/.env", "environment file", 1, True),
        ("etc/tls.key", "private key", 1, True),
        ("app/.git", ".git folder", 0, True),
        ("app/settings.py", "GitHub token", 2, False),
        ("environment API_TOKEN", "value of API_TOKEN", 0, False),
    ]
    assert found["secrets"][0]["instruction"].startswith("COPY secrets/env /app/.env")


def test_known_vulnerabilities_are_asked_of_the_scanner_that_is_there(project: Project, built: str, tmp_path: Path) -> None:
    flaw = {
        "VulnerabilityID": "CVE-2026-0002",
        "PkgName": "libc6",
        "InstalledVersion": "1",
        "FixedVersion": "2",
        "Severity": "HIGH",
    }
    report = {"SchemaVersion": 2, "Results": [{"Vulnerabilities": [flaw]}]}
    (tmp_path / "trivy").write_text(f"#!/bin/sh\necho '{json.dumps(report)}'\n")
    (tmp_path / "trivy").chmod(0o755)
    assert "CVE-2026-0002" in project.inv("docker.scan", "--version", "v1", code=1, path=str(tmp_path))


def test_the_size_that_travels_is_held_against_the_budget(project: Project, built: str) -> None:
    (project.root / "docker/budgets.toml").write_text(f"[{project.name}]\ncompressed_mb = 1\n")
    found = project.document("docker.size", "--version", "v1", code=1)
    assert (found["exact"], found["over"], found["budget_bytes"]) == (True, True, 1_000_000)
    assert found["compressed_bytes"] == sum(layer["bytes"] for layer in found["layers"])


def test_the_dockerfile_is_linted_and_its_bases_are_told(project: Project) -> None:
    assert project.document("docker.lint")["findings"] == []
    (project.root / "wrong").write_text("FROM debian:trixie-slim\nUSER root\n")
    assert "wrong:2: root:" in project.inv("docker.lint", "--file", "wrong", code=1)
    (base,) = project.document("docker.bases")
    assert (base["name"], base["present"], base["pinned"]) == ("debian:trixie-slim", True, "")
    assert base["drift"] is not None or base["remarks"]


def test_an_image_is_saved_for_another_machine_and_loaded_there_with_its_bill(project: Project, built: str) -> None:
    id = local_client().api.inspect_image(built)["Id"]
    bills.keep(project.root, id, "its bill")
    assert project.document("docker.save", "handed", "--version", "v1")["name"] == built
    shutil.rmtree(project.root / ".tidegate")
    assert project.document("docker.load", "handed")["version"] == "v1"
    assert bills.known(project.root, id) == "its bill"


def test_a_template_begins_a_project(project: Project) -> None:
    (project.root / "new").mkdir()
    new = Project(project.root / "new", "new", project.cache)
    assert "static" in new.inv("init", "--list")
    names = {Path(one).name for one in new.document("init", "--name", "shop", "--template", "static")}
    assert {"ops.toml", "Dockerfile", "Dockerfile.dockerignore"} <= names == {path.name for path in new.root.iterdir()}
    new.inv("config.check")
    assert project.document("docker.bases", "--get") == ["debian:trixie-slim", "nginx:1.30"]
