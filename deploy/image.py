"""The app's image: its version, the fingerprint of what it is built from, and the build."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.model import ImageRef
from ops.build_client import NEVER, build_cli, build_environment, build_options, ignore_patterns, staged
from ops.config import App
from ops.errors import ConfigError, Failed, Refused
from ops.names import LABEL_APP, LABEL_CONTENT, LABEL_MANAGED, LABEL_VERSION

if TYPE_CHECKING:
    from docker import APIClient

VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
TAIL = 40
SPARE = 5
_NAMED = re.compile(
    r"^\s*(?:FROM\s+(?:--\S+\s+)*|ARG\s+\w+=)[\"']?(?:docker\.io/)?(?:library/)?([^\s\"']+)", re.IGNORECASE | re.MULTILINE
)
_UNRESOLVED = re.compile(r"\s*> \[internal\] load metadata for (\S+?):?$")
_UNSEEN = tuple(f":(exclude,glob)**/{name}{below}" for name in NEVER for below in ("", "/**"))

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """What an image is built from: a version to call it, the commit, its time, and the fingerprint of the files."""

    version: str
    revision: str
    created: str
    epoch: int
    content: str


def read_source(app: App, version: str | None) -> Source:
    """Look at the files and at git; the version is `YYYYMMDD-shortsha` of the commit when none is given.

    Files that differ from the commit make it `…-dirty-` and six digits of the fingerprint, so that a version never
    means two things. Raises ConfigError for a version that cannot be an image's tag.
    """
    if version is not None and not VERSION.fullmatch(version):
        raise ConfigError(f"{version!r} cannot be a version", where="--version",
                          why="an image's tag has up to 100 letters, digits, '.', '_' and '-', and begins with no '.' or '-'")  # fmt: skip
    content = fingerprint(app)
    commit = _git(app.context, "log", "-1", "--format=%H %ct")
    if commit:
        revision, _, stamp = commit.partition(" ")
        epoch = int(stamp)
        day = datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%d")
        changed = _changed(app.context, app.context) or _changed(app.dockerfile.parent, app.dockerfile)
        found = f"{day}-{revision[:7]}" + (f"-dirty-{content[:6]}" if changed else "")
    else:
        newest = max((path.stat().st_mtime for path in _files(app)), default=0.0)
        revision, epoch = "unknown", int(newest)
        found = f"{datetime.fromtimestamp(epoch, UTC).strftime('%Y%m%d')}-{content[:7]}"
    return Source(version or found, revision, datetime.fromtimestamp(epoch, UTC).isoformat(), epoch, content)


def fingerprint(app: App) -> str:
    """Return a SHA-256 over the names and bytes of all that the build can see, and whether each is a program."""
    total = hashlib.sha256()
    for path in sorted(_files(app)):
        name = path.relative_to(app.context) if path.is_relative_to(app.context) else path.name
        total.update(os.fsencode(name) + b"\0")
        total.update(f"{_kind(path)}\0".encode())
        if path.is_symlink():
            total.update(os.fsencode(os.readlink(path)))  # noqa: PTH115  # its very bytes, not what Path makes of them
        else:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _kind(path: Path) -> str:
    """Tell as much of a mode as git does: the rest is the umask of whoever checked it out."""
    if path.is_symlink():
        return "120777"
    return "100755" if path.stat().st_mode & 0o100 else "100644"


def _files(app: App) -> Iterator[Path]:
    import ops.engine  # noqa: F401  # it loads the SDK without what takes long

    from docker.utils.build import exclude_paths  # isort: skip

    patterns = ignore_patterns(app.context, app.dockerfile)
    found = (app.context / name for name in exclude_paths(str(app.context), patterns))
    yield from (path for path in found if path.is_symlink() or path.is_file())
    yield app.dockerfile


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""  # without git, as without a repository, the content names the version
    return done.stdout.strip() if done.returncode == 0 else ""


def _changed(folder: Path, path: Path) -> bool:
    """Tell whether git sees a change at a path; asked for one at a time, since git refuses one outside of a repository."""
    return bool(_git(folder, "status", "--porcelain", "--", str(path), *_UNSEEN))


def image_name(app: App, version: str) -> str:
    """Return the image's name on every engine."""
    return f"{app.image or f'tidegate/{app.name}'}:{version}"


def build(app: App, source: Source, engine: APIClient, say: Say) -> ImageRef:
    """Build the image unless this very content has been built under this version. Raises Refused, Failed."""
    name = image_name(app, source.version)
    known = _inspect(engine, name)
    if known:
        labels = known["Config"]["Labels"] or {}
        if labels.get(LABEL_CONTENT) != source.content:
            raise Refused(f"version {source.version} was already built from other content", where=name,
                          fix="choose another --version, commit, or let .dockerignore leave out what git ignores")  # fmt: skip
        say(f"{name} is built already")
    else:
        _need_bases(app.dockerfile, engine, say)
        _run_build(app, source, name, say)
        known = engine.inspect_image(name)
        _remove_old(app, name, engine, say)
    volumes = tuple(known["Config"].get("Volumes") or ())
    return ImageRef(name, source.version, source.content, int(known["Size"]), volumes=volumes, id=known["Id"])


def _inspect(engine: APIClient, name: str) -> dict[str, Any] | None:
    from ops import engine as sdk

    try:
        found: dict[str, Any] = engine.inspect_image(name)
    except sdk.NotFound:
        return None
    return found


def bases_named(dockerfile: Path) -> list[str]:
    """Return those of our base images that a Dockerfile builds on, by name or as an argument's default."""
    from ops.bases import BASES, TEMPLATES

    named = set(_NAMED.findall(dockerfile.read_text(errors="replace")))
    return [name for name in (*BASES, *TEMPLATES) if name in named]


def _need_bases(dockerfile: Path, engine: APIClient, say: Say) -> None:
    for name in bases_named(dockerfile):
        if _inspect(engine, name) is None:
            from ops.bases import ensure_base

            ensure_base(name, say)


def _run_build(app: App, source: Source, name: str, say: Say) -> None:
    with staged(app.dockerfile, ignore_patterns(app.context, app.dockerfile)) as dockerfile:
        command = [*build_cli(), "build", "--progress=plain", *build_options(), "-t", name, "-f", str(dockerfile)]
        process = subprocess.Popen(
            [*command, *_said_of(app, source), str(app.context)],
            env=build_environment(), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        lines = _follow(process, say)
    if process.returncode:
        raise failure(name, app.dockerfile, lines)


def _said_of(app: App, source: Source) -> list[str]:
    """Return the options for an image's labels and the arguments that a Dockerfile may use."""
    labels = {LABEL_MANAGED: "true", LABEL_APP: app.name, LABEL_VERSION: source.version, LABEL_CONTENT: source.content}
    values = {"VERSION": source.version, "REVISION": source.revision, "CREATED": source.created,
              "SOURCE_DATE_EPOCH": str(source.epoch)}  # fmt: skip
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    return words + [word for key, value in values.items() for word in ("--build-arg", f"{key}={value}")]


def _follow(process: subprocess.Popen[str], say: Say) -> list[str]:
    """Pass a build's output on until it ends; the build does not outlive us."""
    lines: list[str] = []
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            say(lines[-1])
    except BaseException:
        process.terminate()
        raise
    finally:
        process.wait()
        if process.stdout:
            process.stdout.close()
    return lines


def failure(name: str, dockerfile: Path, lines: Sequence[str]) -> Failed:
    """Return the error for a failed build; a base image that nobody has is named."""
    bases = [found[1] for line in lines if (found := _UNRESOLVED.fullmatch(line))]
    if bases:
        fix = f"`docker load` an archive of {bases[0]}, or let this machine reach its registry"
        return Failed(f"building {name} failed: its base image {bases[0]} is not here and cannot be pulled",
                      where=str(dockerfile), why=lines[-1], fix=fix)  # fmt: skip
    return Failed(f"building {name} failed", where=str(dockerfile), why="\n    ".join(lines[-TAIL:]),
                  fix="mend it and run this again")  # fmt: skip


def _remove_old(app: App, built: str, engine: APIClient, say: Say) -> None:
    """Keep the newest images of an app on this engine, and the one just built; the others are built again from the cache."""
    ours = f"/{built.rpartition(':')[0]}:"  # after a registry's address too: what an interrupted deploy was pushing
    images = engine.images(filters={"label": f"{LABEL_APP}={app.name}"})
    tags = [[tag for tag in image["RepoTags"] or () if ours in f"/{tag}"] for image in images]
    others = [found for found in tags if found and built not in found]
    spare = app.keep_releases + SPARE - 1
    if len(others) > spare:
        newest = sorted(others, key=lambda found: _tagged(engine, found[0]), reverse=True)
        _untag([tag for found in newest[spare:] for tag in found], engine, say)


def _tagged(engine: APIClient, name: str) -> str:
    """Return when an image was last built or shipped; when it was created tells of its layers, which the cache may have had."""
    known = _inspect(engine, name) or {}
    return str(known.get("Metadata", {}).get("LastTagTime", ""))


def _untag(tags: Sequence[str], engine: APIClient, say: Say) -> None:
    from ops.engine import EngineError, NotFound

    for tag in tags:
        try:
            engine.remove_image(tag)
        except NotFound:
            continue  # another deploy was faster
        except EngineError as error:
            say(f"{tag} stays: {error.explanation}")
