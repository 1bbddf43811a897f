"""A file of the stack's configuration as it is to be on a server. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from ops.names import HOME

PROJECT = "tidegate-monitoring"  # in Compose; its containers are PROJECT-service-1
FOLDER = f"{HOME}/monitoring"
MOUNT = "/etc/tidegate"  # where a service finds its own folder
SECRETS = f"{MOUNT}/secrets"
OWNER = "owner.json"  # whose stack it is
MEMBERS = "members.json"  # the private addresses of the servers that believe each other


@dataclass(frozen=True)
class File:
    """A file below /srv/tidegate/monitoring; the first part of its path is the service it belongs to."""

    path: str
    content: str
    mode: int = 0o644
    owner: int = 0

    @property
    def service(self) -> str:
        """The service whose container mounts it."""
        return self.path.partition("/")[0]
