"""The configuration: `load` reads ops.toml into a `Project`, whose environments say where the app runs and how."""

from ops.config_backup import Backup, BackupSource, Keep, Keeping, Offsite
from ops.config_load import DEFAULT_ENVIRONMENT, Project, load
from ops.config_models import (
    App,
    Drain,
    Edge,
    Environment,
    Health,
    HostAddress,
    Migrate,
    Notifications,
    Prober,
    Process,
    SecretSource,
    Services,
    Tls,
)
from ops.config_problems import ConfigProblems, Problem

__all__ = [
    "DEFAULT_ENVIRONMENT",
    "App",
    "Backup",
    "BackupSource",
    "ConfigProblems",
    "Drain",
    "Edge",
    "Environment",
    "Health",
    "HostAddress",
    "Keep",
    "Keeping",
    "Migrate",
    "Notifications",
    "Offsite",
    "Prober",
    "Problem",
    "Process",
    "Project",
    "SecretSource",
    "Services",
    "Tls",
    "load",
]
