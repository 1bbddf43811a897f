"""The checks that CI runs; `nox` runs all of them, `nox -s NAME -- ARGUMENTS` one of them, `nox -l` lists them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nox
from nox.project import dependency_groups, load_toml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "requirements"
GROUPS = ("nox", "lint", "types", "tests", "audit", "demo", "release", "dev")
APPLICATION = ("runtime", "types", "tests", "audit", "demo", "dev")  # these locks hold what Tidegate itself imports, too
COMPILE = ("uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version=3.11", "--no-header",
           "--no-emit-index-url", "--annotation-style=line", "--custom-compile-command=nox -s lock")  # fmt: skip
PYTHONS = nox.project.python_versions(load_toml(ROOT / "pyproject.toml"), max_version="3.14")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
MEASURED = (f"tests-{HERE}" if HERE in PYTHONS else f"tests-{PYTHONS[-1]}", "integration", "demo")
DATA = Path(".coverage-data")  # a folder per session that was measured
# After Ctrl-C a deploy undoes itself and servers are removed, which nox would cut short after half a second.
PATIENCE: dict[str, Any] = {"interrupt_timeout": 60.0, "terminate_timeout": 60.0}
WORKERS = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")  # most of the time is waited; longest files first
TOOLS = """
import os
import sys
from ops.this_machine import need
from ops.errors import TidegateError
try:
    need({"zstd": "zstd", "age": "age", "restic": "restic", "sshd": "openssh-server"}, print)
except TidegateError as error:
    if os.environ.get("CI"):
        sys.exit(f"this session needs them where CI is set: {error}")
    print(f"tests that need them are skipped: {error}")
"""
ENGINE = """
import sys
from ops.local_engine import ensure
from ops.errors import TidegateError
try:
    ensure(print)
except TidegateError as error:
    sys.exit(f"this session needs a Docker engine: {error}")
"""

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "never" if os.environ.get("CI") else "yes"
nox.options.error_on_missing_interpreters = False  # the others are skipped, which nox says; CI's matrix asks for each
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # tests sweep by label; its image needs a registry

if sys.version_info < (3, 11):  # noqa: UP036  # nox starts with the Python that it was installed for
    sys.exit(f"Tidegate needs Python 3.11 or newer, and nox runs on {sys.version.split()[0]}: install nox with a newer Python")


@nox.session(tags=["ci"])
def lint(session: nox.Session) -> None:
    """Check style, spelling, layering, Dockerfiles, nginx, shell, YAML, workflows and locks; arguments go to `ruff check` (--fix)."""
    _install(session, "lint")
    if problems := _lock_problems():
        session.error("requirements/ does not fit pyproject.toml, `nox -s lock` remakes it: " + "; ".join(problems))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--diff", "--quiet")
    session.run("codespell")
    session.run("lint-imports", "--no-cache")
    session.run("hadolint", *_files("docker/**/Dockerfile", "tests/**/Dockerfile"))
    session.run("shellcheck", *_files(".ci/run", "docker/**/*.sh", "tests/**/*.sh"))
    session.run("gixy", *_files("docker/**/nginx.conf", "docker/**/default.conf"))
    session.run("yamllint", "--strict", ".")
    session.run("zizmor", "--offline", "--strict-collection", "--persona=pedantic", "--no-progress", ".github")
    session.run("actionlint", "-no-color")


@nox.session(tags=["ci"])
def types(session: nox.Session) -> None:
    """Check types, strictly; arguments go to mypy."""
    _install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHONS, tags=["ci"])
def tests(session: nox.Session) -> None:
    """Run the tests that need no engine, on each Python that is present; arguments go to pytest."""
    _install(session, "tests")
    session.run("python", "-c", TOOLS)
    _pytest(session, "-m", "not integration and not slow", "--ignore=tests/docs")


@nox.session(tags=["ci"])
def docs(session: nox.Session) -> None:
    """Check every command, code block, link and example in the documents and docstrings; arguments go to pytest."""
    _install(session, "tests")
    _install(session, "lint")  # shellcheck judges commands in documents
    session.run("pytest", "-m", "not integration and not slow", "tests/docs", *session.posargs)


@nox.session(tags=["ci"])
def integration(session: nox.Session) -> None:
    """Run the tests on real servers, for which a Docker engine is made ready; arguments go to pytest."""
    _install(session, "tests")
    session.run("python", "-c", ENGINE)
    _pytest(session, "-m", "integration and not slow", **PATIENCE)


@nox.session(tags=["ci"])
def demo(session: nox.Session) -> None:
    """Show the main job: servers start, versions are swapped under load, one fails, one is rolled back."""
    _install(session, "demo")
    session.run(*_measured(session), "-m", "deploy.demo", *session.posargs, **PATIENCE)


@nox.session(tags=["ci"], requires=[] if "TIDEGATE_COVERAGE_DATA" in os.environ else MEASURED)
def coverage(session: nox.Session) -> None:
    """Say how much of our packages the tests run, by line and branch; fails under a floor that only rises.

    The data of the sessions that were measured is taken from .coverage-data/; with TIDEGATE_COVERAGE_DATA set, as where CI
    brings it there from other machines, those sessions are not run first.
    """
    _install(session, "tests")
    if lowered := _lowered_floor(session):
        session.error(lowered)
    found = {name: sorted(map(str, (DATA / name).glob("run.*"))) for name in MEASURED}  # others' may be of older files
    if lacking := [name for name, files in found.items() if not files]:
        session.error(f"{DATA}/ lacks what {' and '.join(lacking)} ran: nox -s {' '.join(lacking)}")
    _combine(session, ".coverage-integration", found["integration"])
    _combine(session, ".coverage", [file for files in found.values() for file in files])
    session.log("integration alone covers, in %:")
    session.run("coverage", "report", "--format=total", "--fail-under=0", "--data-file=.coverage-integration")
    session.run("coverage", "html", "--quiet", "--fail-under=0")
    session.run("coverage", "xml", "--quiet", "--fail-under=0")
    _summarise(session)
    session.run("coverage", "report", "--precision=2")


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in the locks of Tidegate and the example; needs the network, or `-- --offline DIR`."""
    _install(session, "audit")
    session.run("python", "-m", "deploy.audit", ".", "example", *session.posargs)


@nox.session(default=False)
def images(session: nox.Session) -> None:
    """Build every image twice and try it: templates, the example, its development Compose file; arguments go to pytest."""
    _install(session, "tests")
    session.run("python", "-c", ENGINE)
    files = [
        f"tests/integration/test_{name}.py"
        for name in ("templates", "example_image", "compose_dev", "bench_images", "image_scan")
    ]
    session.run("pytest", *files, *session.posargs, **PATIENCE)


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """Run jobs of the workflows in a container, on the files as they stand; arguments: --job WORKFLOW.JOB, --session NAME."""
    _install(session, "tests")
    session.run("python", "-c", ENGINE)
    session.run("python", "-m", "tests.workflows", *session.posargs, **PATIENCE)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Run what takes long: more faults, on real servers and second stores; arguments go to pytest."""
    _install(session, "tests")
    session.run("python", "-c", TOOLS)
    session.run("python", "-c", ENGINE)
    session.run("pytest", "-m", "slow", *session.posargs, **PATIENCE)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure deploys and rollbacks by phase, on loopback and on a slow line."""
    _install(session, "runtime")
    session.run("python", "-m", "deploy.bench", *session.posargs, **PATIENCE)


@nox.session(default=False)
def bench_backups(session: nox.Session) -> None:
    """Measure backups beside the same by hand; needs root, as which they run on servers."""
    _install(session, "runtime")
    session.run("python", "-c", ENGINE)
    session.run("python", "-c", "from ops.bases import ensure_base; ensure_base('postgres:17', print)")
    session.run("python", "-m", "backup.bench", *session.posargs, **PATIENCE)


@nox.session(default=False)
def bench_images(session: nox.Session) -> None:
    """Compare our images with those of naive Dockerfiles: size, rebuild, packages; writes the table of docs/images.md."""
    _install(session, "runtime")
    session.run("python", "-c", ENGINE)
    session.run("python", "-m", "deploy.bench_images", *session.posargs, **PATIENCE)


@nox.session(default=False)
def bench_monitoring(session: nox.Session) -> None:
    """Measure how soon an environment is watched, what that costs its servers, and how soon an alert arrives."""
    _install(session, "runtime")
    session.run("python", "-c", ENGINE)
    session.run("python", "-m", "monitoring.bench", *session.posargs, **PATIENCE)


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """Make a release's files and do the main job with them; `-- --draft` needs no tag, `-- --notes VERSION` writes CHANGELOG.md."""
    _install(session, "tests")
    session.run("python", "-m", "ops.releasing", *session.posargs)
    if "--notes" not in session.posargs:
        session.run("python", "-c", ENGINE)
        session.run("pytest", "-m", "slow", "tests/release", **PATIENCE)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Remake requirements/ from pyproject.toml; arguments go to uv (--upgrade)."""
    session.install("uv>=0.8")
    project = ("pyproject.toml",)
    _compile(session, "dev", *project, "--group=dev", *session.posargs)
    for name in ("runtime", *GROUPS):
        if name == "dev":
            continue
        sources = project if name in APPLICATION else ()
        groups = () if name == "runtime" else (f"--group={name}",)
        _compile(session, name, *sources, *groups, "--constraints=requirements/dev.txt", "--no-annotate", *session.posargs)


def _install(session: nox.Session, name: str) -> None:
    """Install exactly what a lock holds, by uv or by pip."""
    session.install("--require-hashes", "-r", f"requirements/{name}.txt")


def _pytest(session: nox.Session, *arguments: str, **options: Any) -> None:
    session.run(*_measured(session), "-m", "pytest", *WORKERS, *arguments, *session.posargs, **options)


def _measured(session: nox.Session) -> tuple[str, ...]:
    """Return a Python that keeps, in a folder of the session, which lines and branches ran, in programs that it starts too."""
    folder = DATA / session.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return ("coverage", "run", f"--data-file={folder.resolve() / 'run'}")


def _combine(session: nox.Session, data: str, files: Sequence[str]) -> None:
    session.run("coverage", "combine", "--quiet", "--keep", f"--data-file={data}", *files, log=False)


def _lowered_floor(session: nox.Session) -> str:
    """Compare the floor of coverage with all that were committed before; says what is wrong."""
    floors = [float(found) for found in re.findall(r"^\+fail_under = ([\d.]+)", str(
        session.run("git", "log", "-p", "--format=", "--", "pyproject.toml", external=True, silent=True)), re.MULTILINE)]  # fmt: skip
    now = float(load_toml(ROOT / "pyproject.toml")["tool"]["coverage"]["report"]["fail_under"])
    highest = max(floors, default=now)
    return f"the floor of coverage only rises: fail_under is {now:g} and was {highest:g}" if now < highest else ""


def _summarise(session: nox.Session) -> None:
    """Show the table on the page of a job, where there is one."""
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        table = session.run("coverage", "report", "--format=markdown", "--fail-under=0", silent=True)
        with Path(page).open("a") as file:
            file.write(f"## Coverage\n\n{table}\n")


def _compile(session: nox.Session, name: str, *arguments: str) -> None:
    session.run(*COMPILE, *arguments, f"--output-file=requirements/{name}.txt", silent=True)


def _files(*patterns: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def _lock_problems() -> list[str]:
    """Say, without the network, which requirement a lock does not meet and where locks contradict each other."""
    project = load_toml(ROOT / "pyproject.toml")
    everything = _pins("dev")
    problems = []
    for name in ("runtime", *GROUPS):
        pins = _pins(name)
        wanted = list(project["project"]["dependencies"]) if name in APPLICATION else []
        wanted += dependency_groups(project, name) if name in GROUPS else []
        problems += [f"{name}.txt lacks {one}" for one in wanted if not _meets(pins, Requirement(one))]
        problems += [f"{name}.txt and dev.txt differ in {one}" for one in pins if pins[one] != everything.get(one)]
    return problems


def _pins(name: str) -> dict[str, str]:
    """Read the version of each package in a lock."""
    file = REQUIREMENTS / f"{name}.txt"
    text = file.read_text() if file.is_file() else ""
    return {canonicalize_name(package): version for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)}


def _meets(pins: dict[str, str], requirement: Requirement) -> bool:
    version = pins.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)
