"""An image as files, so that what one job built is what another deploys."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING, Any

from deploy.image import VERSION, image_name
from deploy.model import ImageRef
from ops.errors import Failed, Refused
from ops.names import LABEL_CONTENT

if TYPE_CHECKING:
    from docker import APIClient

    from ops.config import App

IMAGE, ABOUT = "image.tar", "image.json"
OUTPUT = "GITHUB_OUTPUT"
_CHUNK = 1 << 20
_FULL_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Archived:
    """What an archive says it holds: the image's name and version, the fingerprint of what it was built from, and by which run."""

    name: str
    version: str
    content: str
    run: str = ""


def save(image: ImageRef, folder: Path, engine: APIClient, run: str = "") -> Archived:
    """Write a built image into a folder, with what it is beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    known = Archived(image.name, image.version, image.content, run)
    with (folder / IMAGE).open("wb") as file:
        for chunk in engine.get_image(image.name, chunk_size=_CHUNK):
            file.write(chunk)
    (folder / ABOUT).write_text(json.dumps(asdict(known), indent=1) + "\n")
    return known


def load(folder: Path, engine: APIClient, apps: Iterable[App]) -> Archived:
    """Put the image of a folder on the engine: it is of one of those apps, and what the folder says. Raises Refused, Failed."""
    known = read(folder)
    ours = {image_name(app, known.version) for app in apps}
    if known.name not in ours:
        raise Refused(f"{known.name} is no image of this app", where=str(folder), why=f"that is {' or '.join(sorted(ours))}",
                      fix="build it with the ops.toml that is here: inv docker.save")  # fmt: skip
    if not (folder / IMAGE).is_file():
        raise Refused(f"there is no {IMAGE}", where=str(folder), why=f"{ABOUT} tells of one", fix="inv docker.save")
    if others := _names(folder / IMAGE) - {_short(known.name)}:
        raise Refused(f"the archive holds more than {known.name}", where=str(folder / IMAGE), why=", ".join(sorted(others)))
    with (folder / IMAGE).open("rb") as file:
        for said in engine.load_image(file):  # it ends when the engine has all of it
            if why := said.get("error") or said.get("message"):
                raise Failed("the engine does not take the archive", where=str(folder / IMAGE), why=why)
    from ops.engine import NotFound

    try:
        labels = engine.inspect_image(known.name)["Config"]["Labels"] or {}
    except NotFound:
        raise Failed(f"the archive holds no {known.name}", where=str(folder / IMAGE)) from None
    if labels.get(LABEL_CONTENT) != known.content:
        raise Refused(f"{known.name} was not built from what {ABOUT} says", where=str(folder), fix="build it again")
    return known


def _names(archive: Path) -> set[str]:
    """Return every name that an engine would give to something in an archive. Raises Failed."""
    try:
        with tarfile.open(archive, "r:") as tar:
            members = [(normpath(one.name), tar.extractfile(one)) for one in tar if normpath(one.name) in _NAMES]
            return {_short(name) for member, file in members if file for name in _NAMES[member](json.load(file))}
    except (tarfile.TarError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise Failed("this is no archive of an image", where=str(archive), why=str(error)) from None


def _short(name: str) -> str:
    """Return a name as engines shorten it."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def _of_index(told: Mapping[str, Any]) -> list[str]:
    annotations = [one.get("annotations") or {} for one in told["manifests"]]
    return [found[_FULL_NAME] for found in annotations if _FULL_NAME in found]


def _of_repositories(told: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [f"{name}:{tag}" for name, tags in told.items() for tag in tags]


# The files that name images, one per format: an archive may have all three, and which of them counts depends on the engine.
_NAMES: Mapping[str, Callable[[Any], list[str]]] = {
    "manifest.json": lambda told: [name for one in told for name in one["RepoTags"] or ()],
    "index.json": _of_index,
    "repositories": _of_repositories,
}


def read(folder: Path) -> Archived:
    """Return what a folder says it holds. Raises Refused."""
    try:
        known = Archived(**json.loads((folder / ABOUT).read_text()))
    except FileNotFoundError:
        raise Refused("there is no image", where=str(folder), why="no job before this one built it, and no run was named that did",
                      fix="name the run that built it; or inv docker.save here") from None  # fmt: skip
    except (ValueError, TypeError) as error:
        raise Refused("this says nothing of an image", where=str(folder / ABOUT), why=str(error), fix="inv docker.save") from None
    if not all(isinstance(value, str) for value in vars(known).values()) or not VERSION.fullmatch(known.version):
        raise Refused("this says nothing of an image", where=str(folder / ABOUT), why="a value is not what it can be",
                      fix="inv docker.save")  # fmt: skip
    return known


def run_of(environ: Mapping[str, str]) -> str:
    """Return the address of the CI run that this is part of, "" outside of one."""
    parts = [environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else ""


def tell_job(known: Archived, environ: Mapping[str, str]) -> None:
    """Make the version an output of the CI step that runs this."""
    if file := environ.get(OUTPUT):
        with Path(file).open("a", encoding="utf-8") as outputs:
            outputs.write(f"version={known.version}\n")
