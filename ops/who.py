"""Who is at work, as locks, journals and backups name them."""

from __future__ import annotations

import getpass
import os
import socket


def who() -> str:
    """Return `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in some CI containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
