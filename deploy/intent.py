"""What is wanted, gathered from the command line, ops.toml, the secrets and the files to build."""

from __future__ import annotations

import hashlib
import json
import secrets as randomness
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from deploy import image as images
from deploy.apply import Reporter
from deploy.images import bills
from deploy.model import ImageRef, Intent, Pem
from ops.config import App, Environment
from ops.errors import Refused
from ops.local_engine import ensure
from ops.secret import Secret
from ops.secrets import resolve_secrets
from ops.this_machine import local_client
from ops.who import who


class Progress(Reporter, Protocol):
    """A reporter that also shows a build's output and bytes on their way."""

    def build(self, line: str) -> None:
        """A line of the build's output."""

    def bytes(self, server: str, done: int, total: int) -> None:
        """Bytes of the image that a server has received."""


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    version: str | None = None
    to: str | None = None
    dry_run: bool = False
    force: bool = False
    skip_backup: bool = False


def make_intent(env: Environment, options: Options, environ: Mapping[str, str], reporter: Progress) -> Intent:
    """Resolve the secrets and build the image; on a dry run nothing is built. Raises ConfigError, Refused, Failed."""
    app = env.app
    values: dict[str, str | Secret] = {**app.environment, **resolve_secrets(env, app.secrets, environ)}
    extra = app.edge.include.read_text() if app.edge.include else ""
    pem = _pem(env, environ)
    began = time.monotonic()
    image = _image(app, options, reporter)
    return Intent(
        image=image,
        environment=values,
        config_hash=_digest(_what_runs(env, extra, pem)),
        environment_hash=_digest({key: _plain(value) for key, value in values.items()}),
        edge_extra=extra,
        pem=pem,
        nonce=randomness.token_hex(8),
        now=datetime.now(UTC),
        by=who(),
        force=options.force,
        skip_backup=options.skip_backup,
        build_seconds=time.monotonic() - began,
        bill=bills.known(env.project_root, image.id),
    )


def _image(app: App, options: Options, reporter: Progress) -> ImageRef:
    if app.image is not None:
        if options.version is None:
            raise Refused("say which version to deploy", where=app.image, fix="inv deploy --version TAG")
        return ImageRef(images.image_name(app, options.version), options.version, "", pull=True)
    source = images.read_source(app, options.version)
    if options.dry_run:
        return ImageRef(images.image_name(app, source.version), source.version, source.content)
    began = time.monotonic()
    ensure(reporter.note)
    reporter.phase("build")
    built = images.build(app, source, local_client().api, reporter.build)
    reporter.phase_done("build", time.monotonic() - began)
    return built


def _pem(env: Environment, environ: Mapping[str, str]) -> Pem | None:
    if env.tls is None:
        return None
    key = resolve_secrets(env, (env.tls.key,), environ)[env.tls.key].reveal()
    text = f"{env.tls.certificate.read_text().strip()}\n{key.strip()}\n"
    return Pem(f"{env.app.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pem", Secret(text))


def _what_runs(env: Environment, extra: str, pem: Pem | None) -> dict[str, Any]:
    left_out = {"name", "context", "dockerfile", "keep_releases", "prober", "migrate", "environment", "backup", "services",
                "objectives"}  # fmt: skip
    app = env.app.model_dump(mode="json", exclude=left_out)
    return {"app": app, "domains": env.domains, "pem": pem.name if pem else None, "extra": extra}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value
