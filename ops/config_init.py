"""A first ops.toml for an app of one's own, and what keeps secrets out of its image and its repository."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ops.config_models import App
from ops.config_problems import ConfigProblems, from_pydantic
from ops.errors import ConfigError
from ops.program import called
from ops.templates import Template

_TEMPLATE = """\
# How {name} is built and where it runs. Every key and its meaning: ops.example.toml
# Check it with `inv config.check`, try it with `inv sandbox.up deploy`.

[app]
name = "{name}"
context = "."                     # folder the image is built from
dockerfile = "Dockerfile"
port = {port}                       # where the app listens inside its container
# environment = {{ LOG_LEVEL = "info" }}
# secrets = ["SECRET_KEY"]        # from the environment, .env.<environment> (mode 0600) or a command
# volumes = {{ data = "/app/data" }} # outlive every release
# memory = "512m"

[app.health]
path = "/health"                  # must answer 2xx before a new release gets requests

# [app.migrate]
# command = ["./manage", "migrate"]
# on = "first"                    # or "each", when each server has its own data

# [app.processes.worker]
# command = ["./manage", "worker"]

# [environments.production]
# domain = "{name}.example.com"
# hosts = ["deploy@203.0.113.10"] # then: inv server.trust -e production
# approve = true                  # ask before changing anything

# [notifications]
# urls = ["SLACK_URL"]            # names of secrets that hold Apprise URLs
"""

DEFAULT_PORT = 3000
_NOT_BUILT = (".git", ".tidegate", ".env", ".env.*", "ops.toml", "known_hosts")
_NOT_COMMITTED = (".tidegate/", ".env.*")


def write_new(path: Path, name: str, port: int = 0, template: Template | None = None) -> list[Path]:
    """Write a commented starter configuration, and a template's files beside it; return what was written.

    All or nothing: a wrong name or a file that is there already raises ConfigError before anything is written. Without
    a template a .dockerignore where there is none, and in a git repository the lines that .gitignore lacks.
    """
    if template and port not in (0, template.port):
        raise ConfigError(f"the template {template.name} listens on {template.port}", where="--port",
                          fix="leave it out; what listens where can be changed in the files afterwards")  # fmt: skip
    port = port or (template.port if template else DEFAULT_PORT)
    _check(name, port)
    files = {path: called(_TEMPLATE.format(name=name, port=port)).encode()}
    if template:
        files |= {path.with_name(one): content for one, content in template.files.items()}
    elif not os.path.lexists(ignore := path.with_name(".dockerignore")):
        files[ignore] = "".join(f"{line}\n" for line in _NOT_BUILT).encode()
    _create_all(files)
    try:
        _leave_out(path.with_name(".gitignore"))
    except ConfigError:
        for one in files:
            one.unlink()
        raise
    return list(files)


def _create_all(files: Mapping[Path, bytes]) -> None:
    """Write files that are not there yet; what was written goes again when one of them cannot be."""
    if there := next((path for path in files if os.path.lexists(path)), None):
        fix = f"edit it, or move it away: mv {there.name} {there.name}.old"
        raise ConfigError("exists already and is left as it is", where=str(there), fix=fix)
    written: list[Path] = []
    try:
        for path, content in files.items():
            with path.open("xb") as file:
                written.append(path)
                file.write(content)
    except OSError as error:
        for one in written:
            one.unlink()
        raise ConfigError("cannot be written", where=str(path), why=error.strerror or "") from None


def _leave_out(path: Path) -> None:
    """Append the lines that a .gitignore lacks; one through a link is not ours, and git does not follow it either."""
    if path.is_symlink() or not (path.exists() or _in_repository(path.parent)):
        return
    try:
        known = path.read_bytes() if path.exists() else b""
        lines = {line.strip().strip(b"/") for line in known.splitlines()}
        missing = [line.encode() for line in _NOT_COMMITTED if line.strip("/").encode() not in lines]
        with path.open("ab") as file:
            file.write(b"\n" if missing and known and not known.endswith(b"\n") else b"")
            file.writelines(line + b"\n" for line in missing)
    except OSError as error:
        raise ConfigError("cannot be written", where=str(path), why=error.strerror or "") from None


def _in_repository(folder: Path) -> bool:
    return any((one / ".git").exists() for one in (folder, *folder.parents))


def _check(name: str, port: int) -> None:
    try:
        App.model_validate({"name": name, "port": port})
    except ValidationError as error:
        errors = error.errors(include_url=False)
    else:
        return
    raise ConfigProblems(from_pydantic(errors, App, lambda loc: ("inv init", tuple(f"--{part}" for part in loc))))
