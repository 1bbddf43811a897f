"""A first ops.toml for an app of one's own, and what keeps secrets out of its image and its repository."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ops.config_models import App
from ops.config_problems import ConfigProblems, from_pydantic
from ops.errors import ConfigError

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

_NOT_BUILT = (".git", ".tidegate", ".env", ".env.*", "ops.toml", "known_hosts")
_NOT_COMMITTED = (".tidegate/", ".env.*")


def write_new(path: Path, name: str, port: int) -> None:
    """Write a commented starter configuration; a wrong name or an existing file raises ConfigError.

    Beside it, a .dockerignore where there is none, and in a git repository the lines that .gitignore lacks.
    """
    text = _TEMPLATE.format(name=name, port=port)
    _check(name, port)
    if not _create(path, text):
        fix = f"edit it, or move it away: mv {path.name} {path.name}.old"
        raise ConfigError("exists already and is left as it is", where=str(path), fix=fix)
    _create(path.with_name(".dockerignore"), "".join(f"{line}\n" for line in _NOT_BUILT))
    _leave_out(path.with_name(".gitignore"))


def _create(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError("cannot be written", where=str(path), why=error.strerror or "") from None
    return True


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
