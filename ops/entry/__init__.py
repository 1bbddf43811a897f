"""The command `tidegate`: the wheel has this as `tidegate/__init__.py`, with a clone's layout beside it in `_app`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the tasks as a program of their own."""
    here = Path(__file__).resolve().parent
    app = here / "_app" if here.name == "tidegate" else here.parents[1]
    sys.path[: not sys.flags.safe_path] = [str(app)]  # in place of the folder where `python -m` is typed: it is the app's
    try:
        from ops.program import program
        from tasks import namespace

        program(namespace).run()
    except KeyboardInterrupt:  # while it was still loading
        sys.exit(1)
