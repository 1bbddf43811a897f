"""A project folder of its own beside the checkout, and the commands that a user would type in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("docker", "example")
_UNWANTED = shutil.ignore_patterns("__pycache__", ".*_cache")
_NAME = re.compile(r'^name = ".*"$', re.MULTILINE)


def renew(root: Path, name: str) -> None:
    """Put fresh copies of the bundled example there, under a name of its own: no image or volume is shared."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in FOLDERS:
        shutil.rmtree(root / folder, ignore_errors=True)
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=_UNWANTED)
    (root / "ops.toml").write_text(renamed((REPOSITORY / "ops.toml").read_text(), name))


def renamed(text: str, name: str) -> str:
    """Return a configuration with the app under another name."""
    return _NAME.sub(f'name = "{name}"', text, count=1)


def inv(*words: str) -> list[str]:
    """Return the command line for what people type as `inv …`."""
    return [sys.executable, "-m", "invoke", "-r", str(REPOSITORY), *words]


def environment(root: Path, **extra: str) -> dict[str, str]:
    """Return the variables for commands in the folder; it is no part of the checkout's git repository."""
    mine = {key: value for key, value in os.environ.items() if key != "TIDEGATE_CONFIG"}
    return {**mine, "GIT_CEILING_DIRECTORIES": str(root.resolve().parent), "PYTHONUNBUFFERED": "1", **extra}


def start(root: Path, *words: str, **extra: str) -> subprocess.Popen[str]:
    """Start a command in the folder, in a session of its own: Ctrl-C reaches it when we pass it on."""
    return subprocess.Popen(
        inv(*words), cwd=root, env=environment(root, **extra), start_new_session=True, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def remove_images(name: str) -> int:
    """Remove the images of the app of that name from this machine's engine; return how many tags went."""
    from ops.engine import EngineError
    from ops.this_machine import local_client

    api, gone = local_client().api, 0
    for tag in [tag for image in api.images(f"tidegate/{name}") for tag in image["RepoTags"] or ()]:
        try:
            api.remove_image(tag)
            gone += 1
        except EngineError:  # a container of somebody else's uses it
            continue
    return gone
