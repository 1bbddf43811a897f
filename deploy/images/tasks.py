"""What people type about images. Heavy imports wait until a task needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit, task

from ops.menu import ENV, JSON, VERBOSE, opened, project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import APIClient

    from deploy.image import Source
    from deploy.model import ImageRef
    from ops.config import App, Project
    from ops.console import Console

PATIENCE = 600  # seconds until the engine begins to hand out a large image
VERSION = {"version": "what to call it (default: YYYYMMDD-shortsha of the commit)"}
IMAGE = {"image": "look at this image of this machine's engine, whatever ops.toml says"}


@task(help={**ENV, **VERBOSE, **JSON, **VERSION})
def build(c: Context, env: str = "sandbox", version: str = "", verbose: bool = True, json: bool = False) -> None:
    """Build the app's image."""
    with opened(json=json) as console:
        built, source = _built(console, _app(project(), env), version, verbose=verbose)
        console.say(f"{built.name}: {built.size / 1e6:.0f} MB", "green")
        console.document({"image": built.name, "id": built.id, "version": built.version, "bytes": built.size,
                          "content": source.content, "revision": source.revision})  # fmt: skip


@task(help={**ENV, **JSON, **VERSION, "folder": "where to"})
def save(c: Context, folder: str, env: str = "sandbox", version: str = "", json: bool = False) -> None:
    """Build the app's image and write it into a folder, for another machine to load."""
    with opened(json=json) as console:
        from deploy import image_archive
        from deploy.images import bills

        here = project()
        built, _ = _built(console, _app(here, env), version, verbose=False)
        known = image_archive.save(built, Path(folder), _engine(), image_archive.run_of(os.environ))
        bills.give(here.root, built.id, Path(folder))
        image_archive.tell_job(known, os.environ)
        console.say(f"{known.name} is in {folder}", "green")
        console.document(vars(known))


@task(help={**JSON, "folder": "where inv docker.save put it"})
def load(c: Context, folder: str, json: bool = False) -> None:
    """Put the image of a folder on this machine's engine: a deploy of its version then builds nothing."""
    with opened(json=json) as console:
        from deploy import image_archive
        from deploy.images import bills
        from deploy.images.layers import image_id
        from ops import local_engine

        local_engine.ensure(console.say)
        here = project()
        known = image_archive.load(Path(folder), _engine(), [_app(here, env) for env in ("", *here.environments)])
        bills.take(here.root, image_id(_engine(), known.name), Path(folder))
        image_archive.tell_job(known, os.environ)
        console.say(f"{known.name} is here" + (f", built by {known.run}" if known.run else ""), "green")
        console.document(vars(known))


@task(help={**ENV, **JSON, "file": "a Dockerfile (default: the app's); may be given several times"}, iterable=["file"])
def lint(c: Context, file: list[str], env: str = "sandbox", json: bool = False) -> None:
    """Check Dockerfiles: by hadolint, and for what hurts a deploy; exit code 1 on findings."""
    with opened(json=json) as console:
        from deploy.images import lint as linting
        from deploy.images import show

        if file:
            targets = {one: linting.setting_of(one, one.parent, health=False) for one in map(Path, file)}
        else:
            app = _app(project(), env)
            health = "health" in app.model_fields_set
            targets = {_shown(app.dockerfile): linting.setting_of(app.dockerfile, app.context, health=health)}
        program = linting.hadolint()
        found = [one for path, setting in targets.items() for one in linting.lint(path, setting)]
        found += linting.ask_hadolint(program, list(targets)) if program else []
        show.mistakes(console, found)
        if program is None:
            console.say(f"hadolint is not installed, so its rules were not checked: {linting.INSTALL}", "yellow")
        console.document({"findings": [vars(one) for one in found], "hadolint": program is not None})
        if found:
            raise Exit(f"✗ {len(found)} findings", 1)
        console.say(f"nothing to find in {', '.join(map(str, targets))}", "green")


@task(help={**ENV, **JSON, **VERSION, **IMAGE})
def size(c: Context, env: str = "sandbox", version: str = "", image: str = "", json: bool = False) -> None:
    """Show how large the image travels, layer by layer; exit code 1 over the budget of budgets.toml beside the Dockerfile."""
    with opened(json=json) as console:
        from deploy.images import show
        from deploy.images import size as sizes
        from deploy.images.layers import opened_image

        known = project()
        app = _app(known, env)
        name, _ = _wanted(console, app, version, image)
        with opened_image(name, known.root, _engine()) as found:
            measured = sizes.size(found, None if image else sizes.budget_of(app.dockerfile, app.name))
        show.size(console, measured)
        console.document(measured.document())
        if measured.over:
            raise Exit(f"✗ {name} is over its budget\n  next:  {measured.advice}", 1)


@task(help={**ENV, **JSON, **VERSION, **IMAGE, "sbom": "write the bill of materials to this file as well",
            "without-vulnerabilities": "do not look for known vulnerabilities"})  # fmt: skip
def scan(
    c: Context, env: str = "sandbox", version: str = "", image: str = "", sbom: str = "", without_vulnerabilities: bool = False,
    json: bool = False,
) -> None:  # fmt: skip
    """Look for secrets in every layer and for known vulnerabilities, and write the bill of materials; exit code 1 on findings."""
    with opened(json=json) as console:
        from datetime import UTC, datetime

        from deploy.images import bills, show, vulnerabilities
        from deploy.images import scan as scanning
        from deploy.images.layers import opened_image

        known = project()
        today = datetime.now(UTC).date()
        name, source = _wanted(console, _app(known, env), version, image)
        with opened_image(name, known.root, _engine()) as found:
            report = scanning.scan(found, known.root, today, _epoch(source, found.config))
        kept = bills.keep(known.root, report.id, report.bill)
        if sbom:
            _write(Path(sbom), report.bill)
        console.say(f"{len(report.packages)} packages; bill of materials: {_shown(kept)}")
        show.secrets(console, report)
        if not without_vulnerabilities and not report.secrets:
            report = scanning.with_vulnerabilities(report, known.root, today, vulnerabilities.ask)
        show.vulnerabilities(console, report)
        console.document(report.document())
        if report.exit_code:
            raise Exit(f"✗ {name} is not to be shipped", report.exit_code)
        verdict = "no secret is in" if report.vulnerabilities is None else "nothing speaks against"
        console.say(f"{verdict} {name}", "green")


def _write(file: Path, text: str) -> None:
    from ops.errors import ConfigError

    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written", where="--sbom", why=error.strerror or "") from None


def _epoch(source: Source | None, config: Mapping[str, Any]) -> int:
    """Return the time of the commit, else of the image, else 1970: a bill of materials made twice is the same."""
    from datetime import datetime

    from ops.errors import ConfigError

    if told := os.environ.get("SOURCE_DATE_EPOCH", ""):
        if not told.isdecimal():
            raise ConfigError(f"{told!r} is no time", where="SOURCE_DATE_EPOCH", fix="seconds since 1970, or leave it out")
        return int(told)
    if source:
        return source.epoch
    return int(datetime.fromisoformat(f"{(config.get('created') or '1970-01-01T00:00:00')[:19]}+00:00").timestamp())


@task(help={**ENV, **JSON, "get": "have the base images here: pulled where they can be, else built from Debian's packages",
            "strict": "exit code 1 when one is old or its tag has moved, 3 when that cannot be told"})  # fmt: skip
def bases(c: Context, env: str = "sandbox", get: bool = False, strict: bool = False, json: bool = False) -> None:
    """Show the base images of the Dockerfile: how old, and whether their registries have newer ones."""
    with opened(json=json) as console:
        if get:
            return _get(console)
        from datetime import UTC, datetime

        from deploy.images import bases as looking
        from deploy.images import show
        from ops import local_engine
        from ops.this_machine import local_client

        local_engine.ensure(console.say)
        now = datetime.now(UTC)
        found = looking.report(_app(project(), env).dockerfile, local_client(timeout=looking.PATIENCE).api)
        show.bases(console, found, now)
        console.document([one.document(now) for one in found])
        if strict and (code := looking.verdict(found, now)):
            raise Exit("✗ a base image is not what it should be, or cannot be judged", code)


def _get(console: Console) -> None:
    from ops import bases, local_engine

    local_engine.ensure(console.say)
    for name in bases.BASES:
        bases.ensure_base(name, console.say)
        console.say(f"{name} is there", "green")
    console.document(list(bases.BASES))


def _app(known: Project, env: str) -> App:
    return known.environment(env).app if env in known.environments else known.app


def _engine() -> APIClient:
    from ops.this_machine import local_client

    return local_client(timeout=PATIENCE).api


def _built(console: Console, app: App, version: str, *, verbose: bool) -> tuple[ImageRef, Source]:
    from deploy import image, show
    from ops import local_engine

    source = image.read_source(app, version or None)
    local_engine.ensure(console.say)
    return image.build(app, source, _engine(), show.Printer(console, verbose=verbose).build), source


def _wanted(console: Console, app: App, version: str, image: str) -> tuple[str, Source | None]:
    """Return the image to look at: the one named, the app's of a registry, else the app's as it is built."""
    from deploy.image import image_name
    from ops import local_engine
    from ops.errors import ConfigError

    if image or app.image:
        local_engine.ensure(console.say)
        if not (image or version):
            raise ConfigError("say which version to look at", where=app.image or "", fix="--version TAG")
        return image or image_name(app, version), None
    built, source = _built(console, app, version, verbose=False)
    return built.name, source


def _shown(path: Path) -> Path:
    """Write a path as people would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


TASKS = (build, save, load, lint, size, scan, bases)
