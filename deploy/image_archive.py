"""An image as files, so that what one job built is what another deploys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.image import VERSION
from deploy.model import ImageRef
from ops.errors import Failed, Refused
from ops.names import LABEL_CONTENT

if TYPE_CHECKING:
    from docker import APIClient

IMAGE, ABOUT = "image.tar", "image.json"
OUTPUT = "GITHUB_OUTPUT"
_CHUNK = 1 << 20


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


def load(folder: Path, engine: APIClient) -> Archived:
    """Put the image of a folder on the engine and make sure that it is what the folder says. Raises Refused, Failed."""
    known = read(folder)
    if not (folder / IMAGE).is_file():
        raise Refused(f"there is no {IMAGE}", where=str(folder), why=f"{ABOUT} tells of one", fix="inv docker.save")
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
