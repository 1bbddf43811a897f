"""Why a container did not become healthy, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def likely_cause(reason: str, last: str, port: int, listening: Sequence[int]) -> str:
    """Return the likely cause from how the wait ended, what was seen last, and the ports open inside the container."""
    if "out of memory" in last or "exit code 137" in last:
        return "killed, most likely out of memory: raise `memory`, or find what grew"
    if reason == "died":
        return f"it crashed at start ({last})"
    if port and port not in listening:
        others = ", ".join(str(one) for one in listening)
        if others:
            return f"wrong port: nothing listens on {port}, but it does listen on {others}"
        return f"slow start: nothing listens on {port} yet; raise `health.timeout` if that is normal"
    if "answered" in last:
        return f"it runs and listens, but its health check does not pass: {last}"
    return last
