"""How a server is reached, as it stands in the configuration."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from ops import config_values as check
from ops.config_types import AnyPath, Model, Port


class HostAddress(Model):
    """How one server is reached over SSH, and its edge over HTTP."""

    address: Annotated[str, AfterValidator(check.address)]
    user: Annotated[str, AfterValidator(check.user)] | None = None
    port: Port | None = None
    identity: AnyPath | None = None
    url: Annotated[str, AfterValidator(check.url)] | None = None
    private: Annotated[str, AfterValidator(check.ip_address)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return check.host_parts(value) if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """The server as people name it: `user@address:port` without what is left to ssh or usual."""
        odd_port = self.port not in (None, 22)
        address = f"[{self.address}]" if odd_port and ":" in self.address else self.address
        return (f"{self.user}@" if self.user else "") + address + (f":{self.port}" if odd_port else "")

    def __str__(self) -> str:
        return self.name
