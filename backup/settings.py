"""What one server is told about its backups."""

from __future__ import annotations

from collections.abc import Mapping

from backup.agent.model import HOME, Offsite, Settings, Source
from ops.config import Backup, BackupSource, Environment, HostAddress
from ops.durations import size_bytes
from ops.errors import ConfigError
from ops.secret import Secret

_PORTS = {"postgres": 5432, "mariadb": 3306}


def backup_of(env: Environment) -> Backup:
    """Return what is configured. Raises ConfigError when nothing is."""
    if env.app.backup is None:
        raise ConfigError("no backups are configured", where=env.name,
                          fix="a table [app.backup.sources.NAME] in ops.toml; ops.example.toml has every key")  # fmt: skip
    return env.app.backup


def needed_secrets(env: Environment) -> tuple[str, ...]:
    """Return the names of the secrets that become part of the settings."""
    return tuple(dict.fromkeys((*backup_of(env).server_secrets, *env.notifications.urls)))


def server_settings(env: Environment, host: HostAddress, secrets: Mapping[str, Secret]) -> Settings:
    """Return the settings for one host; sources that only the first one has are left out elsewhere."""
    backup = backup_of(env)
    here = {name: one for name, one in backup.sources.items() if one.each or host == env.hosts[0]}
    return Settings(
        app=env.app.name,
        environment=env.name,
        server=host.name,
        sources=tuple(_source(env, name, one, secrets) for name, one in here.items()),
        compression=backup.compression,
        level=backup.level,
        recipients=backup.recipients,
        reserve=size_bytes(backup.reserve),
        at=backup.at,
        drill_every=backup.drill,
        keep={kind: rule.model_dump(exclude_none=True) for kind, rule in backup.keep},
        minimum=backup.minimum,
        notify=tuple(secrets[name].reveal() for name in env.notifications.urls),
        ping=_value(backup.ping, secrets),
        offsite=_offsite(backup, secrets),
        grace=env.app.drain.grace,
        patience=env.app.health.timeout,
        home=HOME,
    )


def _source(env: Environment, name: str, one: BackupSource, secrets: Mapping[str, Secret]) -> Source:
    return Source(
        name=name,
        kind=one.kind,
        volume=f"{env.app.name}_{one.volume}" if one.volume else "",
        path=one.path or "",
        container=one.container or "",
        image=one.image or "",
        address=one.address or "",
        port=one.port or (_PORTS[one.kind] if one.address else 0),
        user=one.user or "",
        database=one.database or "",
        password=_value(one.password, secrets),
        smoke=one.smoke or "",
        exclude=one.exclude,
    )


def _offsite(backup: Backup, secrets: Mapping[str, Secret]) -> Offsite | None:
    if backup.offsite is None:
        return None
    variables = {variable: secrets[name].reveal() for variable, name in backup.offsite.environment.items()}
    return Offsite(backup.offsite.repository, secrets[backup.offsite.password].reveal(), variables)


def _value(name: str | None, secrets: Mapping[str, Secret]) -> str:
    return secrets[name].reveal() if name else ""
